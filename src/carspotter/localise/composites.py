"""Scenes to train a localiser on: cars pasted on pictures without cars, and street frames.

Cut, Paste and Learn (arXiv:1708.01642): the edges of what is pasted are softened in many ways, and
pictures without a car are pasted with the same edges, so that an edge tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from carspotter.data import DecodedPictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

KINDS = ("pasted", "close", "frame", "empty")
"""Kinds of scenes: cars pasted on a background, a single car that fills the picture, a part of a
street frame, and no car at all."""

ASPECTS = (16 / 9, 3 / 2, 4 / 3, 1.0, 3 / 4)
"""Width to height of the photos that scenes stand for."""

LEAST_VISIBLE = 0.45
"""Share of a car that must lie within the picture, and not below another car."""

LEAST_SIDE = 7.0
"""Vehicles with a shorter side, in pixels of the scene, are no aim."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn scene.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        boxes: (N, 4) left, top, right, bottom of each vehicle, in pixels.
        kind: one of `KINDS`.
    """

    pixels: Pixels
    boxes: NDArray[np.float32]
    kind: str


Drawn: TypeAlias = "tuple[Pixels, NDArray[np.float64]]"
"""A scene's pixels and boxes, before chance mirrors it."""


@dataclass(frozen=True, eq=False)
class SceneParts:
    """What scenes are made of.

    Attributes:
        cars: pictures of one car each.
        sizes: (N, 2) width and height that each had before it was squeezed; their ratio counts.
        places: (N, 4) left, top, right, bottom of the car, as shares of its picture.
        backgrounds: pictures without a car.
        frames: street frames, or None.
        vehicles: of each frame, (n, 4) boxes in its pixels.
        blanks: of each frame, (m, 4) regions of which nothing is known.
    """

    cars: DecodedPictures
    sizes: NDArray[np.float32]
    places: NDArray[np.float32]
    backgrounds: DecodedPictures
    frames: DecodedPictures | None = None
    vehicles: Sequence[NDArray[np.float32]] = ()
    blanks: Sequence[NDArray[np.float32]] = ()


@dataclass(frozen=True)
class Mix:
    """How often which scene is drawn.

    Attributes:
        shares: of each of `KINDS`, in their order; frames count where there are any.
        crowded: share of the street scenes into which things are pasted as well: frames are few,
            and an untouched one is seen again and again.
    """

    shares: tuple[float, float, float, float] = (0.45, 0.2, 0.25, 0.1)
    crowded: float = 0.0


USUAL = Mix()


def draw_scene(
    rng: np.random.Generator,
    parts: SceneParts,
    car: int,
    width: int,
    height: int,
    mix: Mix = USUAL,
) -> Scene:
    """Draw one scene, as a photo of some aspect ratio looks when it is squeezed to this size.

    Args:
        rng: all chance comes from it.
        parts: what to draw from.
        car: number of the car that is in it, unless it is a frame or without cars.
        width: of the scene, in pixels.
        height: of the scene, in pixels.
        mix: how often which scene is drawn.
    """
    weights = np.array(mix.shares) * [kind != "frame" or bool(parts.frames) for kind in KINDS]
    kind = str(rng.choice(KINDS, p=weights / weights.sum()))
    squeeze = width / height / float(rng.choice(ASPECTS))
    if kind == "close":
        pixels, boxes = _close_up(rng, parts, car, width, height)
    elif kind == "frame":
        pixels, boxes = _street(rng, parts, squeeze, width, height)
        if mix.crowded and rng.random() < mix.crowded:
            pixels, boxes = _crowded(rng, parts, car, squeeze, pixels, boxes)
    else:
        cars = [car] if kind == "pasted" else []
        pixels, boxes = _pasted(rng, parts, cars, squeeze, width, height)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
        boxes = np.stack(
            [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1
        )
    return Scene(np.array(pixels), boxes.astype(np.float32), kind)  # Pillow's cannot be written


# --- one car that fills the picture ------------------------------------------------------------


def _close_up(
    rng: np.random.Generator, parts: SceneParts, car: int, width: int, height: int
) -> Drawn:
    """A car's own picture, squeezed as it comes, whole or with some of it outside."""
    image = Image.fromarray(parts.cars[car])
    place = parts.places[car].astype(np.float64)
    # Up to a sixth is cut off at each side.
    left, top = rng.uniform(0, 1 / 6, 2) * (rng.random(2) < 0.5)
    right, bottom = 1 - rng.uniform(0, 1 / 6, 2) * (rng.random(2) < 0.5)
    w, h = image.size
    seen = image.resize(
        (width, height), Image.Resampling.BILINEAR, (left * w, top * h, right * w, bottom * h)
    )
    corners = np.array([left, top, left, top])
    scale = np.array([width, height, width, height]) / np.array(
        [right - left, bottom - top, right - left, bottom - top]
    )
    box = np.clip((place - corners) * scale, 0, [width, height, width, height])
    return np.asarray(seen), box[None]


# --- cars on a background ----------------------------------------------------------------------


def _pasted(
    rng: np.random.Generator,
    parts: SceneParts,
    cars: list[int],
    squeeze: float,
    width: int,
    height: int,
) -> Drawn:
    ground = _ground(rng, parts).resize((width, height), Image.Resampling.BILINEAR)
    if cars:
        more = int(rng.choice(4, p=[0.45, 0.3, 0.15, 0.1]))
        cars = [*cars, *(int(n) for n in rng.integers(0, len(parts.cars), more))]
    boxes = _with_more(rng, parts, ground, [], cars, squeeze)
    return np.asarray(ground), np.array(boxes).reshape(-1, 4)


def _with_more(
    rng: np.random.Generator,
    parts: SceneParts,
    ground: Image.Image,
    boxes: list[NDArray[np.float64]],
    cars: Sequence[int],
    squeeze: float,
) -> list[NDArray[np.float64]]:
    """Paste cars into a scene, and things that are none; returns the boxes of all vehicles."""
    found = list(boxes)
    others = int(rng.choice(3, p=[0.45, 0.35, 0.2]))
    for car in rng.permutation([*cars, *([-1] * others)]):
        image, aspect, place = _to_paste(rng, parts, int(car))
        spot = free_spot(rng, found, place, aspect * squeeze, ground.size)
        if spot is None:
            continue
        paste(rng, ground, image, spot)
        if car >= 0:
            found.append(placed(place, spot, ground.size))
    return found


def _ground(rng: np.random.Generator, parts: SceneParts) -> Image.Image:
    """A part of a picture without cars, or a part of a street frame where none is."""
    if parts.frames is not None and rng.random() < 0.3:
        number = int(rng.integers(len(parts.frames)))
        frame = Image.fromarray(parts.frames[number])
        taken = np.concatenate([parts.vehicles[number], parts.blanks[number]])
        for _ in range(10):
            w, h = (float(rng.uniform(0.2, 0.7)) * side for side in frame.size)
            left, top = rng.uniform(0, frame.width - w), rng.uniform(0, frame.height - h)
            window = np.array([left, top, left + w, top + h])
            if not any(_overlap(box, window) > 0 for box in taken):
                return frame.crop((int(left), int(top), int(left + w), int(top + h)))
    return _part_of(rng, _any(rng, parts.backgrounds), (0.4, 1.0))


def _to_paste(
    rng: np.random.Generator, parts: SceneParts, car: int
) -> tuple[Image.Image, float, NDArray[np.float64]]:
    """A car, or for -1 a part of a background: its picture, aspect ratio, and place in it."""
    if car < 0:
        image = _part_of(rng, _any(rng, parts.backgrounds), (0.3, 1.0))
        return image, float(rng.uniform(0.8, 2.4)), np.array([0.0, 0.0, 1.0, 1.0])
    size = parts.sizes[car]
    aspect = float(size[0] / size[1]) * float(rng.uniform(0.85, 1.18))
    return Image.fromarray(parts.cars[car]), aspect, parts.places[car].astype(np.float64)


def free_spot(
    rng: np.random.Generator,
    boxes: Sequence[NDArray[np.float64]],
    place: NDArray[np.float64],
    aspect: float,
    size: tuple[int, int],
    widths: tuple[float, float] = (0.07, 1.0),
) -> tuple[int, int, int, int] | None:
    """Left, top, width, height of a spot where the thing is seen and hides no car; None if none.

    Args:
        rng: all chance comes from it.
        boxes: (4,) of the cars that are there.
        place: (4,) of the thing in its picture, as shares.
        aspect: width to height of its picture.
        size: width and height of the scene, in pixels.
        widths: bounds of its picture's width, as shares of the scene's; drawn log-uniformly.
    """
    width, height = size
    for _ in range(12):
        w = width * float(np.exp(rng.uniform(*np.log(widths))))
        h = w / aspect
        if h > height:
            w, h = height * aspect, float(height)
        left, top = rng.uniform(-0.4 * w, width - 0.6 * w), rng.uniform(-0.4 * h, height - 0.6 * h)
        spot = (round(left), round(top), max(2, round(w)), max(2, round(h)))
        box = placed(place, spot, size)
        whole = np.prod((place[2:] - place[:2]) * np.array(spot[2:]))
        seen = _area(box)
        if min(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE or seen < LEAST_VISIBLE * whole:
            continue
        if all(_overlap(other, box) < 0.3 * _area(other) for other in boxes):
            return spot
    return None


def placed(
    place: NDArray[np.float64], spot: tuple[int, int, int, int], size: tuple[int, int]
) -> NDArray[np.float64]:
    """(4,) the part of the thing that lies within a scene of a size, in pixels."""
    left, top, w, h = spot
    corners = np.array([left, top, left, top]) + place * np.array([w, h, w, h])
    inside: NDArray[np.float64] = np.clip(corners, 0, [*size, *size])
    return inside


def paste(
    rng: np.random.Generator,
    ground: Image.Image,
    image: Image.Image,
    spot: tuple[int, int, int, int],
) -> None:
    """Paste a picture into a scene, scaled to its spot, with an edge and a brightness by chance."""
    left, top, w, h = spot
    scaled = image.resize((w, h), Image.Resampling.BILINEAR)
    gain = float(rng.uniform(0.6, 1.3))
    scaled = scaled.point([min(255, int(gain * level)) for level in range(256)] * 3)
    # A superellipse: nearly a rectangle, or with its corners cut.
    power = float(rng.choice([5.0, 10.0, 40.0]))
    across, down = np.abs(np.linspace(-1, 1, w)), np.abs(np.linspace(-1, 1, h))
    radius = (across[None] ** power + down[:, None] ** power) ** (1 / power)
    softness = float(rng.choice([0.0, 0.03, 0.08]))
    mask = np.clip((1 - radius) / max(softness, 1e-6), 0, 1)
    ground.paste(scaled, (left, top), Image.fromarray((255 * mask).astype(np.uint8)))


# --- street frames -----------------------------------------------------------------------------


def _street(
    rng: np.random.Generator, parts: SceneParts, squeeze: float, width: int, height: int
) -> Drawn:
    """A part of a street frame; what is too small to tell or not labelled is smeared."""
    assert parts.frames is not None
    number = int(rng.integers(len(parts.frames)))
    frame = Image.fromarray(parts.frames[number])
    share = float(rng.uniform(0.3, 1.0))
    w = frame.width * share
    h = min(float(frame.height), squeeze * w * height / width)
    left, top = rng.uniform(0, frame.width - w), rng.uniform(0, frame.height - h)
    seen = frame.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
    window = np.array([left, top, left + w, top + h])
    vehicles, shares = _within(parts.vehicles[number], window, width, height)
    sides = np.minimum(vehicles[:, 2] - vehicles[:, 0], vehicles[:, 3] - vehicles[:, 1])
    wanted = (shares >= LEAST_VISIBLE) & (sides >= LEAST_SIDE)
    blanks, _ = _within(parts.blanks[number], window, width, height)
    pixels = np.array(seen)
    for box in [*vehicles[~wanted], *blanks]:
        _smear(pixels, box, vehicles[wanted])
    return pixels, vehicles[wanted]


def _crowded(
    rng: np.random.Generator,
    parts: SceneParts,
    car: int,
    squeeze: float,
    pixels: Pixels,
    boxes: NDArray[np.float64],
) -> Drawn:
    """A street scene with things pasted in, a car among them every other time."""
    ground = Image.fromarray(pixels)
    cars = [car][: int(rng.integers(2))]
    found = _with_more(rng, parts, ground, list(boxes), cars, squeeze)
    return np.asarray(ground), np.array(found).reshape(-1, 4)


def _within(
    boxes: NDArray[np.float32], window: NDArray[np.float64], width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes (n, 4) as they lie in a window that is scaled to a size, and the share of each in it.

    Those that lie outside are left out.
    """
    scale = np.array([width, height, width, height]) / np.tile(window[2:] - window[:2], 2)
    moved = (boxes - np.tile(window[:2], 2)) * scale
    inside = np.clip(moved, 0, [width, height, width, height])
    is_there = _area(inside) > 0
    return inside[is_there], (_area(inside) / np.maximum(_area(moved), 1e-9))[is_there]


def _smear(pixels: Pixels, box: NDArray[np.float64], kept: NDArray[np.float64]) -> None:
    """Fill a region with its mean colour, but for the vehicles that reach into it."""
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    region = pixels[top:bottom, left:right]
    if region.size == 0:
        return
    before = pixels.copy() if len(kept) else pixels
    region[:] = region.reshape(-1, 3).mean(axis=0)
    for x1, y1, x2, y2 in kept.astype(int):
        pixels[y1:y2, x1:x2] = before[y1:y2, x1:x2]


# --- shared ------------------------------------------------------------------------------------


def _any(rng: np.random.Generator, pictures: DecodedPictures) -> Image.Image:
    return Image.fromarray(pictures[int(rng.integers(len(pictures)))])


def _part_of(
    rng: np.random.Generator, image: Image.Image, shares: tuple[float, float]
) -> Image.Image:
    """A part of a picture, at random; `shares` bound its width and height."""
    w, h = (float(rng.uniform(*shares)) * side for side in image.size)
    left, top = rng.uniform(0, image.width - w), rng.uniform(0, image.height - h)
    return image.crop((int(left), int(top), int(left + max(2.0, w)), int(top + max(2.0, h))))


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Area that two boxes share."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(0, sides)))

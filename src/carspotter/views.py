"""What the model looks at on a photo, and from what it says of each look to the photo's result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from carspotter.card import Card
from carspotter.decide import Decider
from carspotter.detect import Detector, cars
from carspotter.errors import PhotoError, UsageError
from carspotter.photo import MAX_PIXELS, Photo, photo_bytes, photo_name, read_reduced
from carspotter.preprocess import Box, clip_box, part_of, scaled_box, to_input
from carspotter.results import Car, Identification, LabelSet, ModelInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import PhotoSource, Pixels


_OVERSAMPLING = 2
"""So many pixels of a photo, at least, for each pixel of the input's side: what a JPEG's decoder
does to finer detail is then averaged away when the input is made."""

_SEARCHED_SIDE = 1024
"""Short side, in pixels, of photos in which cars are looked for, or which are drawn on."""


class View(NamedTuple):
    """One look of the model at a photo.

    Attributes:
        pixels: (S, S, 3) uint8 RGB, the model's input.
        box: the car's, in pixels of the upright photo; None where the whole photo is taken.
        region: what the input shows: the box and, where a detector found it, its margin.
        is_car: False where a detector found no car on the photo.
    """

    pixels: Pixels
    box: Box | None
    region: Box
    is_car: bool = True


class Observation(NamedTuple):
    """A photo's result and what it rests on.

    Attributes:
        result: as `Spotter.identify` gives it.
        embedding: (D,) float32 of the main car's view; None if the photo failed.
        seconds: of reading and decoding it, and its share of the recognition of its batch; None if
            it failed. Photos are read side by side: the sum is more than the time that passed.
    """

    result: Identification
    embedding: NDArray[np.float32] | None = None
    seconds: float | None = None


class Wish(NamedTuple):
    """What is to be said of each car.

    Attributes:
        top_k: how many candidates.
        coverage: of the set that is given too; None: no set.
        least: probability of a class in that set.
    """

    top_k: int
    coverage: float | None = None
    least: float = 0.0


def wish_for(top_k: int, coverage: float | None, card: Card, file: object) -> Wish:
    """What is to be said of each car, with a set of the coverage that the card has a threshold for.

    Raises:
        UsageError: it has none.
    """
    if coverage is None:
        return Wish(top_k)
    sets = {float(key): value for key, value in card.sets.items()}
    if coverage not in sets:
        there = ", ".join(map(str, sorted(sets))) or "none; export it again"
        raise UsageError(f"{file}: no sets of coverage {coverage}; it has {there}")
    return Wish(top_k, coverage, sets[coverage])


def read_views(
    photo: PhotoSource,
    card: Card,
    *,
    box: Box | None,
    detector: Detector | None,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    draws: bool = False,
) -> tuple[Photo, list[View]]:
    """Read a photo and make the model's inputs of it.

    Large JPEG files are decoded at a part of their size, as far as the inputs do not need more.

    Args:
        photo: what `read_photo` takes.
        card: of the model that is to look.
        box: look only here; in pixels of the upright photo.
        detector: else, looks for the cars; None: the photo is taken as a whole.
        name: how errors call the photo; by default its path, or its kind where it has none.
        max_pixels: photos of more are refused before they are decoded.
        draws: whether the photo is to be drawn on.

    Returns:
        The photo, and at least one view, the main car's first.

    Raises:
        PhotoError: the photo cannot be used, or the box lies outside of it.
    """
    name = name or photo_name(photo)
    if box is None and detector is not None:
        return _searched(photo, card, detector, name, max_pixels)

    def detail(width: int, height: int) -> float:
        # Of a box, what the photo has of it; one that lies outside of it is refused below.
        inside = None if box is None else clip_box(box, width, height)
        left, top, right, bottom = inside or (0, 0, width, height)
        share = _OVERSAMPLING * card.input_size / min(right - left, bottom - top)
        return max(share, _SEARCHED_SIDE / min(width, height)) if draws else share

    read = read_reduced(photo, detail, name=name, max_pixels=max_pixels)
    width, height = read.size
    if box is None:
        whole = (0, 0, width, height)
        return read, [_view(read, card, None, whole)]
    inside = clip_box(box, width, height)
    if inside is None:
        raise PhotoError("box_outside", f"{name}: the box lies outside of it")
    return read, [_view(read, card, inside, inside)]


def _searched(
    photo: PhotoSource, card: Card, detector: Detector, name: str, max_pixels: int
) -> tuple[Photo, list[View]]:
    """The views of the cars that are found; that of the whole photo where there is none.

    A large JPEG file is searched at a part of its size, and decoded once more where a car on it is
    so small that its view needs more.
    """
    if not isinstance(photo, (np.ndarray, Image.Image)):
        photo = photo_bytes(photo, name)

    def detail(width: int, height: int) -> float:
        return _SEARCHED_SIDE / min(width, height)

    read = read_reduced(photo, detail, name=name, max_pixels=max_pixels)
    shown = read.image.size
    found = [
        (scaled_box(car, shown, read.size), scaled_box(region, shown, read.size))
        for car, region in cars(detector, read.image)
    ]
    if not found:
        return read, [_view(read, card, None, (0, 0, *read.size), is_car=False)]
    smallest = min(math.sqrt((x2 - x1) * (y2 - y1)) for _, (x1, y1, x2, y2) in found)
    share = card.input_size / smallest
    if shown != read.size and share > shown[0] / read.size[0]:
        read = read_reduced(photo, lambda w, h: share, name=name, max_pixels=max_pixels)
    return read, [_view(read, card, car, region) for car, region in found]


def _view(read: Photo, card: Card, box: Box | None, region: Box, is_car: bool = True) -> View:
    pixels = to_input(part_of(read, region), card.input_size, card.resize)
    return View(pixels, box, region, is_car)


def inputs(views: Sequence[View], size: int) -> Iterator[Pixels]:
    """The inputs of views, (n, S, S, 3), at most `size` at a time."""
    for start in range(0, len(views), size):
        yield np.stack([view.pixels for view in views[start : start + size]])


def identification(
    name: str,
    views: Sequence[View],
    logits: Sequence[NDArray[np.float32]],
    decider: Decider,
    wish: Wish,
    model: ModelInfo,
) -> Identification:
    """The result of a photo.

    Args:
        name: of the photo.
        views: at least one, the main car's first.
        logits: (classes,) of each view.
        decider: turns them into answers.
        wish: what is to be said.
        model: which one answered.
    """
    main, *further = [
        Car(
            (decider.answer if view.is_car else decider.unknown)(row),
            decider.candidates(row, wish.top_k),
            view.box or view.region,
            None
            if wish.coverage is None
            else LabelSet(wish.coverage, decider.label_set(row, wish.least)),
        )
        for view, row in zip(views, logits, strict=True)
    ]
    return Identification(
        photo=name,
        answer=main.answer,
        candidates=main.candidates,
        box=views[0].box,
        model=model,
        others=tuple(further),
        label_set=main.label_set,
    )

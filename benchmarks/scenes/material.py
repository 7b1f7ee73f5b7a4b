"""Test pictures, and scenes composed of them on backgrounds that no training has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from carspotter.data import Crop, decoded_pictures, open_data_set
from carspotter.data.scenes import part_of, read_backgrounds
from carspotter.localise.composites import free_spot, paste, placed
from carspotter.localise.scenes import geometry
from carspotter.train.batches import stream_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.data import DecodedPictures
    from carspotter.photo import Pixels

SIZE = (960, 640)
"""Width and height of a composed scene, in pixels."""

WIDTHS = (0.2, 0.7)
"""Bounds of a car's picture's width, as shares of the scene's."""


@dataclass(frozen=True, eq=False)
class CarsToName:
    """Test pictures of one car each.

    Attributes:
        labels: class name of each.
        pixels: their pixels.
        sizes: (N, 2) width and height before they were squeezed.
        places: (N, 4) where the car is, as shares.
    """

    labels: Sequence[str]
    pixels: DecodedPictures
    sizes: NDArray[np.float32]
    places: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Composed:
    """A composed scene.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        cars: the number of each car, in the order of pasting.
        boxes: (4,) of each, as far as it lies within the scene.
        seen: of each, the share that lies within the scene and below no later car.
    """

    pixels: Pixels
    cars: list[int]
    boxes: list[NDArray[np.float64]]
    seen: list[float]


def cars_to_name(root: Path, every: int, margin: int = 16) -> CarsToName:
    """Each `every`-th picture of the test split.

    Raises:
        DataError: the data set has none.
    """
    data = open_data_set(root)
    chosen = data.split("test")[::every]
    decoded = decoded_pictures(chosen, Crop(), 512)
    kept = [chosen[number] for number in decoded.kept]
    sizes, places = geometry(data, kept, decoded.shapes, margin)
    return CarsToName([p.label for p in kept], decoded, sizes, places)


def unseen_backgrounds(file: Path) -> DecodedPictures:
    """The pictures without a car that every training keeps out.

    Raises:
        DataError: the file cannot be used.
    """
    return decoded_pictures(
        [p for p in read_backgrounds(file) if part_of(p) == "test"], Crop(), 640
    )


def compose(cars: CarsToName, backgrounds: DecodedPictures, seed: int) -> Iterator[Composed]:
    """Scenes of one to three cars each, until every test car was taken once."""
    order = np.random.default_rng(stream_seed(seed, 0)).permutation(len(cars.labels)).tolist()
    scene = 0
    while order:
        scene += 1
        rng = np.random.default_rng(stream_seed(seed, scene))
        ground = Image.fromarray(backgrounds[int(rng.integers(len(backgrounds)))]).resize(
            SIZE, Image.Resampling.BILINEAR
        )
        taken: list[int] = []
        boxes: list[NDArray[np.float64]] = []
        seen: list[float] = []
        for _ in range(int(rng.integers(1, 4))):
            if not order:
                break
            car = order[-1]
            place = cars.places[car].astype(np.float64)
            aspect = float(cars.sizes[car][0] / cars.sizes[car][1])
            spot = free_spot(rng, boxes, place, aspect, SIZE, WIDTHS)
            if spot is None:
                break
            order.pop()
            paste(rng, ground, Image.fromarray(cars.pixels[car]), spot)
            taken.append(car)
            box = placed(place, spot, SIZE)
            whole = float(np.prod((place[2:] - place[:2]) * np.array(spot[2:])))
            seen = [s - hidden(b, box) for s, b in zip(seen, boxes, strict=True)]
            seen.append(float(np.prod(box[2:] - box[:2])) / whole)
            boxes.append(box)
        if taken:
            yield Composed(np.asarray(ground), taken, boxes, seen)


def hidden(box: NDArray[np.float64], by: NDArray[np.float64]) -> float:
    """Share of a box (4,) that another one hides."""
    sides = np.minimum(box[2:], by[2:]) - np.maximum(box[:2], by[:2])
    return float(np.prod(np.maximum(0, sides)) / np.prod(box[2:] - box[:2]))


def pixels_of(pictures: DecodedPictures) -> Iterator[Pixels]:
    """One picture after the other."""
    for number in range(len(pictures)):
        yield pictures[number]

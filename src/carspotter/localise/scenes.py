"""What a localiser is trained and validated on: scenes, drawn anew in every epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from carspotter.data import Crop, DataSet, Picture, decoded_pictures
from carspotter.data.scenes import part_of, read_backgrounds, read_frames
from carspotter.data.stanford import original_boxes
from carspotter.errors import DataError
from carspotter.localise.composites import Mix, Scene, SceneParts, draw_scene
from carspotter.localise.recipe import LocaliserRecipe
from carspotter.train.augment import JpegCompression
from carspotter.train.batches import Draw, stream_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counter = Callable[[int, int], None]


def scene_parts(
    data: DataSet,
    pictures: Sequence[Picture],
    recipe: LocaliserRecipe,
    part: str,
    progress: Counter = lambda done, total: None,
) -> SceneParts:
    """What the scenes of a part, "train" or "val", are made of.

    Args:
        data: the data set of the cars.
        pictures: those of the part.
        recipe: names the backgrounds and the frames.
        part: of the backgrounds and frames.
        progress: called with the number decoded and the total, for each kind of picture.

    Raises:
        DataError: the backgrounds or frames cannot be used, or none is in the part.
    """
    has_boxes = all(picture.box is not None for picture in pictures)
    crop = Crop(has_boxes, recipe.box_margin)
    cars = decoded_pictures(pictures, crop, recipe.cache_side, progress=progress)
    sizes, places = geometry(data, [pictures[n] for n in cars.kept], cars.shapes, recipe.box_margin)
    grounds = [p for p in read_backgrounds(Path(recipe.backgrounds)) if part_of(p) == part]
    if not grounds:
        raise DataError(f"{recipe.backgrounds}: too few pictures, none is left for {part}")
    backgrounds = decoded_pictures(grounds, Crop(), recipe.cache_side, progress=progress)
    if not recipe.frames:
        return SceneParts(cars, sizes, places, backgrounds)
    # A tenth of the frames that are not for testing validates.
    street = [
        frame
        for frame in read_frames(Path(recipe.frames), "train")
        if (part_of(frame.picture) == "val") == (part == "val")
    ]
    if not street:
        raise DataError(f"{recipe.frames}: too few frames, none is left for {part}")
    frames = decoded_pictures([f.picture for f in street], Crop(), 2160, progress=progress)
    street = [street[number] for number in frames.kept]
    return SceneParts(
        cars,
        sizes,
        places,
        backgrounds,
        frames,
        [frame.vehicles for frame in street],
        [frame.ignored for frame in street],
    )


def geometry(
    data: DataSet, pictures: Sequence[Picture], shapes: NDArray[np.int32], margin: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How pictures of one car each looked before they were squeezed.

    Args:
        data: their data set.
        pictures: of one split.
        shapes: (N, 2) height and width of each, in pixels.
        margin: pixels of the photo that they have kept around the car.

    Returns:
        (N, 2) width and height of each before it was squeezed, and (N, 4) where in it the car is,
        as shares. Of a picture whose box is not known: its own size, and all of it.
    """
    known = {p.key: p.box for p in pictures if p.box is not None} or original_boxes(
        data.root, pictures[0].split
    )
    sizes, places = [], []
    for picture, (height, width) in zip(pictures, shapes, strict=True):
        box = known.get(picture.key)
        if box is None:
            sizes.append((float(width), float(height)))
            places.append((0.0, 0.0, 1.0, 1.0))
            continue
        w, h = box[2] - box[0] + 2.0 * margin, box[3] - box[1] + 2.0 * margin
        sizes.append((w, h))
        places.append((margin / w, margin / h, 1 - margin / w, 1 - margin / h))
    return np.array(sizes, np.float32), np.array(places, np.float32)


class TrainingScenes(Dataset[tuple[Tensor, Tensor]]):
    """Drawn scenes: (3, H, W) uint8 RGB, and (n, 4) boxes in pixels.

    Args:
        parts: what they are made of.
        recipe: says how they look.
    """

    def __init__(self, parts: SceneParts, recipe: LocaliserRecipe) -> None:
        self._parts = parts
        self._recipe = recipe

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(stream_seed(self._recipe.seed, 1, draw.epoch, draw.place))
        car = draw.picture % len(self._parts.cars)
        size, mix = scene_size(draw.size), mix_of(self._recipe)
        scene = draw_scene(rng, self._parts, car, *size, mix)
        torch.manual_seed(int(rng.integers(2**62)))
        pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1)
        return look(self._recipe)(pixels), torch.from_numpy(scene.boxes)


def mix_of(recipe: LocaliserRecipe) -> Mix:
    """How often which scene is drawn."""
    return Mix(recipe.shares, recipe.crowded)


def scene_size(side: int) -> tuple[int, int]:
    """Width and height of a localiser's input, in pixels, by its longer side."""
    return side, side * 4 // 5


@functools.cache
def look(recipe: LocaliserRecipe) -> v2.Compose:
    """How a whole scene's pixels are changed, (3, H, W) uint8 to the same."""
    steps: list[nn.Module] = [v2.ColorJitter(recipe.jitter, recipe.jitter, recipe.jitter)]
    if recipe.recolour:
        steps.append(v2.RandomApply([v2.RandomChannelPermutation()], recipe.recolour))
    steps += [
        v2.RandomGrayscale(recipe.grey),
        v2.RandomApply([v2.GaussianBlur(5, (0.3, 2.0))], recipe.blur),
        v2.RandomApply([JpegCompression(25, 90)], recipe.jpeg),
    ]
    return v2.Compose(steps)


def collate(scenes: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """A batch: (N, 3, H, W) uint8, and the boxes of each scene."""
    return torch.stack([pixels for pixels, _ in scenes]), [boxes for _, boxes in scenes]


def validation_scenes(parts: SceneParts, recipe: LocaliserRecipe) -> list[Scene]:
    """The scenes that validate: the same in every epoch, and for every seed of a training."""
    found = []
    for number in range(recipe.val_scenes):
        rng = np.random.default_rng(stream_seed(recipe.split_seed, 5, number))
        car = number % len(parts.cars)
        size = scene_size(recipe.eval_size)
        found.append(draw_scene(rng, parts, car, *size, mix_of(recipe)))
    return found

"""Augmentation of training pictures, and the batches of an epoch.

Every random draw is a function of the recipe's seed, the epoch and the picture or step: neither the
number of workers nor a resumed run changes what the model sees.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from carspotter.data import DecodedPictures
from carspotter.errors import DataError
from carspotter.train.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Draw(NamedTuple):
    """One picture of one epoch, at the size that is trained at then.

    Attributes:
        picture: its number.
        epoch: from 0.
        size: side in pixels.
        place: in the order of the epoch; a picture that is drawn twice differs in it.
    """

    picture: int
    epoch: int
    size: int
    place: int


def stream_seed(*key: int) -> int:
    """A 63-bit seed for the stream of random numbers that `key` names."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class TrainingPictures(Dataset[tuple[Tensor, int]]):
    """Augmented pictures: (3, S, S) uint8, RGB, and the number of the class.

    Args:
        pictures: the decoded training pictures.
        targets: (N,) class numbers.
        recipe: says how they are augmented.
    """

    def __init__(
        self, pictures: DecodedPictures, targets: NDArray[np.int64], recipe: Recipe
    ) -> None:
        self._pictures = pictures
        self._targets = targets
        self._recipe = recipe

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        torch.manual_seed(stream_seed(self._recipe.seed, 1, draw.epoch, draw.place))
        picture = torch.from_numpy(self._pictures[draw.picture]).permute(2, 0, 1)
        return augmentation(self._recipe, draw.size)(picture), int(self._targets[draw.picture])


@functools.cache
def augmentation(recipe: Recipe, size: int) -> v2.Compose:
    """(3, H, W) uint8 in, (3, size, size) uint8 out."""
    steps: list[torch.nn.Module] = []
    if recipe.rotation:
        # The ground that a rotation uncovers is grey, the mean of most weights' inputs.
        steps.append(v2.RandomRotation(recipe.rotation, v2.InterpolationMode.BILINEAR, fill=127.0))
    steps.append(
        v2.RandomResizedCrop(
            size,
            scale=recipe.crop_scale,
            ratio=recipe.crop_aspect,
            interpolation=v2.InterpolationMode.BILINEAR,
            antialias=True,
        )
    )
    steps.append(v2.RandomHorizontalFlip(recipe.flip))
    # After the crop, which makes the picture small: what comes here is done on fewer pixels.
    if recipe.auto_augment == "randaugment":
        steps.append(v2.RandAugment(magnitude=recipe.magnitude, fill=[127.0] * 3))
    elif recipe.auto_augment == "trivialaugment":
        steps.append(v2.TrivialAugmentWide(fill=[127.0] * 3))
    if recipe.jitter:
        steps.append(v2.ColorJitter(recipe.jitter, recipe.jitter, recipe.jitter))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing, value=[127.0] * 3))
    return v2.Compose(steps)


class EpochBatches(Sampler[list[Draw]]):
    """Batches of one epoch for one of several processes; what fills no whole step is left out.

    A step takes `accumulate` batches of each process.

    Args:
        targets: (N,) class numbers of the training part.
        recipe: batch size (of one process), accumulation, sampling, sizes and seed.
        rank: which process this is.
        world: how many there are.

    Raises:
        DataError: fewer pictures than one step of two pictures in each batch takes.
    """

    def __init__(
        self, targets: NDArray[np.int64], recipe: Recipe, rank: int = 0, world: int = 1
    ) -> None:
        self._count = len(targets)
        self._recipe = recipe
        self._parts = recipe.accumulate * world
        self._batch = min(recipe.batch_size, self._count // self._parts)
        if self._batch < 2:
            raise DataError(
                f"{self._count} training pictures are too few: a step of {self._parts} batches "
                f"needs at least {2 * self._parts}"
            )
        self._rank = rank
        self._world = world
        self._chances: NDArray[np.float64] | None = None
        if recipe.sampling == "balanced":
            each = 1.0 / np.bincount(targets)[targets]
            self._chances = each / each.sum()
        self._epoch = 0
        self._first_step = 0

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Say which epoch comes next, and how many of its steps are done already."""
        self._epoch, self._first_step = epoch, step

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return self._count // (self._batch * self._parts)

    def __len__(self) -> int:
        """Batches that this process takes in an epoch."""
        return self.steps * self._recipe.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, size = self._epoch, self._recipe.size_at(self._epoch)
        order = self._order(epoch)
        for batch in range(self._first_step * self._recipe.accumulate, len(self)):
            start = (batch * self._world + self._rank) * self._batch
            places = range(start, start + self._batch)
            yield [Draw(int(order[place]), epoch, size, place) for place in places]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(stream_seed(self._recipe.seed, 2, epoch))
        if self._chances is None:
            return rng.permutation(self._count)
        return rng.choice(self._count, self._count, p=self._chances)


class BatchMixer:
    """MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899) on a share of the batches."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self._probability = recipe.mix_probability
        mixers: list[torch.nn.Module] = []
        if recipe.mixup_alpha:
            mixers.append(v2.MixUp(alpha=recipe.mixup_alpha, num_classes=classes))
        if recipe.cutmix_alpha:
            mixers.append(v2.CutMix(alpha=recipe.cutmix_alpha, num_classes=classes))
        self._mixers = mixers

    def __call__(self, pictures: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Draws from torch's global random numbers.

        Args:
            pictures: (N, 3, S, S) float.
            targets: (N,) class numbers.

        Returns:
            Pictures, and targets as class numbers (N,) or probabilities (N, classes).
        """
        if float(torch.rand(())) >= self._probability:
            return pictures, targets
        mixer = self._mixers[int(torch.randint(len(self._mixers), ()))]
        mixed, soft = mixer(pictures, targets)
        return mixed, soft

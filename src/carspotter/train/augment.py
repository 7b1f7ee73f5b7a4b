"""Augmentation of training pictures, and the batches of an epoch.

Every random draw is a function of the recipe's seed, the epoch and the picture or step: neither the
number of workers nor a resumed run changes what the model sees.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from carspotter.data import DecodedPictures
from carspotter.train.batches import Draw, stream_seed
from carspotter.train.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray


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

"""Augmentation of training pictures, and the batches of an epoch.

Every random draw is a function of the recipe's seed, the epoch and the picture or step: neither the
number of workers nor a resumed run changes what the model sees.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
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
    steps: list[nn.Module] = []
    if recipe.loose:
        steps.append(v2.RandomApply([_Loose()], recipe.loose))
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
    if recipe.recolour:
        # Cars of one model come in any paint, of which the training pictures show but some.
        steps.append(v2.RandomApply([v2.RandomChannelPermutation()], recipe.recolour))
        steps.append(v2.RandomGrayscale(recipe.recolour / 5))
    if recipe.poor:
        steps.append(v2.RandomApply([poor_camera()], recipe.poor))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing, value=[127.0] * 3))
    return v2.Compose(steps)


class _Loose(nn.Module):
    """More around the picture, each side by up to 35 % of it: what is there is its mirror image."""

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        shares = (0.35 * torch.rand(4)).tolist()
        sides = (width, height, width, height)
        margins = [int(share * side) for share, side in zip(shares, sides, strict=True)]
        padded: Tensor = v2.functional.pad(picture, margins, padding_mode="reflect")
        return padded


class _Coarse(nn.Module):
    """The picture with less detail, as a small or distant car has it."""

    def forward(self, picture: Tensor) -> Tensor:
        share = float(torch.empty(()).uniform_(0.2, 0.6))
        small = v2.functional.resize(picture, [max(8, int(s * share)) for s in picture.shape[-2:]])
        back: Tensor = v2.functional.resize(small, list(picture.shape[-2:]))
        return back


class JpegCompression(nn.Module):
    """(3, H, W) uint8, compressed at a quality between two, of 1 to 95, and decoded again.

    By Pillow: torchvision's own is deprecated.
    """

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self._low, self._high = low, high

    def forward(self, picture: Tensor) -> Tensor:
        quality = int(torch.randint(self._low, self._high + 1, ()))
        buffer = io.BytesIO()
        pixels = picture.permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


def poor_camera() -> v2.RandomChoice:
    """One of: few pixels, blur, strong compression, the dark, glare, no colour, noise."""
    return v2.RandomChoice(
        [
            _Coarse(),
            v2.GaussianBlur(7, (0.8, 2.5)),
            JpegCompression(8, 50),
            v2.ColorJitter(brightness=(0.2, 0.6)),
            v2.ColorJitter(brightness=(1.3, 2.0), contrast=(0.4, 0.9)),
            v2.Grayscale(3),
            v2.GaussianNoise(sigma=0.08),
        ]
    )


class BatchMixer:
    """MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899) on a share of the batches."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self._probability = recipe.mix_probability
        mixers: list[nn.Module] = []
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

"""Pictures made worse in the usual ways, at five strengths (after arXiv:1903.12261).

Sizes are for a picture of 224 pixels a side, and grow with the picture: what the model sees of a
large photo is as bad as what it sees of a small one.
"""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from kornia.augmentation import RandomRain
from kornia.filters import motion_blur
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as draw

if TYPE_CHECKING:
    from carspotter.photo import Pixels

STRENGTHS = (1, 2, 3, 4, 5)

_SIDE = 224
"""Side of a picture for which the sizes below are given, in pixels."""

_RANDOM = threading.Lock()  # torch's random numbers are one state for all threads


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way to make pictures worse.

    Attributes:
        name: for people.
        strengths: what the five strengths are, in the unit of `unit`.
        unit: what the numbers are.
    """

    name: str
    strengths: tuple[float, float, float, float, float]
    unit: str
    _draw: Callable[[Tensor, float], Tensor]

    def __call__(self, pixels: Pixels, strength: int) -> Pixels:
        """The picture (H, W, 3) uint8 at a strength of 1 to 5; the same each time."""
        picture = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        with _RANDOM, torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(pixels.tobytes()))
            found = self._draw(picture, self.strengths[strength - 1])
        return np.ascontiguousarray(found.permute(1, 2, 0).numpy())


def _scale(picture: Tensor) -> float:
    height, width = picture.shape[-2:]
    return min(height, width) / _SIDE


def _as_floats(picture: Tensor) -> Tensor:
    return picture[None].float() / 255


def _as_pixels(picture: Tensor) -> Tensor:
    return (picture[0].clamp(0, 1) * 255).round().to(torch.uint8)


def _noise(picture: Tensor, sigma: float) -> Tensor:
    return _as_pixels(draw.gaussian_noise(_as_floats(picture), 0.0, sigma))


def _blur(picture: Tensor, sigma: float) -> Tensor:
    sigma *= _scale(picture)
    found: Tensor = draw.gaussian_blur(picture, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)
    return found


def _motion(picture: Tensor, length: float) -> Tensor:
    size = max(3, 2 * round(length * _scale(picture) / 2) + 1)
    return _as_pixels(motion_blur(_as_floats(picture), size, 15.0, 0.0, "replicate"))


def _jpeg(picture: Tensor, quality: float) -> Tensor:
    file = io.BytesIO()
    draw.to_pil_image(picture).save(file, "JPEG", quality=int(quality))
    found: Tensor = draw.pil_to_tensor(Image.open(file))
    return found


def _brightness(picture: Tensor, factor: float) -> Tensor:
    # A whole number would be multiplied in uint8, and run over.
    found: Tensor = draw.adjust_brightness(picture, float(factor))
    return found


def _contrast(picture: Tensor, factor: float) -> Tensor:
    found: Tensor = draw.adjust_contrast(picture, factor)
    return found


def _pixelate(picture: Tensor, share: float) -> Tensor:
    height, width = picture.shape[-2:]
    small = [max(1, round(side * share / max(1.0, _scale(picture)))) for side in (height, width)]
    reduced = draw.resize(picture, small, antialias=True)
    found: Tensor = draw.resize(reduced, [height, width], InterpolationMode.NEAREST)
    return found


def _rain(picture: Tensor, drops: float) -> Tensor:
    # A drop is one pixel wide, however large the picture: it is drawn at a set size.
    rain = RandomRain((int(drops),) * 2, (20, 20), (4, 4), p=1.0)
    height, width = picture.shape[-2:]
    fine = draw.resize(_as_floats(picture), [_SIDE, _SIDE], antialias=True)
    lighter = draw.gaussian_blur((rain(fine) - fine).clamp(min=0), [3, 3], [0.6, 0.6])
    return _as_pixels(_as_floats(picture) + draw.resize(lighter, [height, width], antialias=True))


CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption("noise", (0.04, 0.08, 0.12, 0.18, 0.26), "standard deviation, of 1", _noise),
    Corruption("blur", (1, 1.5, 2, 3, 4), "standard deviation, pixels", _blur),
    Corruption("motion blur", (5, 9, 13, 19, 25), "length, pixels", _motion),
    Corruption("JPEG", (40, 25, 15, 10, 6), "quality", _jpeg),
    Corruption("dark", (0.7, 0.5, 0.35, 0.2, 0.1), "factor", _brightness),
    Corruption("bright", (1.3, 1.6, 2, 2.5, 3), "factor", _brightness),
    Corruption("low contrast", (0.6, 0.4, 0.3, 0.2, 0.1), "factor", _contrast),
    Corruption("pixelate", (0.6, 0.45, 0.35, 0.25, 0.2), "share of the side", _pixelate),
    Corruption("rain", (100, 200, 350, 550, 800), "drops", _rain),
)


def evenly(count: int, of: int) -> Sequence[int]:
    """Places of `count` pictures spread over `of`: all classes of a sorted split take part."""
    if count >= of:
        return range(of)
    return [int(place) for place in np.linspace(0, of - 1, count).round()]

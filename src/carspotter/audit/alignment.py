"""Whether two pictures are of the same photo, though cut to different boxes.

Two crops of one photo, both brought to a square, differ by a shift and a scale along each axis.
These are found by the iterations of B. D. Lucas and T. Kanade (IJCAI 1981; S. Baker and I.
Matthews, IJCV 2004). Then fine detail has to agree: other cars of one shape agree in the coarse
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from carspotter.audit.scan import THUMBNAIL

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 256
_COARSE = THUMBNAIL // 2
_LEAST_PEAK = 0.4
_LEAST_COARSE = 0.5
_FARTHEST = 0.4
"""Bound of shift and scale, as shares of half a side."""

_LEAST_COMMON = 0.5
"""Share of one picture that the other must show."""


@torch.inference_mode()
def similarities(
    thumbnails: NDArray[np.uint8],
    pairs: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """How far the fine detail of each pair agrees, one laid on the other.

    Args:
        thumbnails: (N, 64, 64) grey levels.
        pairs: (M, 2) places of pictures.
        progress: called with the number done and the total.

    Returns:
        (M,) normalised correlation of the pictures without their coarse part, -1 to 1; 0 where
        they were seen to differ before the end.
    """
    found = np.zeros(len(pairs), np.float32)
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        one, other = (
            torch.from_numpy(thumbnails[batch[:, side]]).float()[:, None] / 255 for side in (0, 1)
        )
        found[start : start + len(batch)] = _similarity(one, other).numpy()
        progress(start + len(batch), len(pairs))
    return found


def _similarity(one: Tensor, other: Tensor) -> Tensor:
    """(N,) of pictures (N, 1, 64, 64); what is cheap to tell apart is told first."""
    result = torch.zeros(len(one))
    small, small_other = functional.avg_pool2d(one, 2), functional.avg_pool2d(other, 2)
    left = torch.nonzero(_best_shift(small, small_other) >= _LEAST_PEAK)[:, 0]
    if not len(left):
        return result
    small, small_other = small[left], small_other[left]
    fit = torch.zeros(len(left), 4)
    for blur, rounds in ((2.0, 8), (1.0, 5)):
        fit = _refine(small, small_other, fit, blur, rounds)
    good = _agreement(small, small_other, fit, 1.0) >= _LEAST_COARSE
    left, fit = left[good], fit[good]
    if len(left):
        fit = _refine(one[left], other[left], fit, 0.7, 4)
        result[left] = _agreement(one[left], other[left], fit, 2.0)
    return result


def _best_shift(one: Tensor, other: Tensor) -> Tensor:
    """(N,) the highest correlation of fine detail over all shifts."""
    spectra = []
    for picture in (one, other):
        fine = picture - _blurred(picture, 3.0)
        fine = fine - fine.mean((2, 3), keepdim=True)
        fine = fine / (fine.square().sum((2, 3), keepdim=True).sqrt() + 1e-6)
        spectra.append(torch.fft.rfft2(fine, s=(2 * _COARSE, 2 * _COARSE)))
    shifts: Tensor = torch.fft.irfft2(spectra[0] * spectra[1].conj())
    return shifts.amax((1, 2, 3))


def _refine(one: Tensor, other: Tensor, fit: Tensor, blur: float, rounds: int) -> Tensor:
    """Better scales and shifts (N, 4): x scale - 1, x shift, y scale - 1, y shift.

    Lengths are in half sides. Gains in brightness and contrast are left out of the comparison.
    """
    side = one.shape[-1]
    one, other = _blurred(one, blur), _blurred(other, blur)
    down, right = torch.gradient(other, dim=(2, 3))
    layers = torch.cat([other, right * side / 2, down * side / 2, torch.ones_like(other)], 1)
    x, y = _places(torch.zeros(1, 4), side)[0].unbind(-1)
    for _ in range(rounds):
        laid = functional.grid_sample(layers, _places(fit, side), align_corners=False)
        common = (laid[:, 3:] > 0.999).float()
        mine, theirs = _centred(one, common), _centred(laid[:, :1], common)
        contrast = (_energy(theirs) / (_energy(mine) + 1e-9)).sqrt()
        rest = (mine * contrast - theirs).flatten(2)
        slopes = [laid[:, 1:2] * x, laid[:, 1:2], laid[:, 2:3] * y, laid[:, 2:3]]
        slope = torch.cat([_centred(one_of, common) for one_of in slopes], 1).flatten(2)
        matrix = slope @ slope.transpose(1, 2)
        size = matrix.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        matrix = matrix + torch.eye(4) * (1e-3 * size + 1e-9)
        step = torch.linalg.solve(matrix, slope @ rest.transpose(1, 2))[..., 0]
        fit = (fit + step).clamp(-_FARTHEST, _FARTHEST)
    return fit


def _agreement(one: Tensor, other: Tensor, fit: Tensor, blur: float) -> Tensor:
    """(N,) correlation of fine detail, where both pictures show the same."""
    layers = torch.cat([other - _blurred(other, blur), torch.ones_like(other)], 1)
    laid = functional.grid_sample(layers, _places(fit, one.shape[-1]), align_corners=False)
    common = (laid[:, 1:] > 0.999).float()
    mine, theirs = _centred(one - _blurred(one, blur), common), _centred(laid[:, :1], common)
    product = (mine * theirs).sum((1, 2, 3))
    found = product / ((_energy(mine) * _energy(theirs)).flatten().sqrt() + 1e-6)
    return torch.where(common.mean((1, 2, 3)) >= _LEAST_COMMON, found, torch.zeros_like(found))


def _places(fit: Tensor, side: int) -> Tensor:
    """(N, side, side, 2) where each pixel of one picture lies in the other."""
    matrix = torch.zeros(len(fit), 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 2] = 1 + fit[:, 0], fit[:, 1]
    matrix[:, 1, 1], matrix[:, 1, 2] = 1 + fit[:, 2], fit[:, 3]
    return functional.affine_grid(matrix, [len(fit), 1, side, side], align_corners=False)


def _centred(values: Tensor, where: Tensor) -> Tensor:
    count = where.sum((2, 3), keepdim=True) + 1e-6
    return (values - (values * where).sum((2, 3), keepdim=True) / count) * where


def _energy(values: Tensor) -> Tensor:
    return values.square().sum((2, 3), keepdim=True)


def _blurred(pictures: Tensor, deviation: float) -> Tensor:
    width = 2 * int(3 * deviation + 0.5) + 1
    blurred: Tensor = gaussian_blur(pictures, [width, width], [deviation, deviation])
    return blurred

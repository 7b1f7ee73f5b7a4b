"""The head as weights on the feature map, of which exact heat maps are made (arXiv:1512.04150)."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from carspotter.train.model import CarClassifier

_TOLERANCE = 1e-3
"""Of what the weights say, as a share of the largest value that they are to give."""


class LinearHead(NamedTuple):
    """A head as one linear layer: norms before it are folded in.

    Attributes:
        weight: (classes, D).
        bias: (classes,).
    """

    weight: Tensor
    bias: Tensor


def linear_head(model: CarClassifier, size: int) -> LinearHead | None:
    """The weights with which a model's logits are the mean over places of its weighted feature map.

    They are read off the head, whatever it is made of, and tried on noise.

    Args:
        model: in eval mode, on the CPU.
        size: side of its square input, in pixels.

    Returns:
        None where there are no such weights: the head is not linear, or the embedding is not the
        feature map's mean.
    """
    draws = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=draws)
    with torch.no_grad():
        seen = model.outputs(noise)
        width = seen.embedding.shape[1]
        if seen.feature_map.shape[1] != width:
            return None
        head: nn.Module = copy.deepcopy(model.head).double().eval()
        bias = head(torch.zeros(1, width, dtype=torch.float64))
        weight = (head(torch.eye(width, dtype=torch.float64)) - bias).T
        anything = torch.randn(8, width, dtype=torch.float64, generator=draws)
        anything *= seen.embedding.double().std().clamp_min(1e-3)
        pooled = seen.feature_map.double().mean(dim=(2, 3))
        fits = _equal(anything @ weight.T + bias, head(anything)) and _equal(
            pooled @ weight.T + bias, seen.logits.double()
        )
    return LinearHead(weight.float().contiguous(), bias[0].float()) if fits else None


def _equal(found: Tensor, expected: Tensor) -> bool:
    largest = float(expected.abs().max())
    return bool(torch.allclose(found, expected, rtol=0, atol=_TOLERANCE * largest + 1e-9))

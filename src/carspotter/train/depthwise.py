"""Depthwise convolutions whose gradients a CPU computes fast.

oneDNN has fast kernels for a depthwise convolution's output, and for the gradient of 3x3 weights.
The gradients of 5x5 weights, and of the input of strided convolutions, are many times slower, in
bf16 above all. Here the same gradients are made of the fast parts; only the order of summation
differs.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.nn import functional

_SIDES = (3, 5)


def speed_up_depthwise(model: nn.Module) -> None:
    """Give a model's trained 3x3 and 5x5 depthwise convolutions the fast gradients.

    They stay what they are: the same weights, the same outputs, below autocast in its type.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad and _is_plain(module):
            # A partial of a function: a deep copy of the module copies its reference too.
            module.forward = functools.partial(_forward, module)  # type: ignore[method-assign]


def _is_plain(module: nn.Conv2d) -> bool:
    """Depthwise, square, neither dilated nor biased, padded by half or as TensorFlow does."""
    side, other = module.kernel_size
    return (
        module.groups == module.in_channels == module.out_channels > 1
        and side == other
        and side in _SIDES
        and module.stride[0] == module.stride[1]
        and module.dilation == (1, 1)
        and module.bias is None
        and (_pads_itself(module) or module.padding == (side // 2, side // 2))
    )


def _pads_itself(module: nn.Conv2d) -> bool:
    return type(module).__name__ == "Conv2dSame"  # timm's, which pads by the size of its input


def _forward(module: nn.Conv2d, pixels: Tensor) -> Tensor:
    side, stride = module.kernel_size[0], module.stride[0]
    height, width = pixels.shape[-2:]
    before = above = side // 2
    after, below = before, above
    if _pads_itself(module):
        rows, columns = (get_same_padding(size, side, stride, 1) for size in (height, width))
        above, before = rows // 2, columns // 2
        below, after = rows - above, columns - before
    weight = module.weight
    kind = pixels.device.type
    if torch.is_autocast_enabled(kind):
        pixels, weight = (each.to(torch.get_autocast_dtype(kind)) for each in (pixels, weight))
    with torch.autocast(kind, enabled=False):
        found: Tensor = _Depthwise.apply(pixels, weight, stride, (before, after, above, below))
        return found


class _Depthwise(torch.autograd.Function):
    """Convolution of (N, C, H, W) with (C, 1, k, k), padded left, right, above and below."""

    @staticmethod
    def forward(
        ctx: Any, pixels: Tensor, weight: Tensor, stride: int, margins: tuple[int, int, int, int]
    ) -> Tensor:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        even = len(set(margins)) == 1
        source = pixels if even else _padded(pixels, margins)
        padding = margins[0] if even else 0
        ctx.save_for_backward(source, weight)
        ctx.stride, ctx.margins, ctx.padding, ctx.size = stride, margins, padding, pixels.shape
        return functional.conv2d(source, weight, None, stride, padding, 1, pixels.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        source, weight = ctx.saved_tensors
        of_pixels = of_weight = None
        if ctx.needs_input_grad[0]:
            of_pixels = _of_pixels(gradient, weight, ctx.stride, ctx.margins, ctx.size)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(gradient, source, weight, ctx.stride, ctx.padding)
        return of_pixels, of_weight, None, None


def _of_pixels(
    gradient: Tensor,
    weight: Tensor,
    stride: int,
    margins: tuple[int, int, int, int],
    size: torch.Size,
) -> Tensor:
    """The gradient's convolution with the weights turned round, zeros between its strides."""
    side = weight.shape[-1]
    turned = weight.flip(2, 3)
    if stride == 1:
        padding = side - 1 - margins[0]
        return functional.conv2d(gradient, turned, None, 1, padding, 1, size[1])
    height, width = size[-2] + side - 1, size[-1] + side - 1
    spread = _empty(gradient, height, width).zero_()
    left, top = side - 1 - margins[0], side - 1 - margins[2]
    rows = slice(top, top + (gradient.shape[2] - 1) * stride + 1, stride)
    columns = slice(left, left + (gradient.shape[3] - 1) * stride + 1, stride)
    spread[:, :, rows, columns] = gradient
    return functional.conv2d(spread, turned, None, 1, 0, 1, size[1])


def _of_weight(
    gradient: Tensor, source: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """That of 5x5 weights in four overlapping parts of 3x3, each of a shifted input."""
    if weight.shape[-1] == 3:
        return _of_small_weight(gradient, source, weight, stride, padding)
    found = torch.empty_like(weight)
    corner = weight[:, :, :3, :3].contiguous()
    if padding:
        source = _padded(source, (padding,) * 4)
    height, width = source.shape[-2:]
    for top in (0, 2):
        for left in (0, 2):
            shifted = source[:, :, top : height - 2 + top, left : width - 2 + left]
            shifted = shifted.contiguous(memory_format=torch.channels_last)
            found[:, :, top : top + 3, left : left + 3] = _of_small_weight(
                gradient, shifted, corner, stride, 0
            )
    return found


def _of_small_weight(
    gradient: Tensor, source: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    steps, around = [stride, stride], [padding, padding]
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, source, weight, None, steps, around, [1, 1], False, [0, 0],
        source.shape[1], [False, True, False],
    )[1]  # fmt: skip
    return found


def _padded(pixels: Tensor, margins: tuple[int, ...]) -> Tensor:
    """With zeros around; torch's own fills the whole with zeros first."""
    left, right, above, below = margins
    height, width = pixels.shape[-2:]
    found = _empty(pixels, height + above + below, width + left + right)
    found[:, :, :above] = 0
    found[:, :, above + height :] = 0
    found[:, :, :, :left] = 0
    found[:, :, :, left + width :] = 0
    found[:, :, above : above + height, left : left + width] = pixels
    return found


def _empty(like: Tensor, height: int, width: int) -> Tensor:
    return torch.empty(
        (*like.shape[:2], height, width),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )

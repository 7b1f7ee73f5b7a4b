"""The fast gradients of depthwise convolutions: the same numbers as torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from carspotter.train.depthwise import speed_up_depthwise

CHANNELS = 8


def depthwise(kind: type[nn.Conv2d], side: int, stride: int) -> nn.Conv2d:
    torch.manual_seed(side)
    return kind(CHANNELS, CHANNELS, side, stride, side // 2, groups=CHANNELS, bias=False)


def is_sped_up(module: nn.Module) -> bool:
    return "forward" in vars(module)


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(12, 12), (13, 14), (7, 10)])
def test_same_numbers(kind: type[nn.Conv2d], side: int, stride: int, size: tuple[int, int]) -> None:
    plain = depthwise(kind, side, stride)
    fast = copy.deepcopy(plain)
    speed_up_depthwise(fast)
    assert is_sped_up(fast)

    pixels = torch.randn(3, CHANNELS, *size)
    one, other = (pixels.clone().requires_grad_() for _ in range(2))
    found, expected = fast(one), plain(other)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(expected)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(one.grad, other.grad)
    assert fast.weight.grad is not None
    # A sum of hundreds of products, in another order.
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)


def test_in_the_type_of_autocast() -> None:
    module = depthwise(nn.Conv2d, 5, 2)
    speed_up_depthwise(module)
    pixels = torch.randn(2, CHANNELS, 11, 11, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(pixels)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    exact = depthwise(nn.Conv2d, 5, 2)
    exact(pixels.detach()).sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.dtype == torch.float32
    torch.testing.assert_close(module.weight.grad, exact.weight.grad, rtol=0.03, atol=0.3)


def test_a_copy_has_weights_of_its_own() -> None:
    module = depthwise(nn.Conv2d, 3, 1)
    speed_up_depthwise(module)
    copied = copy.deepcopy(module)
    with torch.no_grad():
        copied.weight.zero_()
    pixels = torch.ones(1, CHANNELS, 6, 6)
    assert not copied(pixels).any()
    assert module(pixels).any()


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        nn.Conv2d(CHANNELS, CHANNELS, 7, padding=3, groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=0, groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=2, dilation=2, groups=CHANNELS, bias=False),
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1, groups=CHANNELS, bias=False),
        depthwise(nn.Conv2d, 3, 1).requires_grad_(False),
    ],
)
def test_others_stay_as_they_are(module: nn.Conv2d) -> None:
    speed_up_depthwise(module)
    assert not is_sped_up(module)

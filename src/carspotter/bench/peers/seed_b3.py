"""The student project's network, EfficientNet-B3 at 300 px, in eager PyTorch."""

from __future__ import annotations

from typing import Any

import timm_eager


def load(task: dict[str, Any]) -> tuple[Any, Any]:
    """As `timm_eager`, with the larger network."""
    loaded: tuple[Any, Any] = timm_eager.load(task, network="efficientnet_b3", side=300)
    return loaded

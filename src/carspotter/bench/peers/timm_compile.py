"""timm with torch.compile; a cold start compiles, where nothing lies in torch's cache."""

from __future__ import annotations

from typing import Any

import timm_eager


def load(task: dict[str, Any]) -> tuple[Any, Any]:
    """As `timm_eager`, compiled."""
    loaded: tuple[Any, Any] = timm_eager.load(task, compiled=True)
    return loaded

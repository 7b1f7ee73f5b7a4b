"""Ultralytics' classifier of nearest cost, yolo11s-cls; in bulk with stream=True over a list.

https://docs.ultralytics.com/modes/predict
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from ultralytics import YOLO

_SIDE = 256
_BATCH = 8


def load(task: dict[str, Any]) -> tuple[Any, Any]:
    """Built from its configuration: random weights take as long as trained ones."""
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    model = YOLO("yolo11s-cls.yaml", task="classify", verbose=False)

    def one(photo: str) -> Any:
        return model(photo, imgsz=_SIDE, device="cpu", verbose=False)[0].probs.top5

    def many(photos: Sequence[str]) -> Iterator[Any]:
        found: Iterator[Any] = model(
            list(photos), imgsz=_SIDE, device="cpu", verbose=False, stream=True, batch=_BATCH
        )
        return found

    return one, many

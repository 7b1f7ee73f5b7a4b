"""timm, as its quickstart does it; in bulk by a DataLoader, as its inference.py does it.

https://huggingface.co/docs/timm/quickstart
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

NETWORK, SIDE, CLASSES = "tf_efficientnet_lite2", 256, 196
"""The embedded model's; random weights take as long as trained ones."""

_BATCH = 32


class _Photos(Dataset[torch.Tensor]):
    def __init__(self, photos: Sequence[str], transform: Any) -> None:
        self.photos, self.transform = photos, transform

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, place: int) -> torch.Tensor:
        made: torch.Tensor = self.transform(Image.open(self.photos[place]).convert("RGB"))
        return made


def load(
    task: dict[str, Any], *, compiled: bool = False, network: str = NETWORK, side: int = SIDE
) -> tuple[Any, Any]:
    """A network of timm's."""
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    model = timm.create_model(network, pretrained=False, num_classes=CLASSES).eval()
    config = timm.data.resolve_model_data_config(model)
    config["input_size"] = (3, side, side)
    transform = timm.data.create_transform(**config, is_training=False)
    forward = torch.compile(model) if compiled else model

    def top(batch: torch.Tensor) -> list[list[int]]:
        with torch.inference_mode():
            shares = forward(batch).softmax(dim=1)
        best: list[list[int]] = torch.topk(shares, k=5).indices.tolist()
        return best

    def one(photo: str) -> list[int]:
        return top(transform(Image.open(photo).convert("RGB")).unsqueeze(0))[0]

    def many(photos: Sequence[str]) -> Iterator[list[int]]:
        workers = task["threads"] or torch.get_num_threads()
        photos_in_batches: DataLoader[torch.Tensor] = DataLoader(
            _Photos(photos, transform), batch_size=_BATCH, num_workers=workers
        )
        for batch in photos_in_batches:
            yield from top(batch)

    return one, many

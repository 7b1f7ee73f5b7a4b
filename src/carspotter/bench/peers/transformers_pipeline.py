"""Transformers' image-classification pipeline, around timm's network of the same architecture.

In bulk it takes an iterator and a batch size, as its documentation has it.
https://huggingface.co/docs/transformers/pipeline_tutorial
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
import transformers
from timm_eager import CLASSES, NETWORK, SIDE

_BATCH = 8


def load(task: dict[str, Any]) -> tuple[Any, Any]:
    """Built from its configuration: random weights take as long as trained ones."""
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    config = transformers.TimmWrapperConfig(architecture=NETWORK, num_labels=CLASSES)
    prepared = timm.get_pretrained_cfg(NETWORK).to_dict()
    prepared["input_size"] = (3, SIDE, SIDE)
    pipe = transformers.pipeline(
        "image-classification",
        model=transformers.TimmWrapperForImageClassification(config).eval(),
        image_processor=transformers.TimmWrapperImageProcessor(prepared, architecture=NETWORK),
        device="cpu",
    )

    def many(photos: Sequence[str]) -> Iterator[Any]:
        answers: Iterator[Any] = pipe((photo for photo in photos), batch_size=_BATCH)
        return answers

    return pipe, many

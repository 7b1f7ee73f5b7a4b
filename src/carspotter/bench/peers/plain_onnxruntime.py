"""The script that one writes for an ONNX file: carspotter's own network, without carspotter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image


def load(task: dict[str, Any]) -> tuple[Any, Any]:
    """Answer from the file that carspotter answers from, photo by photo."""
    options = ort.SessionOptions()
    if task["threads"]:
        options.intra_op_num_threads = task["threads"]
    session = ort.InferenceSession(task["onnx"], options, providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[1]

    def one(photo: str) -> list[int]:
        image = Image.open(photo).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        logits = session.run(["logits"], {"pixels": np.asarray(image)[None]})[0][0]
        best: list[int] = np.argsort(-logits)[:5].tolist()
        return best

    def many(photos: Sequence[str]) -> Iterator[list[int]]:
        return map(one, photos)

    return one, many

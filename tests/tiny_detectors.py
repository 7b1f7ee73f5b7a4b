"""Detector files small enough to be made in a test: their boxes stand, a brighter photo is surer.

A photo of mean brightness 1 (white) gets the scores as they are, a black one gets none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from carspotter.card import CARD_KEY, LocaliserCard, sealed

SIZE = (40, 32)
"""Width and height of the localiser's input."""

YOLO_SIDE = 64


def _written(
    file: Path,
    pixels: onnx.ValueInfoProto,
    outputs: dict[str, tuple[np.ndarray, np.ndarray]],
    metadata: dict[str, str],
    top: float,
    *,
    seal: bool = False,
) -> Path:
    """A model whose outputs are a constant plus another times the mean brightness."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "top"], ["brightness"]),
    ]
    constants = [numpy_helper.from_array(np.array(top, np.float32), "top")]
    shapes = []
    for name, (still, moving) in outputs.items():
        nodes += [
            helper.make_node("Mul", [f"{name} moving", "brightness"], [f"{name} moved"]),
            helper.make_node("Add", [f"{name} still", f"{name} moved"], [name]),
        ]
        for kind, values in (("still", still), ("moving", moving)):
            constants.append(numpy_helper.from_array(values.astype(np.float32), f"{name} {kind}"))
        shapes.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, still.shape))
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [pixels], shapes, constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    helper.set_model_props(model, metadata)
    data = model.SerializeToString()
    file.write_bytes(sealed(data) if seal else data)
    return file


def localiser(
    file: Path,
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    threshold: float = 0.3,
    card_text: str | None = None,
) -> Path:
    """carspotter's own form; boxes in pixels of an input of `SIZE`."""
    where, sure = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    card = LocaliserCard("tiny-localiser", "1", SIZE, threshold)
    shape = [SIZE[1], SIZE[0], 3]
    return _written(
        file,
        helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape),
        {"boxes": (where, 0 * where), "scores": (0 * sure, sure)},
        {CARD_KEY: card_text or card.to_json()},
        255.0,
        seal=True,
    )


def yolo(file: Path, output: np.ndarray, scores: np.ndarray, names: str | None = None) -> Path:
    """YOLO's form: `output` without the scores, and the scores in its shape."""
    shape = [1, 3, YOLO_SIDE, YOLO_SIDE]
    return _written(
        file,
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape),
        {"output0": (output[None], scores[None])},
        {} if names is None else {"names": names},
        1.0,
    )

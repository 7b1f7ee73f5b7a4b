"""A model file small enough to be made in a test: what it answers follows from the mean colour.

Red is one car, green is one model of two years, blue one make, black could be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from carspotter.card import CARD_KEY, Card, sealed
from carspotter.likeness import SPACE_KEY, Space
from carspotter.names import CarName, split_name

SIZE = 32

LABELS = (
    "Audi S4 Sedan 2012",
    "Audi S4 Sedan 2007",
    "Audi TT Hatchback 2011",
    "smart fortwo Convertible 2012",
)

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)

ANSWERS = {
    RED: ("exact", "Audi S4 Sedan 2012"),
    GREEN: ("model", "Audi S4"),
    BLUE: ("make", "Audi"),
    BLACK: ("unknown", "unknown"),
}

WEIGHTS = np.array([[20, 0, 0, 0], [20, 20, 0, 0], [20, 20, 20, 0]], np.float32)
"""Of red, green and blue (rows) for the four classes; equal ones cannot be told apart."""


def card(classes: Sequence[CarName] | None = None) -> Card:
    return Card(
        name="tiny",
        version="1",
        classes=tuple(classes or map(split_name, LABELS)),
        input_size=SIZE,
        resize="squash",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        temperature=1.0,
        thresholds={"exact": 0.8, "model": 0.8, "make": 0.8},
    )


def graph(head: np.ndarray | None = WEIGHTS.T) -> onnx.ModelProto:
    """pixels -> logits, embedding, feature_map, and the head as given; without a card."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "full"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["embedding"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
        helper.make_node("Transpose", ["scaled"], ["feature_map"], perm=[0, 3, 1, 2]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    shapes = {"logits": [len(LABELS)], "embedding": [3], "feature_map": [3, SIZE, SIZE]}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in shapes.items()
    ]
    constants = [
        numpy_helper.from_array(np.array(255, np.float32), "full"),
        numpy_helper.from_array(WEIGHTS, "weights"),
    ]
    if head is not None:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(head), "head"))
        kind = helper.np_dtype_to_tensor_dtype(head.dtype)
        outputs.append(helper.make_tensor_value_info("head", kind, head.shape))
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [pixels], outputs, constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model


SPACE = Space(
    mean=np.full(3, 0.19, np.float32),
    directions=np.zeros((0, 3), np.float32),
    damping=np.zeros(0, np.float32),
)
"""In which dark colours lie far apart."""


def write(
    file: Path,
    card_text: str | None = None,
    space_text: str | None = None,
    *,
    head: np.ndarray | None = WEIGHTS.T,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the model file, with its own card or any other text in the card's place."""
    model = graph(head)
    more = {**(metadata or {}), **({} if space_text is None else {SPACE_KEY: space_text})}
    helper.set_model_props(model, {CARD_KEY: card_text or card().to_json(), **more})
    file.write_bytes(sealed(model.SerializeToString()))
    return file


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (48, 40)) -> Image.Image:
    return Image.new("RGB", size, colour)

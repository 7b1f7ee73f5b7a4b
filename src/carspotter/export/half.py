"""Weights stored in 16 bits: half the file; what is computed stays in 32 bits."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST_SIZE = 16384
"""Tensors of fewer numbers stay as they are: they are little of the file, and those of the first
layers pass their rounding on to all that follows."""


def weights_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose large weights are stored as float16 and cast back when it is loaded.

    onnxruntime folds the casts away once, when it opens the file: neither speed nor memory of a
    recognition changes.

    Args:
        model: with float32 weights below 65,504.

    Raises:
        ValueError: a weight does not fit into float16.
    """
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    graph = smaller.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < LEAST_SIZE:
            continue
        with np.errstate(over="ignore"):
            rounded = numpy_helper.to_array(weight).astype(np.float16)
        if not np.isfinite(rounded).all():
            raise ValueError(f"{weight.name} has values that float16 cannot hold")
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(rounded, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return smaller

"""How familiar a picture is, in the model file: what the model has not seen, it does not insist on.

A network's logits are hardly lower for a dog than for a car, least of all after label smoothing.
Its embedding tells them apart: that of a known car lies near the mean of its class, in angle. The
file gives the cosine to the nearest class mean as its output `familiarity`, and scales the logits
down where it is lower than nearly all cars'. After "Distance-based image classification" (nearest
class mean, Mensink et al. 2013) and the scaled logits of ODIN (arXiv:1706.02690).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from carspotter.likeness import class_means, unit
from carspotter.model_file import FAMILIARITY_OUTPUT

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 0.02
"""What the logits are multiplied by at the least: above zero, so that their order is kept."""

# Chosen on validation pictures and pictures without a car; see docs/experiments.md.
_LESS_FAMILIAR = 0.05
_RANGES = 2.0

# Where cars are all alike, as in a tiny data set: a steep gate would make much of a last digit.
_LEAST_WIDTH = 0.1

_UNGATED = "logits.ungated"


@dataclass(frozen=True, eq=False)
class Gate:
    """From an embedding to the factor of its logits.

    Attributes:
        means: (classes, D) unit vectors, the mean direction of each class's embeddings.
        low: the familiarity below which the factor is `LEAST`.
        high: the familiarity from which on it is 1.
    """

    means: NDArray[np.float32]
    low: float
    high: float

    def familiarity(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) cosine of embeddings (N, D) to the nearest class mean."""
        nearest: NDArray[np.float32] = (unit(embeddings) @ self.means.T).max(axis=1)
        return nearest

    def factors(self, familiarity: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) what the logits are multiplied by."""
        position = (familiarity - self.low) / (self.high - self.low)
        factors: NDArray[np.float32] = np.clip(position, LEAST, 1).astype(np.float32)
        return factors


def fit_gate(
    embeddings: NDArray[np.float32],
    targets: NDArray[np.int64],
    held_out: NDArray[np.float32],
) -> Gate:
    """A gate that lets cars pass.

    Args:
        embeddings: (N, D) of training pictures of every class.
        targets: (N,) their classes, from 0.
        held_out: (M, D) of cars that were not trained on, on which low and high are chosen: one
            car in twenty is less familiar than `high`, and `low` lies two interquartile ranges
            below it.
    """
    ungated = Gate(class_means(unit(embeddings), targets, int(targets.max()) + 1), 0.0, 1.0)
    high, lower, upper = np.quantile(ungated.familiarity(held_out), [_LESS_FAMILIAR, 0.25, 0.75])
    width = max(_RANGES * (upper - lower), _LEAST_WIDTH)
    return Gate(ungated.means, float(high - width), float(high))


def with_gate(model: onnx.ModelProto, gate: Gate) -> onnx.ModelProto:
    """A classifier's graph, with the gate between its logits and their output.

    Args:
        model: with the outputs `logits` and `embedding`, (N, D).
        gate: of its embeddings.
    """
    gated = onnx.ModelProto()
    gated.CopyFrom(model)
    graph = gated.graph
    _rename(graph, "logits", _UNGATED)
    constants = {
        "gate.means": gate.means.T,
        "gate.tiny": np.array(1e-12, np.float32),
        "gate.low": np.array(gate.low, np.float32),
        "gate.range": np.array(gate.high - gate.low, np.float32),
        "gate.least": np.array(LEAST, np.float32),
        "gate.most": np.array(1, np.float32),
        "gate.axis": np.array([1], np.int64),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in constants.items()
    )
    graph.node.extend(
        [
            helper.make_node("ReduceL2", ["embedding", "gate.axis"], ["gate.length"], keepdims=1),
            helper.make_node("Max", ["gate.length", "gate.tiny"], ["gate.divisor"]),
            helper.make_node("Div", ["embedding", "gate.divisor"], ["gate.unit"]),
            helper.make_node("MatMul", ["gate.unit", "gate.means"], ["gate.cosines"]),
            helper.make_node("ReduceMax", ["gate.cosines", "gate.axis"], ["gate.most_alike"]),
            helper.make_node("Squeeze", ["gate.most_alike", "gate.axis"], [FAMILIARITY_OUTPUT]),
            helper.make_node("Sub", ["gate.most_alike", "gate.low"], ["gate.above"]),
            helper.make_node("Div", ["gate.above", "gate.range"], ["gate.position"]),
            helper.make_node("Clip", ["gate.position", "gate.least", "gate.most"], ["gate.factor"]),
            helper.make_node("Mul", [_UNGATED, "gate.factor"], ["logits"]),
        ]
    )
    batch = next(out for out in graph.output if out.name == "logits").type.tensor_type.shape.dim[0]
    found = helper.make_tensor_value_info(FAMILIARITY_OUTPUT, TensorProto.FLOAT, [batch.dim_param])
    graph.output.append(found)
    return gated


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call a value inside the graph otherwise; the graph's output keeps its name."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]

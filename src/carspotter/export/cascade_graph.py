"""The graph of a cascade: the first network looks at each picture, the others at what it doubts."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix

from carspotter.card import HEAD_KEY
from carspotter.model_file import FAMILIARITY_OUTPUT

SURE = 0.9
"""From this calibrated probability of its first name on, the first network answers alone."""


def cascade_of(models: Sequence[onnx.ModelProto], temperatures: Sequence[float]) -> onnx.ModelProto:
    """One graph of several, which see the same pixels.

    `logits` are those of the first network, divided by its temperature, where its largest
    probability is `SURE` or more; else the mean of all networks' logits, each divided by its
    temperature. Each picture of a batch is judged by itself. `embedding` and `familiarity` are the
    first network's. `feature_map` has all networks' side by side, in the shares in which they made
    the logits, and `head` gives those of it.

    Args:
        models: as `carspotter export` writes them, of the same classes and input size.
        temperatures: of each.
    """
    first, *others = [_inner(model, number) for number, model in enumerate(models)]
    whole = _Builder("cascade")
    whole.graph.input.append(models[0].graph.input[0])
    whole.graph.node.extend(first.node)
    for part in (first, *others):  # outside of the branch too: the heads are given out
        whole.graph.initializer.extend(part.initializer)
    shares = [whole.constant(np.float32(1 / t)) for t in temperatures]
    own = whole.node("Mul", "0.logits", shares[0])
    axis = whole.constant([1])
    probability = whole.node("ReduceMax", whole.node("Softmax", own, axis=-1), axis, keepdims=0)
    unsure = whole.node("Less", probability, whole.constant(np.float32(SURE)))
    shapes = [_shapes(model) for model in models]
    head = all("head" in there for there in shapes)
    outside = [_makers(part, f"{n}.head") if head else [] for n, part in enumerate(others, 1)]
    for nodes in outside:
        whole.graph.node.extend(nodes)
    sizes = [[int(size) for size in there["feature_map"][1:]] for there in shapes[1:]]
    then = _asking_all(others, outside, own, unsure, shares[1:], sizes)
    alone = _first_alone(own, unsure, sizes)
    any_unsure = whole.node("Cast", unsure, to=TensorProto.INT32)
    any_unsure = whole.node("ReduceMax", any_unsure, whole.constant([0]), keepdims=0)
    any_unsure = whole.node("Cast", any_unsure, to=TensorProto.BOOL)
    branches = {"then_branch": then.graph, "else_branch": alone.graph}
    whole.graph.node.append(
        helper.make_node("If", [any_unsure], ["logits", "feature_map"], **branches)
    )
    whole.give("embedding", "0.embedding")
    if head:
        heads = [whole.node("Mul", f"{n}.head", share) for n, share in enumerate(shares)]
        whole.give("head", whole.node("Concat", *heads, axis=1))
    if FAMILIARITY_OUTPUT in shapes[0]:
        whole.give(FAMILIARITY_OUTPUT, f"0.{FAMILIARITY_OUTPUT}")
    width = sum(int(there["feature_map"][1]) for there in shapes)
    wider = {"feature_map": {1: width}, "head": {1: width}}
    for name in (n for n in shapes[0] if n != "head" or head):
        shape = [wider.get(name, {}).get(at, size) for at, size in enumerate(shapes[0][name])]
        whole.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return _model(whole.graph, models)


def merged_by_onnxruntime(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model in 8 bits with onnxruntime's own operators in the place of what it merges anyway.

    Else it looks for quantised convolutions among many small nodes each time that the file is
    opened, twice as long for two networks. The operators are the same on all processors.

    Args:
        model: with quantised convolutions in QDQ form.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    kept_as_they_are = [
        "ConstantFolding",  # weights in 16 bits would become larger
        "NchwcTransformer",  # convolutions in 32 bits would become those of this processor
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "merged.onnx"
        options.optimized_model_filepath = str(file)
        ort.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=kept_as_they_are,
        )
        merged = onnx.load(file)
    return _model(merged.graph, [merged])


class _Builder:
    """A graph under construction."""

    def __init__(self, name: str) -> None:
        self.graph = onnx.GraphProto(name=name)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; the name of its output."""
        name = f"{self.graph.name}.{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        """Append a constant; its name."""
        name = f"{self.graph.name}.constant.{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def give(self, name: str, what: str) -> None:
        """Give something out, or let it be called so."""
        self.graph.node.append(helper.make_node("Identity", [what], [name]))

    def empty(self, each: str, size: Sequence[int]) -> str:
        """Zeros of float32, of a size for each entry of something."""
        shape = self.node("Concat", self.node("Shape", each), self.constant(size), axis=0)
        zero = numpy_helper.from_array(np.zeros(1, np.float32))
        return self.node("ConstantOfShape", shape, value=zero)

    def ends_with(self, logits: str, feature_map: str) -> None:
        """Make these the outputs of a branch."""
        for name in (logits, feature_map):
            value = onnx.ValueInfoProto(name=name)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            self.graph.output.append(value)


def _asking_all(
    others: Sequence[onnx.GraphProto],
    outside: Sequence[Collection[onnx.NodeProto]],
    own: str,
    unsure: str,
    shares: Sequence[str],
    sizes: Sequence[Sequence[int]],
) -> _Builder:
    """The branch in which the others look at the pictures of which the first is unsure.

    Args:
        others: their graphs.
        outside: nodes of each that stand before the branch.
        own: the first network's logits, divided by its temperature.
        unsure: (N,) of which pictures.
        shares: one over each other's temperature.
        sizes: of each other's feature map: channels, height, width.
    """
    then = _Builder("asking.all")
    rows = then.node("Squeeze", then.node("NonZero", unsure), then.constant([0]))
    doubted = then.node("Gather", "pixels", rows, axis=0)
    places = then.node("Unsqueeze", rows, then.constant([1]))
    part = then.constant(np.float32(1 / (len(others) + 1)))
    for graph, before in zip(others, outside, strict=True):
        for node in (n for n in graph.node if not any(n is one for one in before)):
            node.input[:] = [doubted if name == "pixels" else name for name in node.input]
            then.graph.node.append(node)
    total = then.node("Gather", own, rows, axis=0)
    for number, share in enumerate(shares, 1):
        total = then.node("Add", total, then.node("Mul", f"{number}.logits", share))
    logits = then.node("ScatterND", own, places, then.node("Mul", total, part))
    weight = then.node("Where", unsure, part, then.constant(np.float32(1)))
    weight = then.node("Unsqueeze", weight, then.constant([1, 2, 3]))
    maps = [then.node("Mul", "0.feature_map", weight)]
    for number, size in enumerate(sizes, 1):
        seen = then.node("Mul", f"{number}.feature_map", part)
        maps.append(then.node("ScatterND", then.empty(unsure, size), places, seen))
    then.ends_with(logits, then.node("Concat", *maps, axis=1))
    return then


def _first_alone(own: str, unsure: str, sizes: Sequence[Sequence[int]]) -> _Builder:
    """The branch in which the first network is sure of all pictures; see `_asking_all`."""
    alone = _Builder("first.alone")
    maps = ["0.feature_map", *(alone.empty(unsure, size) for size in sizes)]
    alone.ends_with(alone.node("Identity", own), alone.node("Concat", *maps, axis=1))
    return alone


def _inner(model: onnx.ModelProto, number: int) -> onnx.GraphProto:
    """A graph whose names are no other's, but for the pixels."""
    graph = add_prefix(model, f"{number}.").graph
    for node in graph.node:
        node.input[:] = ["pixels" if name == f"{number}.pixels" else name for name in node.input]
    return graph


def _makers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes of which a tensor is made, in order."""
    needed, found = {name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            found.append(node)
    return found[::-1]


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    }


def _model(graph: onnx.GraphProto, models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """A graph as a model, with the operators, and the reason for no heat map, of what it is of."""
    opsets = {entry.domain: entry for model in models for entry in model.opset_import}
    used = _domains(graph)
    found = helper.make_model(
        graph,
        opset_imports=[entry for domain, entry in opsets.items() if domain in used],
        ir_version=max(model.ir_version for model in models),
    )
    texts = {entry.key: entry.value for model in models for entry in model.metadata_props}
    if HEAD_KEY in texts:
        helper.set_model_props(found, {HEAD_KEY: texts[HEAD_KEY]})
    return found


def _domains(graph: onnx.GraphProto) -> set[str]:
    """Of all its operators, those in branches too."""
    found = {node.domain for node in graph.node}
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.HasField("g"):
            found |= _domains(attribute.g)
    return found

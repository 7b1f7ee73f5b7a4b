"""Convolutions in 8 bits: static quantisation by onnxruntime, calibrated on real inputs."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorsData,
    create_calibrator,
    quant_pre_process,
)

from carspotter.export.half import weights_in_half
from carspotter.session import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

_KINDS = ["Conv", "Clip", "Relu", "Add"]
"""What is computed in 8 bits. The mean over places and the head stay in 32: they cost next to
nothing, and the heat map is exact because the logits are made of them."""

_BATCH = 8


class _Pixels(NamedTuple):
    """Where the pixels enter the first convolution.

    Attributes:
        name: of the tensor of pixels less `zero`.
        zero: the level that counts as 0, which is the zero point in 8 bits.
    """

    name: str
    zero: int


@dataclass(frozen=True)
class Calibrated:
    """A model that is ready to be quantised; made by `calibrated`.

    Attributes:
        model: with float32 weights.
        ranges: what each tensor holds, on the calibration inputs.
        pixels: where the pixels enter; None where the graph does not begin as carspotter's do.
    """

    model: onnx.ModelProto
    ranges: TensorsData
    pixels: _Pixels | None

    def convolutions(self) -> list[str]:
        """Names of the nodes that may be left in 32 bits."""
        return [node.name for node in self.model.graph.node if node.op_type == "Conv"]


def calibrated(model: onnx.ModelProto, inputs: Pixels) -> Calibrated:
    """Prepare a model for 8 bits.

    Casts of weights are folded away. Mean and standard deviation go into the weights of the first
    convolution, so that it takes the pixels as they are: exact but for the border, where what is
    added outside has a level that is rounded.

    Args:
        model: as `to_onnx` makes them, its weights stored in 32 or 16 bits.
        inputs: (N, S, S, 3) uint8 of pictures that the model was trained on.
    """
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        folder = Path(scratch)
        onnx.save(model, folder / "model.onnx")
        quant_pre_process(folder / "model.onnx", folder / "ready.onnx", skip_symbolic_shape=True)
        ready = onnx.load(folder / "ready.onnx")
        pixels = _take_pixels_as_they_are(ready.graph)
        _hold_once(ready.graph)
        _drop_unused(ready)
        onnx.save(ready, folder / "ready.onnx")
        calibrator = create_calibrator(
            folder / "ready.onnx",
            _KINDS,
            augmented_model_path=str(folder / "all-outputs.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Inputs(inputs))
        ranges = calibrator.compute_data()
    return Calibrated(ready, ranges, pixels)


def quantised(
    source: Calibrated, *, leave: Collection[str] = (), only: Collection[str] = ()
) -> onnx.ModelProto:
    """A model that computes in 8 bits: weights per channel, activations per tensor.

    Weights use seven of their eight bits: pairs of products then fit into the 16 bits in which
    processors without VNNI add them up, so that all give the same answer, and none is slow.

    Args:
        source: what it is made of.
        leave: nodes that stay in 32 bits.
        only: nodes besides which all stay in 32 bits; empty: none.
    """
    overrides = {}
    if source.pixels is not None:
        overrides[source.pixels.name] = [
            {
                "quant_type": QuantType.QUInt8,
                "scale": np.array(1, np.float32),
                "zero_point": np.array(source.pixels.zero, np.uint8),
            }
        ]
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    quantiser = QDQQuantizer(
        model,
        True,  # per channel
        True,  # seven bits of the weights: processors without VNNI add up products in 16 bits
        QuantType.QInt8,
        QuantType.QUInt8,
        source.ranges,
        list(only),
        list(leave),
        _KINDS,
        {"TensorQuantOverrides": overrides},
    )
    with _quiet():
        quantiser.quantize_model()
    quantiser.model.topological_sort()
    found: onnx.ModelProto = quantiser.model.model
    if source.pixels is not None:
        _begin_with_bytes(found.graph, source.pixels.name)
    _drop_unused(found)
    return weights_in_half(found)  # what is left of them: the head's


def most_sensitive(source: Calibrated, inputs: Pixels) -> list[str]:
    """The convolutions, those first that alone in 8 bits change the logits most.

    Args:
        source: the model.
        inputs: (N, S, S, 3) uint8; a few dozen tell the layers apart.
    """
    exact = _logits(source.model, inputs)
    errors = {
        name: float(np.square(_logits(quantised(source, only=[name]), inputs) - exact).mean())
        for name in source.convolutions()
    }
    return sorted(errors, key=lambda name: -errors[name])


class _Inputs(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, inputs: Pixels) -> None:
        self._batches = (inputs[at : at + _BATCH] for at in range(0, len(inputs), _BATCH))

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def _logits(model: onnx.ModelProto, inputs: Pixels) -> NDArray[np.float32]:
    session = open_session(model.SerializeToString(), Path("model in 8 bits"), 1)
    return np.concatenate(
        [
            session.run(["logits"], {"pixels": inputs[at : at + _BATCH]})[0]
            for at in range(0, len(inputs), _BATCH)
        ]
    )


def _take_pixels_as_they_are(graph: onnx.GraphProto) -> _Pixels | None:
    """Have the first convolution take pixels less a whole number: (p - mean) / std goes into it."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for conv in graph.node:
        divided = made_by.get(conv.input[0]) if conv.op_type == "Conv" else None
        centred = made_by.get(divided.input[0]) if divided is not None else None
        if divided is None or centred is None:
            continue
        if (divided.op_type, centred.op_type) == ("Div", "Sub") and len(conv.input) == 3:
            break
    else:
        return None
    names = (centred.input[1], divided.input[1], *conv.input[1:])
    if not all(name in constants for name in names) or not _bytes_before(graph, centred):
        return None
    mean, std, weight, bias = (
        numpy_helper.to_array(constants[name]).astype(np.float64) for name in names
    )
    mean, std = (np.broadcast_to(v.reshape(-1), weight.shape[1]) for v in (mean, std))
    zero = int(np.rint(mean.mean()))
    weight = weight / std[:, None, None]
    bias = bias + (weight * (zero - mean)[:, None, None]).sum(axis=(1, 2, 3))
    folded = {"pixels.zero": np.array(zero), "pixels.weight": weight, "pixels.bias": bias}
    for name, values in folded.items():
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    centred.input[1] = "pixels.zero"
    conv.input[:] = [centred.output[0], "pixels.weight", "pixels.bias"]
    graph.node.remove(divided)
    return _Pixels(centred.output[0], zero)


def _bytes_before(graph: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes between the input and this one, if they only move and cast bytes; else none."""
    made_by = {name: before for before in graph.node for name in before.output}
    chain: list[onnx.NodeProto] = []
    name = node.input[0]
    while name != "pixels":
        before = made_by.get(name)
        if before is None or before.op_type not in ("Cast", "Transpose"):
            return []
        chain.insert(0, before)
        name = before.input[0]
    return chain


def _begin_with_bytes(graph: onnx.GraphProto, name: str) -> None:
    """Take the bytes themselves for what they would be quantised to: they are that already."""
    made_by = {output: node for node in graph.node for output in node.output}
    readers = [node for node in graph.node if name in node.input]
    if [node.op_type for node in readers] != ["QuantizeLinear"]:
        return  # the first convolution stays in 32 bits
    centred, (to_bytes,) = made_by[name], readers
    chain = _bytes_before(graph, centred)
    last = "pixels"
    for node in chain:
        if node.op_type == "Transpose":
            node.input[0], last = last, node.output[0]
    for node in graph.node:
        node.input[:] = [last if there == to_bytes.output[0] else there for there in node.input]
    for node in (*(node for node in chain if node.op_type == "Cast"), centred, to_bytes):
        graph.node.remove(node)


def _hold_once(graph: onnx.GraphProto) -> None:
    """Give outputs that are constants from the constant that they equal, instead of a copy."""
    outputs = {output.name for output in graph.output}
    copies = [tensor for tensor in graph.initializer if tensor.name in outputs]
    for copy in copies:
        values = numpy_helper.to_array(copy)
        same = (
            tensor.name
            for tensor in graph.initializer
            if tensor.name not in outputs
            and tensor.dims == copy.dims
            and np.array_equal(numpy_helper.to_array(tensor), values)
        )
        if (name := next(same, None)) is not None:
            graph.node.append(onnx.helper.make_node("Identity", [name], [copy.name]))
            graph.initializer.remove(copy)


def _drop_unused(model: onnx.ModelProto) -> None:
    """Leave out constants, shapes and operator sets that nothing uses any more."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    for kept in (graph.initializer, graph.value_info):
        there = [one for one in kept if one.name in used]
        del kept[:]
        kept.extend(there)
    domains = {"", *(node.domain for node in graph.node)}
    sets = [one for one in model.opset_import if one.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(sets)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Onnxruntime's tools talk by the root logger; nothing of it is for users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

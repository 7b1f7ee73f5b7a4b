"""Several model files as one, which gives the mean of their answers (arXiv:1612.01474).

What several networks agree on is more often right than what one says, and its probability more
often what it claims; the price is the time and the size of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.compose import add_prefix

from carspotter.card import HEAD_KEY, Card
from carspotter.errors import UsageError
from carspotter.export.fitted import calibration_of, computes_in_8_bits
from carspotter.export.onnx_file import uncounted, with_card
from carspotter.export.original import Counting, Original, measured, of_file, opened
from carspotter.files import replacing
from carspotter.loading import load
from carspotter.model_file import FAMILIARITY_OUTPUT

_JOINED = {"embedding": 1, "feature_map": 1}
"""Outputs that are put side by side, and along which axis."""


def export_ensemble(
    sources: Sequence[str],
    out: Path,
    *,
    data_root: Path | None = None,
    notes: str | None = None,
    calibrated_by: str | None = None,
    counting: Counting = uncounted,
) -> Card:
    """Write one model file that gives the mean of several.

    Each one's logits count by its own temperature. Temperature, thresholds and sets of the whole
    are fitted on the validation part, which is that of all, and the accuracy is measured as
    `export_int8` does.

    Args:
        sources: two or more model files, or shipped models' names.
        out: the file to write; it is replaced only when all went well.
        data_root: the data set that they were trained on.
        notes: Markdown for the card; None: those of the first.
        calibrated_by: as in `export_run`; in as many bits.
        counting: as in `export_run`.

    Returns:
        The card that was written; its accuracy has the `members`.

    Raises:
        UsageError: they are not of the same cars, pictures, input and bits, or must be calibrated
            by another model.
        ModelFileError: one of them cannot be used.
        DataError: the data set is not there, or another than they were trained on.
    """
    originals = [of_file(source, data_root) for source in sources]
    opened_files = [load(source, detector="none") for source in sources]
    cards = [spotter.card for spotter in opened_files]
    for source, original, card in zip(sources[1:], originals[1:], cards[1:], strict=True):
        _need_alike(sources[0], originals[0], cards[0], source, original, card)
    first, in_8_bits = originals[0], computes_in_8_bits(cards[0])
    known = None
    if calibrated_by is not None:
        known = calibration_of(calibrated_by, first.class_names, in_8_bits=in_8_bits)
    elif any(original.calibrated_by for original in originals):
        raise UsageError(
            f"{', '.join(sources)}: too few pictures were set aside to calibrate by; name a model "
            "that was made likewise, with more set aside, by --calibrated-by"
        )
    model = mean_of([o.model for o in originals], [card.temperature for card in cards])
    named = replace(
        cards[0],
        name=f"{cards[0].name}-x{len(cards)}",
        notes=cards[0].notes if notes is None else notes,
    )
    with opened(model, named) as spotter, counting("validation part") as count:
        val = first.predict(first.val, count, spotter.logits)
    card, space = measured(first, model, named, val, known, counting)
    members = [
        {
            "name": one.name,
            "sha256": spotter.info.sha256,
            "in_8_bits": computes_in_8_bits(one),
            "top1": one.accuracy.get("validation", {}).get("top1"),
        }
        for one, spotter in zip(cards, opened_files, strict=True)
    ]
    card = replace(card, accuracy={**card.accuracy, "members": members})
    with replacing(out) as part:
        part.write_bytes(with_card(model, card, space))
    return card


def mean_of(models: Sequence[onnx.ModelProto], temperatures: Sequence[float]) -> onnx.ModelProto:
    """One graph of several, which see the same pixels.

    `logits` and `familiarity` are means, each one's logits divided by its temperature; `embedding`
    and `feature_map` are put side by side, and `head` so that it gives the logits of these.

    Args:
        models: as `carspotter export` writes them, of the same classes and input size.
        temperatures: of each.
    """
    parts = [_inner(model, number) for number, model in enumerate(models)]
    graph = onnx.GraphProto(name="ensemble")
    for part in parts:
        graph.node.extend(part.node)
        graph.initializer.extend(part.initializer)
    graph.input.append(models[0].graph.input[0])
    shared = [name for name in _shapes(models[0]) if all(name in _shapes(m) for m in models)]
    weights = []
    for number, temperature in enumerate(temperatures):
        weights.append(f"weight.{number}")
        share = np.array(1 / (len(models) * temperature), np.float32)
        graph.initializer.append(numpy_helper.from_array(share, weights[-1]))
    for name in shared:
        inner = [f"{number}.{name}" for number in range(len(models))]
        graph.node.extend(_combined(name, inner, weights))
        graph.output.append(_value(name, [_shapes(model)[name] for model in models]))
    opsets = {entry.domain: entry for model in models for entry in model.opset_import}
    found = helper.make_model(
        graph, opset_imports=list(opsets.values()), ir_version=max(m.ir_version for m in models)
    )
    why = {entry.key: entry.value for m in models for entry in m.metadata_props}.get(HEAD_KEY)
    helper.set_model_props(found, {} if why is None else {HEAD_KEY: why})
    return found


def _inner(model: onnx.ModelProto, number: int) -> onnx.GraphProto:
    """A graph whose names are no other's, but for the pixels."""
    graph = add_prefix(model, f"{number}.").graph
    for node in graph.node:
        node.input[:] = ["pixels" if name == f"{number}.pixels" else name for name in node.input]
    return graph


def _combined(name: str, inner: Sequence[str], weights: Sequence[str]) -> list[onnx.NodeProto]:
    """What makes an output of the whole of those of the parts."""
    if name in _JOINED:
        return [helper.make_node("Concat", inner, [name], axis=_JOINED[name])]
    if name == FAMILIARITY_OUTPUT:
        return [helper.make_node("Mean", inner, [name])]
    scaled = [f"{one}.scaled" for one in inner]
    nodes = [
        helper.make_node("Mul", [one, weight], [to])
        for one, weight, to in zip(inner, weights, scaled, strict=True)
    ]
    if name == "head":
        return [*nodes, helper.make_node("Concat", scaled, [name], axis=1)]
    return [*nodes, helper.make_node("Sum", scaled, [name])]


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    }


def _value(name: str, shapes: Sequence[list[int | str]]) -> onnx.ValueInfoProto:
    shape: list[Any] = list(shapes[0])
    if name in ("embedding", "feature_map", "head"):
        shape[1] = sum(int(one[1]) for one in shapes)
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _need_alike(
    name: str, one: Original, card: Card, other_name: str, other: Original, other_card: Card
) -> None:
    """Raises UsageError where two models cannot be one."""
    different = {
        "knows other cars": one.class_names != other.class_names,
        "takes pictures of another size": one.size != other.size,
        "takes another part of each picture": one.crop != other.crop,
        "was trained on other pictures": card.trained_on.get("fingerprint")
        != other_card.trained_on.get("fingerprint"),
        "computes in other bits": computes_in_8_bits(card) != computes_in_8_bits(other_card),
        "was made by another version of the exporter": {
            entry.domain: entry.version for entry in one.model.opset_import
        }
        != {entry.domain: entry.version for entry in other.model.opset_import},
    }
    for what, is_so in different.items():
        if is_so:
            raise UsageError(f"{other_name}: {what} than {name}: they cannot be one model")

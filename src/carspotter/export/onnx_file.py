"""From a checkpoint to one ONNX file that carries its card."""

from __future__ import annotations

import collections
import contextlib
import functools
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from carspotter.card import CARD_KEY, HEAD_KEY, Card, sealed
from carspotter.data import Crop, DataSet, Picture, open_data_set
from carspotter.errors import DataError, ExportError
from carspotter.evaluate import Predictions, predict
from carspotter.export.fitted import calibration_of, card_of, figures
from carspotter.export.gate import Gate, fit_gate, with_gate
from carspotter.export.half import weights_in_half
from carspotter.export.head import LinearHead, linear_head
from carspotter.files import replacing
from carspotter.likeness import SPACE_KEY, Space, fit_space
from carspotter.spotter import Spotter
from carspotter.train import Checkpoint, load_checkpoint
from carspotter.train.model import CarClassifier
from carspotter.train.run import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

LEAST_AGREEMENT = 0.999
"""Share of real pictures on which file and checkpoint must name the same class."""

LARGEST_DIFFERENCE = 0.01
"""Of any logit, on real pictures, between file and checkpoint."""

LARGEST_DIFFERENCE_IN_HALF = 0.05
"""Likewise, where the weights are stored in 16 bits."""

MOST_OF_A_CAR = 20
"""Training pictures of a class that are looked at for the space of the embeddings."""

_NO_HEAD = "its logits are not linear in its feature map"

Counter = Callable[[int, int], None]


def uncounted(what: str) -> contextlib.AbstractContextManager[Counter]:
    """Progress that nobody looks at."""
    return contextlib.nullcontext(lambda done, total: None)


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an ONNX file answers as its checkpoint does, on real pictures.

    Attributes:
        pictures: how many were compared.
        agreement: share on which both name the same class, 0 to 1.
        largest_difference: of any logit.
    """

    pictures: int
    agreement: float
    largest_difference: float


class _FileModel(nn.Module):
    """The classifier as the file has it: (N, S, S, 3) uint8 in, the outputs out."""

    def __init__(self, model: CarClassifier, head: LinearHead | None) -> None:
        super().__init__()
        self.model = model
        self.head = None if head is None else nn.Parameter(head.weight, requires_grad=False)
        self.bias = None if head is None else nn.Parameter(head.bias, requires_grad=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        logits, embedding, feature_map = self.model.outputs(pixels.permute(0, 3, 1, 2))
        if self.head is None:
            return logits, embedding, feature_map
        # The logits from the very weights that are given out: the file holds them once.
        logits = nn.functional.linear(embedding, self.head, self.bias)
        return logits, embedding, feature_map, self.head


def to_onnx(model: CarClassifier, size: int) -> onnx.ModelProto:
    """A classifier as an ONNX model, without card.

    Where the logits are linear in the feature map, the weights are one more output, `head`; where
    they are not, the metadata say so.

    Args:
        model: in eval mode, on the CPU.
        size: side of the square input, in pixels.
    """
    head = linear_head(model.eval(), size)
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    outputs = ["logits", "embedding", "feature_map", *(["head"] if head is not None else [])]
    dynamic = ({0: torch.export.Dim("batch")},)
    proto = graph_of(_FileModel(model, head), (example,), outputs, dynamic)
    if head is not None:
        _give_out_by_a_node(proto.graph, "head")
    onnx.helper.set_model_props(proto, {} if head is not None else {HEAD_KEY: _NO_HEAD})
    return proto


def _give_out_by_a_node(graph: onnx.GraphProto, name: str) -> None:
    """Have an output that is an initializer come from a node.

    Converters to other precisions expect that; onnxruntime folds the node away.
    """
    inner = f"{name}.weight"
    for initializer in graph.initializer:
        if initializer.name == name:
            initializer.name = inner
    for node in graph.node:
        node.input[:] = [inner if there == name else there for there in node.input]
    graph.node.append(onnx.helper.make_node("Identity", [inner], [name]))


def graph_of(
    model: nn.Module, example: tuple[Tensor, ...], outputs: Sequence[str], dynamic: Any
) -> onnx.ModelProto:
    """A module as an ONNX model, whose one input is called `pixels`.

    Args:
        model: what is exported, in eval mode.
        example: its input.
        outputs: their names.
        dynamic: which sizes of the input may vary, as torch.export wants it; None: none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own deprecated insides
        program = torch.onnx.export(
            model.eval(),
            example,
            dynamo=True,
            input_names=["pixels"],
            output_names=outputs,
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    assert isinstance(proto, onnx.ModelProto)
    # The exporter notes for each node from which line of which file it came: paths of this machine.
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info):
        part.ClearField("metadata_props")
    return proto


def with_card(model: onnx.ModelProto, card: Card, space: Space | None = None) -> bytes:
    """The bytes of a model file: an ONNX model, its card and space, and the checksum over all."""
    return sealed_with(model, card.to_json(), space)


def sealed_with(model: onnx.ModelProto, card: str, space: Space | None = None) -> bytes:
    """The bytes of a file of a card in JSON."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    kept = {entry.key: entry.value for entry in proto.metadata_props if entry.key == HEAD_KEY}
    more = {} if space is None else {SPACE_KEY: space.to_json()}
    onnx.helper.set_model_props(proto, {**kept, CARD_KEY: card, **more})
    onnx.checker.check_model(proto)
    return sealed(proto.SerializeToString())


def with_space(file: bytes, space: Space) -> bytes:
    """The bytes of a model file that carries a space: another file, with another SHA-256."""
    model = onnx.load_model_from_string(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return sealed_with(model, metadata[CARD_KEY], space)


def export_run(
    run: Path,
    out: Path,
    *,
    data_root: Path | None = None,
    notes: str = "",
    half: bool = False,
    calibrated_by: str | None = None,
    counting: Callable[[str], contextlib.AbstractContextManager[Counter]] = uncounted,
) -> tuple[Card, Parity]:
    """Export the best checkpoint of a run.

    Temperature and thresholds are fitted on the run's validation part. The file's answers are
    compared with the checkpoint's on the test split, where there is one, else on the validation
    part; the accuracy measured there goes into the card.

    Args:
        run: the run folder.
        out: the file to write; it is replaced only when all went well.
        data_root: the run's data set, if it has moved.
        notes: Markdown for the card: what figures do not say.
        half: store the weights in 16 bits; see `half.weights_in_half`.
        calibrated_by: a model of the same cars and bits, of which temperature, thresholds and sets
            are taken instead of being fitted: a file, or a shipped model's name.
        counting: for a name, a context that gives a function to call with the number done and
            the total.

    Returns:
        The card that was written, and how far file and checkpoint agree.

    Raises:
        ExportError: the file's answers differ too much; nothing is written.
        UsageError: the model to calibrate by cannot serve for that.
        ModelFileError: the run has no checkpoint, or the other no model, that can be used.
        DataError: the run's data set is not there.
    """
    checkpoint = load_checkpoint(run)
    known = None
    if calibrated_by is not None:
        known = calibration_of(calibrated_by, checkpoint.class_names, in_8_bits=False)
    folder = RunFolder(run)
    data = data_of_run(folder, data_root)
    crop = checkpoint.recipe.area()
    val_part = folder.pictures(data, "val")
    gate, seen = _gate_of(checkpoint, folder.pictures(data, "train"), val_part, counting)
    recognise = functools.partial(_through, gate, checkpoint)
    with counting("calibrating") as count:
        val = _predict(recognise, checkpoint, val_part, crop, count)
    card = card_of(checkpoint, val, known)
    has_test = any(p.split == "test" for p in data.pictures)
    judged = data.split("test") if has_test else val_part
    expected = val
    if has_test:
        with counting("checkpoint") as count:
            expected = _predict(recognise, checkpoint, judged, crop, count)
    model = with_gate(to_onnx(checkpoint.model, checkpoint.recipe.eval_size), gate)
    if half:
        model = weights_in_half(model)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        file.write_bytes(with_card(model, card))
        with counting("exported file") as count:
            found = _predict(Spotter(file).logits, checkpoint, judged, crop, count)
    parity = _compare(expected.logits, found.logits)
    _refuse_unlike(parity, LARGEST_DIFFERENCE_IN_HALF if half else LARGEST_DIFFERENCE, out)
    measured = {
        "split": "test" if has_test else "validation",
        "crop": checkpoint.recipe.crop,
        **figures(found, checkpoint.class_names, card.temperature),
    }
    card = replace(card, accuracy={**card.accuracy, "measured": measured}, notes=notes)
    with replacing(out) as part:
        part.write_bytes(
            with_card(model, card, fit_space(seen.logits, seen.targets, len(card.classes)))
        )
    return card, parity


def _gate_of(
    checkpoint: Checkpoint,
    train: Sequence[Picture],
    val: Sequence[Picture],
    counting: Callable[[str], contextlib.AbstractContextManager[Counter]],
) -> tuple[Gate, Predictions]:
    """The gate of a classifier, and the embeddings (N, D) of the training pictures that made it.

    Args:
        checkpoint: the classifier.
        train: its training part, of which at most `MOST_OF_A_CAR` pictures of each car are taken.
        val: its validation part.
        counting: as in `export_run`.
    """
    crop = checkpoint.recipe.area()

    def embed(pixels: Pixels) -> NDArray[np.float32]:
        return checkpoint.outputs(pixels)[1]

    with counting("cars to compare with") as count:
        seen = _predict(embed, checkpoint, _some_of_each(train), crop, count)
        held_out = _predict(embed, checkpoint, val, crop, count)
    return fit_gate(seen.logits, seen.targets, held_out.logits), seen


def _through(gate: Gate, checkpoint: Checkpoint, pixels: Pixels) -> NDArray[np.float32]:
    """Logits (N, classes) as the file is to give them: scaled by how familiar each picture is."""
    logits, embeddings = checkpoint.outputs(pixels)
    return logits * gate.factors(gate.familiarity(embeddings))[:, None]


def space_of(spotter: Spotter, pictures: Sequence[Picture], crop: Crop, progress: Counter) -> Space:
    """The space in which a model's embeddings are compared, from its training pictures.

    Args:
        spotter: the model.
        pictures: of cars that it knows; at most `MOST_OF_A_CAR` of each are looked at.
        crop: which part of each is taken.
        progress: called with the number done and the total.

    Raises:
        DataError: none of them can be read.
    """
    chosen = _some_of_each(pictures)
    found = predict(
        chosen,
        [name.label for name in spotter.card.classes],
        lambda inputs: spotter.outputs(inputs).embedding,
        size=spotter.card.input_size,
        resize=spotter.card.resize,
        crop=crop,
        progress=progress,
    )
    return fit_space(found.logits, found.targets, len(spotter.card.classes))


def _some_of_each(pictures: Sequence[Picture]) -> list[Picture]:
    """At most `MOST_OF_A_CAR` pictures of each car."""
    of_car: collections.Counter[str] = collections.Counter()
    chosen = []
    for picture in pictures:
        of_car[picture.label] += 1
        if of_car[picture.label] <= MOST_OF_A_CAR:
            chosen.append(picture)
    return chosen


def data_of_run(folder: RunFolder, data_root: Path | None) -> DataSet:
    """The data set of a run, where it lay or where it is said to be.

    Raises:
        DataError: it is not there.
    """
    root = data_root or folder.data_root()
    if not root.is_dir():
        raise DataError(f"the run's data set is not at {root}; say where it is by --data")
    return open_data_set(root)


def _predict(
    recogniser: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    checkpoint: Checkpoint,
    pictures: Sequence[Picture],
    crop: Crop,
    progress: Counter,
) -> Predictions:
    return predict(
        pictures,
        checkpoint.class_names,
        recogniser,
        size=checkpoint.recipe.eval_size,
        crop=crop,
        progress=progress,
    )


def _refuse_unlike(parity: Parity, bound: float, out: Path) -> None:
    if parity.agreement < LEAST_AGREEMENT:
        raise ExportError(
            f"{out} was not written: on {parity.pictures} pictures the file names the checkpoint's "
            f"class for {100 * parity.agreement:.2f} %, needed are {100 * LEAST_AGREEMENT:.1f} %"
        )
    if parity.largest_difference > bound:
        raise ExportError(
            f"{out} was not written: a logit of the file differs from the checkpoint's by "
            f"{parity.largest_difference:.2g}, allowed is {bound}"
        )


def _compare(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Parity:
    same = expected.argmax(axis=1) == found.argmax(axis=1)
    return Parity(len(same), float(same.mean()), float(np.abs(expected - found).max()))

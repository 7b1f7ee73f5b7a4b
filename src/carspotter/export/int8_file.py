"""From a run, or from a file that was exported before, to one ONNX file that computes in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from carspotter.card import HEAD_KEY, Card
from carspotter.errors import ExportError, UsageError
from carspotter.evaluate import Predictions
from carspotter.export.fitted import calibration_of
from carspotter.export.int8 import Calibrated, calibrated, most_sensitive, quantised
from carspotter.export.onnx_file import Counter, uncounted, with_card
from carspotter.export.original import Counting, Original, measured, of_file, of_run, opened
from carspotter.files import replacing

if TYPE_CHECKING:
    from carspotter.photo import Pixels

LARGEST_LOSS = 0.003
"""Of top-1 accuracy on the validation part; one picture, where that is more."""

LEAST_AGREEMENT = 0.98
"""Share of the validation pictures on which both must name the same class."""

CALIBRATION_PICTURES = 256
"""Training pictures that say which values the layers take."""

_TELLING = 32
"""Of these, so many tell how sensitive each layer is."""

_LEFT = (0, 1, 2, 4, 8)
"""Tries: so many of the most sensitive layers stay in 32 bits."""


@dataclass(frozen=True, slots=True)
class Loss:
    """How far the answers in 8 bits are those in 32, on the validation part.

    Attributes:
        pictures: how many were compared.
        agreement: share on which both name the same class, 0 to 1.
        before: top-1 accuracy in 32 bits, 0 to 1.
        after: in 8 bits.
        largest_difference: of any logit.
        left: layers that stay in 32 bits.
    """

    pictures: int
    agreement: float
    before: float
    after: float
    largest_difference: float
    left: tuple[str, ...]

    @property
    def is_small(self) -> bool:
        """Whether the file may be written."""
        allowed = max(LARGEST_LOSS, 1 / self.pictures)
        return self.before - self.after <= allowed + 1e-9 and self.agreement >= LEAST_AGREEMENT


def export_int8(
    source: str,
    out: Path,
    *,
    data_root: Path | None = None,
    notes: str | None = None,
    calibrated_by: str | None = None,
    counting: Counting = uncounted,
) -> tuple[Card, Loss]:
    """Export a model whose convolutions compute in 8 bits.

    Ranges are calibrated on training pictures. The answers on the validation part are compared
    with those in 32 bits, of the run's checkpoint or of the file; if too much is lost, the most
    sensitive layers stay in 32 bits, as few as will do. Temperature, thresholds and sets are
    fitted anew, and the card gets the accuracy of the written file on the test split, where there
    is one, else on the validation part.

    Args:
        source: a run folder, a model file in 32 bits (its weights may be stored in 16), or a
            shipped model's name.
        out: the file to write; it is replaced only when all went well.
        data_root: the data set that the model was trained on; a run knows where it lay.
        notes: Markdown for the card; None: those that the source has.
        calibrated_by: as in `export_run`; in 8 bits, too.
        counting: as in `export_run`.

    Returns:
        The card that was written, and what was lost.

    Raises:
        ExportError: too much was lost; nothing is written.
        UsageError: the model to calibrate by cannot serve for that, or there must be one, since
            the file was calibrated by another.
        ModelFileError: the source, or the model to calibrate by, cannot be used.
        DataError: the data set is not there, or another than the model was trained on.
    """
    if Path(source).is_dir():
        original = of_run(Path(source), data_root)
    else:
        original = of_file(source, data_root)
    known = None
    if calibrated_by is not None:
        known = calibration_of(calibrated_by, original.class_names, in_8_bits=True)
    elif original.calibrated_by:
        raise UsageError(
            f"{source}: was calibrated by {original.calibrated_by}, too few of its pictures were "
            "set aside; name that model in 8 bits by --calibrated-by"
        )
    with counting("in 32 bits") as count:
        before = original.predict(original.val, count)
    first_card = original.card(before)
    with counting("pictures to calibrate on") as count:
        inputs = _inputs(original, count)
    model, after, loss = _smallest_loss(original, first_card, inputs, before, counting)
    _refuse_lossy(loss, out)
    card, space = measured(original, model, first_card, after, known, counting)
    card = replace(
        card,
        name=f"{card.name}-int8",
        accuracy={**card.accuracy, "in_8_bits": {**asdict(loss), "left": list(loss.left)}},
        notes=card.notes if notes is None else notes,
    )
    with replacing(out) as part:
        part.write_bytes(with_card(model, card, space))
    return card, loss


def _inputs(original: Original, count: Counter) -> Pixels:
    """Inputs (N, S, S, 3) of training pictures, drawn evenly from all."""
    number = min(CALIBRATION_PICTURES, len(original.train))
    chosen = np.random.default_rng(0).permutation(len(original.train))[:number]
    seen: list[Pixels] = []

    def keep(pixels: Pixels) -> Any:
        seen.append(pixels)
        return np.zeros((len(pixels), len(original.class_names)), np.float32)

    original.predict([original.train[place] for place in chosen], count, keep)
    return np.concatenate(seen)


def _smallest_loss(
    original: Original,
    card: Card,
    inputs: Pixels,
    before: Predictions,
    counting: Counting,
) -> tuple[onnx.ModelProto, Predictions, Loss]:
    """The model in 8 bits with as few layers in 32 as keep its loss small."""
    source = calibrated(original.model, inputs)
    order: list[str] = []
    for number in _LEFT:
        if number and not order:
            order = most_sensitive(source, inputs[:_TELLING])
        if number > len(order):
            break
        model = _quantised_like(original.model, source, order[:number])
        with opened(model, card) as spotter, counting("in 8 bits") as count:
            after = original.predict(original.val, count, spotter.logits)
        loss = _compare(before, after, order[:number])
        if loss.is_small:
            break
    return model, after, loss


def _quantised_like(
    original: onnx.ModelProto, source: Calibrated, leave: Sequence[str]
) -> onnx.ModelProto:
    """Quantised, and of the original's metadata what does not lie in the card."""
    model = quantised(source, leave=leave)
    kept = {entry.key: entry.value for entry in original.metadata_props if entry.key == HEAD_KEY}
    onnx.helper.set_model_props(model, kept)
    return model


def _compare(before: Predictions, after: Predictions, left: Sequence[str]) -> Loss:
    ours, theirs = after.logits.argmax(axis=1), before.logits.argmax(axis=1)
    return Loss(
        pictures=len(ours),
        agreement=float((ours == theirs).mean()),
        before=float((theirs == before.targets).mean()),
        after=float((ours == after.targets).mean()),
        largest_difference=float(np.abs(after.logits - before.logits).max()),
        left=tuple(left),
    )


def _refuse_lossy(loss: Loss, out: Path) -> None:
    if loss.is_small:
        return
    raise ExportError(
        f"{out} was not written: in 8 bits {100 * loss.after:.2f} % of {loss.pictures} validation "
        f"pictures are right, in 32 bits {100 * loss.before:.2f} %, and the same class is named "
        f"for {100 * loss.agreement:.2f} %; a loss of {100 * LARGEST_LOSS:.1f} points or one "
        f"picture is allowed, and {100 * LEAST_AGREEMENT:.0f} % are needed"
    )

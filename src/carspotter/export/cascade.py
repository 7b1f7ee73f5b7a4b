"""Several model files as one: the first answers what it is sure of, all answer the rest.

What several networks agree on is more often right than what one says, and its probability more
often what it claims (arXiv:1612.01474); the price is the time of all of them. A cascade pays it
only where it buys something (arXiv:2012.01988).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from carspotter.card import Card
from carspotter.errors import UsageError
from carspotter.export.cascade_graph import SURE, cascade_of, merged_by_onnxruntime
from carspotter.export.fitted import calibration_of, computes_in_8_bits
from carspotter.export.onnx_file import uncounted, with_card
from carspotter.export.original import Counting, Original, measured, of_file, opened
from carspotter.files import replacing
from carspotter.loading import load
from carspotter.spotter import Spotter


def export_cascade(
    sources: Sequence[str],
    out: Path,
    *,
    data_root: Path | None = None,
    notes: str | None = None,
    calibrated_by: str | None = None,
    counting: Counting = uncounted,
) -> Card:
    """Write one model file in which the first of several networks asks the others; `cascade_of`.

    Temperature, thresholds and sets of the whole are fitted on the validation part, which is that
    of all, and the accuracy is measured as `export_int8` does.

    Args:
        sources: two or more model files, or shipped models' names, the first to look first.
        out: the file to write; it is replaced only when all went well.
        data_root: the data set that they were trained on.
        notes: Markdown for the card; None: those of the first.
        calibrated_by: as in `export_run`; in as many bits, and of as many networks.
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
    networks = [load(source, detector="none") for source in sources]
    cards = [network.card for network in networks]
    for source, original, card in zip(sources[1:], originals[1:], cards[1:], strict=True):
        _need_alike(sources[0], originals[0], cards[0], source, original, card)
    first, in_8_bits = originals[0], computes_in_8_bits(cards[0])
    known = None
    if calibrated_by is not None:
        known = calibration_of(
            calibrated_by, first.class_names, in_8_bits=in_8_bits, networks=len(sources)
        )
    elif any(original.calibrated_by for original in originals):
        raise UsageError(
            f"{', '.join(sources)}: too few pictures were set aside to calibrate by; name a model "
            "that was made likewise, with more set aside, by --calibrated-by"
        )
    model = cascade_of([o.model for o in originals], [card.temperature for card in cards])
    if in_8_bits:
        model = merged_by_onnxruntime(model)
    named = replace(
        cards[0],
        name=f"{cards[0].name}-x{len(cards)}",
        notes=cards[0].notes if notes is None else notes,
    )
    with opened(model, named) as spotter, counting("validation part") as count:
        val = first.predict(first.val, count, spotter.logits)
    card, space = measured(first, model, named, val, known, counting)
    members = [_member(spotter, 1.0 if n == 0 else SURE) for n, spotter in enumerate(networks)]
    card = replace(card, accuracy={**card.accuracy, "members": members})
    with replacing(out) as part:
        part.write_bytes(with_card(model, card, space))
    return card


def _member(network: Spotter, asked_below: float) -> dict[str, Any]:
    """What a cascade's card says of one of its networks."""
    card = network.card
    return {
        "name": card.name,
        "sha256": network.info.sha256,
        "in_8_bits": computes_in_8_bits(card),
        "top1": card.accuracy.get("validation", {}).get("top1"),
        "asked_below": asked_below,
    }


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

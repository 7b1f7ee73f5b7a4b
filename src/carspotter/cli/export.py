"""`carspotter export`: what is made of a run, or of files, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from carspotter.card import Card, LocaliserCard
from carspotter.errors import DataError, UsageError
from carspotter.export import (
    Loss,
    Parity,
    export_cascade,
    export_int8,
    export_localiser,
    export_run,
)
from carspotter.export.original import Counting
from carspotter.localise.recipe import is_localiser_recipe
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        source: a run folder, a model file or a shipped model's name.
        out: the file to write.
        data: the data set, where the source does not know it.
        notes: a Markdown file for the card.
        half: weights in 16 bits.
        int8: computing in 8 bits.
        others: files that are asked where the source is unsure.
        calibrated_by: a model whose calibration is taken.
    """

    source: str
    out: Path
    data: Path | None
    notes: Path | None
    half: bool
    int8: bool
    others: Sequence[str]
    calibrated_by: str | None


def run(wanted: Wanted, *, as_json: bool, quiet: bool) -> None:
    """Export, and print how far the file agrees with what it is made of.

    Raises:
        UsageError: options that exclude each other, or notes that cannot be read.
        DataError: there is no folder to write to.
    """
    if wanted.half and wanted.int8:
        raise UsageError("--half and --int8 exclude each other")
    if wanted.others and (wanted.half or wanted.int8):
        raise UsageError("--with takes files as they are: use --half or --int8 on each one first")
    if not wanted.out.parent.is_dir():
        raise DataError(f"{wanted.out.parent}: no such folder")
    console = Console(stderr=True, quiet=quiet)

    def count(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return counting(what, console)

    if is_localiser_recipe(RunFolder(Path(wanted.source)).recipe):
        about, lines = _localiser(wanted, count)
    else:
        about, lines = _classifier(wanted, count)
    if as_json:
        print(json.dumps({"file": str(wanted.out), **about}))
    else:
        print("\n".join(lines))


def _classifier(wanted: Wanted, count: Counting) -> tuple[Mapping[str, Any], list[str]]:
    """Export a classifier; what there is to say of it, for programs and for people."""
    source, out = wanted.source, wanted.out
    text = None if wanted.notes is None else _read(wanted.notes)
    data, by = wanted.data, wanted.calibrated_by
    about: dict[str, Any] = {}
    if wanted.int8:
        card, loss = export_int8(
            source, out, data_root=data, notes=text, calibrated_by=by, counting=count
        )
        about["loss"], told = asdict(loss), _of_loss(loss)
    elif wanted.others:
        sources = [source, *wanted.others]
        card = export_cascade(
            sources, out, data_root=data, notes=text, calibrated_by=by, counting=count
        )
        told = _of_cascade(card)
    elif Path(source).is_file():
        raise UsageError(
            f"{source}: a file can be exported by --int8 or --with alone; else name a run folder"
        )
    else:
        card, parity = export_run(
            Path(source),
            out,
            data_root=data,
            notes=text or "",
            half=wanted.half,
            calibrated_by=by,
            counting=count,
        )
        about["parity"], told = asdict(parity), _of_parity(parity)
    measured = card.accuracy["measured"]
    return {**about, "accuracy": card.accuracy}, [
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(card.classes)} classes"
        + (", in 8 bits" if wanted.int8 else ""),
        told,
        f"top-1 accuracy {100 * measured['exact']['top1']:.2f} % ({measured['split']} split)",
    ]


def _of_parity(parity: Parity) -> str:
    return (
        f"same class as the checkpoint on {100 * parity.agreement:.2f} % of {parity.pictures} "
        f"pictures; largest difference of a logit {parity.largest_difference:.1e}"
    )


def _of_loss(loss: Loss) -> str:
    return (
        f"top-1 accuracy on {loss.pictures} validation pictures {100 * loss.after:.2f} %, in 32 "
        f"bits {100 * loss.before:.2f} %; same class on {100 * loss.agreement:.2f} %; layers left "
        f"in 32 bits: {len(loss.left)}"
    )


def _of_cascade(card: Card) -> str:
    validation = card.accuracy["validation"]
    alone = ", ".join(
        f"{one['name']} {100 * one['top1']:.2f} %" for one in card.accuracy["members"]
    )
    return (
        f"top-1 accuracy on {validation['pictures']} validation pictures "
        f"{100 * validation['top1']:.2f} %; of each alone: {alone}"
    )


def _localiser(wanted: Wanted, count: Counting) -> tuple[Mapping[str, Any], list[str]]:
    """Export a localiser; what there is to say of it, for programs and for people."""
    if wanted.notes is not None:
        raise UsageError("--notes: the card of a localiser has none")
    if wanted.half or wanted.int8 or wanted.others:
        raise UsageError("--half, --int8, --with: a localiser is exported as it is")
    if wanted.calibrated_by is not None:
        raise UsageError("--calibrated-by: a localiser names no cars")
    run, out = Path(wanted.source), wanted.out
    card, parity = export_localiser(run, out, data_root=wanted.data, counting=count)
    about = {"parity": asdict(parity), "accuracy": card.accuracy}
    return about, _of_localiser(out, card, parity)


def _of_localiser(out: Path, card: LocaliserCard, parity: Parity) -> list[str]:
    at = card.accuracy["validation"]
    width, height = card.input_size
    return [
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {width} x {height} px",
        f"same vehicles as the checkpoint on {100 * parity.agreement:.1f} % of {parity.pictures} "
        f"scenes; largest difference of a corner {parity.largest_difference:.1e} px",
        f"at a score of {card.threshold:.2f}: recall {100 * at['recall']:.0f} %, precision "
        f"{100 * at['precision']:.0f} % (validation scenes)",
    ]


def _read(notes: Path) -> str:
    try:
        return notes.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{notes}: cannot be read as text ({error})") from error

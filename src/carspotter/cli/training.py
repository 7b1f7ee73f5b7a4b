"""`carspotter train` and `carspotter export`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from lightning_fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from carspotter.card import Card, LocaliserCard
from carspotter.errors import DataError, UsageError
from carspotter.export import Loss, Parity, export_int8, export_localiser, export_run
from carspotter.localise.recipe import LocaliserRecipe, is_localiser_recipe, load_any_recipe
from carspotter.localise.training import train_localiser
from carspotter.train import soup_of_runs, train
from carspotter.train.processes import one_message
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder


def run_train(
    recipe: str,
    data: Path,
    out: Path,
    changes: Sequence[str],
    *,
    resume: bool,
    devices: int | None,
    nodes: int | None,
    quiet: bool,
) -> None:
    """Train by a recipe, and say where the result lies."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process
    console = Console(stderr=True, quiet=quiet)
    with one_message():  # a recipe that cannot be read: the same in each of torchrun's processes
        loaded = load_any_recipe(recipe, changes)
    run = train_localiser if isinstance(loaded, LocaliserRecipe) else train
    folder = run(
        loaded,  # type: ignore[arg-type]  # its kind chose the function
        data,
        out,
        resume=resume,
        devices=devices,
        nodes=nodes,
        console=console,
    )
    rank_zero_only(console.print)(
        f"{folder.best}: now `carspotter export {out} --out model.onnx`", soft_wrap=True
    )


def run_soup(runs: Sequence[Path], out: Path, data: Path | None, *, quiet: bool) -> None:
    """Average runs, and say where the result lies."""
    console = Console(stderr=True, quiet=quiet)
    folder = soup_of_runs(runs, out, data_root=data, console=console)
    console.print(f"{folder.best}: now `carspotter export {out} --out model.onnx`", soft_wrap=True)


def run_export(
    source: str,
    out: Path,
    data: Path | None,
    notes: Path | None,
    *,
    half: bool,
    int8: bool,
    calibrated_by: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export a run, and print how far the file agrees with the checkpoint."""
    run = Path(source)
    if half and int8:
        raise UsageError("--half and --int8 exclude each other")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent}: no such folder")
    console = Console(stderr=True, quiet=quiet)

    def count(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return counting(what, console)

    if is_localiser_recipe(RunFolder(run).recipe):
        if notes is not None:
            raise UsageError("--notes: the card of a localiser has none")
        if half or int8:
            raise UsageError("--half, --int8: a localiser is small as it is")
        if calibrated_by is not None:
            raise UsageError("--calibrated-by: a localiser names no cars")
        found, parity = export_localiser(run, out, data_root=data, counting=count)
        _print_localiser(out, found, parity, as_json=as_json)
        return
    text = None if notes is None else _read(notes)
    if int8:
        card, loss = export_int8(
            source, out, data_root=data, notes=text, calibrated_by=calibrated_by, counting=count
        )
        _print_int8(out, card, loss, as_json=as_json)
        return
    if run.is_file():
        raise UsageError(f"{run}: a file can be exported by --int8 alone; else name a run folder")
    card, parity = export_run(
        run,
        out,
        data_root=data,
        notes=text or "",
        half=half,
        calibrated_by=calibrated_by,
        counting=count,
    )
    if as_json:
        print(json.dumps({"file": str(out), "parity": asdict(parity), "accuracy": card.accuracy}))
        return
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(card.classes)} classes")
    print(
        f"same class as the checkpoint on {100 * parity.agreement:.2f} % of {parity.pictures} "
        f"pictures; largest difference of a logit {parity.largest_difference:.1e}"
    )
    measured = card.accuracy["measured"]
    print(f"top-1 accuracy {100 * measured['exact']['top1']:.2f} % ({measured['split']} split)")


def _print_int8(out: Path, card: Card, loss: Loss, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"file": str(out), "loss": asdict(loss), "accuracy": card.accuracy}))
        return
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(card.classes)} classes, in 8 bits")
    print(
        f"top-1 accuracy on {loss.pictures} validation pictures {100 * loss.after:.2f} %, in 32 "
        f"bits {100 * loss.before:.2f} %; same class on {100 * loss.agreement:.2f} %; layers left "
        f"in 32 bits: {len(loss.left)}"
    )
    measured = card.accuracy["measured"]
    print(f"top-1 accuracy {100 * measured['exact']['top1']:.2f} % ({measured['split']} split)")


def _print_localiser(out: Path, card: LocaliserCard, parity: Parity, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"file": str(out), "parity": asdict(parity), "accuracy": card.accuracy}))
        return
    at = card.accuracy["validation"]
    width, height = card.input_size
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {width} x {height} px")
    print(
        f"same vehicles as the checkpoint on {100 * parity.agreement:.1f} % of {parity.pictures} "
        f"scenes; largest difference of a corner {parity.largest_difference:.1e} px"
    )
    print(
        f"at a score of {card.threshold:.2f}: recall {100 * at['recall']:.0f} %, precision "
        f"{100 * at['precision']:.0f} % (validation scenes)"
    )


def _read(notes: Path) -> str:
    try:
        return notes.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{notes}: cannot be read as text ({error})") from error

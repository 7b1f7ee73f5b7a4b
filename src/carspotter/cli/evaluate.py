"""`carspotter evaluate`: a model, a data set, figures."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from carspotter.data import DataSet, Picture, open_data_set
from carspotter.data.scenes import part_of, read_backgrounds
from carspotter.detect import load_detector, main_view
from carspotter.errors import DataError, UsageError
from carspotter.evaluate.no_cars import KEPT, NoCars
from carspotter.loading import detector_file
from carspotter.report.document import document
from carspotter.report.evaluation import Evaluation, Protocol, evaluate
from carspotter.report.subject import Subject, load_subject
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder


def run(
    model: str,
    data_root: Path,
    split: str,
    report: Path | None,
    *,
    crop: str | None,
    detector: str | None,
    robustness: int,
    no_cars: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure, print, and write the report where one is asked for; returns the exit code."""
    if crop not in (None, "auto", "none", "box"):
        raise UsageError(f"--crop {crop}: must be auto, none or box")
    if crop != "auto" and detector is not None:
        raise UsageError("--detector needs --crop auto")
    if crop == "auto" and detector == "none":
        raise UsageError("--crop auto needs a detector")
    subject = load_subject(model)
    data = open_data_set(data_root)
    protocol = _protocol(subject, data, model, split, crop, detector)
    if no_cars is not None:
        protocol = replace(protocol, no_cars=_without_cars(no_cars, split))
    console = Console(stderr=True, quiet=quiet)
    for note in data.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    found = evaluate(
        subject, protocol, functools.partial(counting, console=console), robustness=robustness
    )
    result = document(found)
    if report is not None:
        from carspotter.report.files import write_report  # Plotly is needed here alone

        write_report(report, found, result)
    if as_json:
        print(json.dumps(result))
    else:
        _print(found, result)
        if report is not None:
            Console().print(f"report: {report / 'report.html'}", highlight=False, soft_wrap=True)
    return 1 if result["broken"] else 0


def _protocol(
    subject: Subject,
    data: DataSet,
    model: str,
    split: str,
    crop: str | None,
    detector: str | None,
) -> Protocol:
    area = subject.crop if crop is None else replace(subject.crop, to_box=crop == "box")
    focus = None
    file = detector_file(detector or "embedded", is_shipped=False) if crop == "auto" else None
    if file is not None:
        focus = functools.partial(main_view, load_detector(file, threads=1))
    return Protocol(
        data=data,
        split=split,
        pictures=_pictures(data, model, split),
        crop=area,
        focus=focus,
        taken="auto" if focus else f"box + {area.margin} px" if area.to_box else "whole",
    )


def _pictures(data: DataSet, model: str, split: str) -> Sequence[Picture]:
    """The split; of a run folder, "train" and "val" are what it was trained and validated on.

    Raises:
        DataError: the data set has no such split, or is another than the run's.
    """
    run = RunFolder(Path(model))
    if split not in ("train", "val") or not run.recipe.is_file():
        return data.split(split)
    return run.pictures(data, split)


def _without_cars(file: Path, split: str) -> Sequence[Picture]:
    """Pictures without a car of that part: on the others, training and thresholds may lean."""
    found = [picture for picture in read_backgrounds(file) if part_of(picture) == split]
    if not found:
        raise DataError(f"{file}: none of its pictures belongs to the part {split!r}")
    return found


def _print(found: Evaluation, result: dict[str, Any]) -> None:
    about = result["data"]
    table = Table(
        title=f"{result['model']['name']} on {about['pictures']} pictures of {about['split']} "
        f"({about['crop']} pictures, {result['input_size']} px)",
        title_justify="left",
    )
    columns = ("level", "names", "top-1 %", "top-5 %", "precision %", "recall %", "F1 %")
    for column in columns:
        table.add_column(column, justify="left" if column == "level" else "right")
    for m in found.metrics:
        figures = (m.top1, m.top5, m.macro_precision, m.macro_recall, m.macro_f1)
        table.add_row(m.level, str(m.classes), *(f"{100 * figure:.2f}" for figure in figures))
    console = Console()
    console.print(table)
    low, high = found.intervals["exact"]["top1"]
    console.print(
        f"precision, recall and F1 are means over the names (macro); 95 % interval of the exact "
        f"top-1: {100 * low:.2f} to {100 * high:.2f} %",
        highlight=False,
        soft_wrap=True,
    )
    if result["answers"] is not None:
        console.print(_answers_in_words(result["answers"]), highlight=False, soft_wrap=True)
    if found.no_cars is not None:
        console.print(_no_cars_in_words(found.no_cars), highlight=False, soft_wrap=True)
    if found.robustness is not None:
        console.print(_robustness_table(found))
    if result["broken"]:
        console.print(f"{len(result['broken'])} pictures could not be read and do not count:")
        for reason in result["broken"].values():
            console.print(f"  {reason}", markup=False, highlight=False)


def _answers_in_words(answers: dict[str, Any]) -> str:
    shares = ", ".join(
        f"{100 * answers[level]['share']:.1f} % {level}"
        for level in ("exact", "model", "make", "unknown")
    )
    right = answers["right_of_answered"]
    return f"answered: {shares}" + ("" if right is None else f"; {100 * right:.2f} % of them right")


def _no_cars_in_words(found: NoCars) -> str:
    scores = {"confidence": found.confidence, "familiarity": found.familiarity}
    told = ", ".join(
        f"{name} AUROC {score.auroc:.4f} ({100 * score.false_alarms:.1f} % pass where "
        f"{100 * KEPT:.0f} % of the cars do)"
        for name, score in scores.items()
        if score is not None
    )
    answered = "" if found.answered is None else f"{100 * found.answered:.1f} % answered; "
    return f"{found.pictures} pictures without a car: {answered}{told}"


def _robustness_table(found: Evaluation) -> Table:
    result = found.robustness
    assert result is not None
    table = Table(
        title=f"top-1 % on {result.pictures} of them made worse (clean {100 * result.clean:.1f})",
        title_justify="left",
    )
    table.add_column("corruption")
    for strength in range(1, 6):
        table.add_column(str(strength), justify="right")
    for name, values in result.top1.items():
        table.add_row(name, *(f"{100 * value:.1f}" for value in values))
    return table

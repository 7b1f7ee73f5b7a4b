"""`carspotter evaluate`: a model, a data set, figures."""

from __future__ import annotations

import functools
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from carspotter.data import Crop, DataSet, Picture, open_data_set
from carspotter.data.index import fingerprint
from carspotter.detect import load_detector, main_view
from carspotter.errors import UsageError
from carspotter.evaluate import Metrics, Predictions, Recogniser, measure, predict
from carspotter.files import write_text
from carspotter.preprocess import ResizeMode
from carspotter.spotter import load
from carspotter.train import load_checkpoint
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Subject:
    """What is measured, whichever kind of file it came from."""

    about: dict[str, str]
    class_names: tuple[str, ...]
    recogniser: Recogniser
    size: int
    resize: ResizeMode
    crop: Crop


def load_subject(model: str) -> Subject:
    """Load a run folder, a checkpoint, an ONNX file or a shipped model.

    Raises:
        ModelFileError: it is none of them.
    """
    if Path(model).is_dir() or model.endswith(".ckpt"):
        found = load_checkpoint(Path(model))
        recipe = found.recipe
        return Subject(
            about={"name": recipe.name, "checkpoint": Path(model).name},
            class_names=found.class_names,
            recogniser=found.recognise,
            size=recipe.eval_size,
            resize="squash",
            crop=recipe.area(),
        )
    spotter = load(model)
    card = spotter.card
    trained_on = card.trained_on
    return Subject(
        about=spotter.info.to_dict(),
        class_names=tuple(name.label for name in card.classes),
        recogniser=spotter.logits,
        size=card.input_size,
        resize=card.resize,
        crop=Crop(trained_on.get("crop") == "box", trained_on.get("box_margin", Crop().margin)),
    )


def run(
    model: str,
    data_root: Path,
    split: str,
    report: Path | None,
    *,
    crop: str | None,
    detector: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure, print, and write metrics.json where a report is asked for."""
    if crop not in (None, "auto", "none", "box"):
        raise UsageError(f"--crop {crop}: must be auto, none or box")
    if (crop == "auto") != (detector is not None):
        raise UsageError("--crop auto and --detector FILE need each other")
    subject = load_subject(model)
    area = subject.crop if crop is None else replace(subject.crop, to_box=crop == "box")
    focus = None
    if detector is not None:
        focus = functools.partial(main_view, load_detector(detector, threads=1))
    data = open_data_set(data_root)
    pictures = _pictures(data, model, split)
    console = Console(stderr=True, quiet=quiet)
    for note in data.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    started = time.monotonic()
    with counting("evaluating", console) as count:
        found = predict(
            pictures,
            subject.class_names,
            subject.recogniser,
            size=subject.size,
            resize=subject.resize,
            crop=area,
            focus=focus,
            progress=count,
        )
    seconds = time.monotonic() - started
    metrics = measure(found.logits, found.targets, subject.class_names)
    taken = "auto" if focus else f"box + {area.margin} px" if area.to_box else "whole"
    result = _document(subject, data, split, taken, found, metrics, seconds)
    if report is not None:
        write_text(report / "metrics.json", json.dumps(result, indent=1) + "\n")
    if as_json:
        print(json.dumps(result))
    else:
        _print_table(result, metrics)


def _pictures(data: DataSet, model: str, split: str) -> Sequence[Picture]:
    """The split; of a run folder, "train" and "val" are what it was trained and validated on.

    Raises:
        DataError: the data set has no such split, or is another than the run's.
    """
    run = RunFolder(Path(model))
    if split not in ("train", "val") or not run.recipe.is_file():
        return data.split(split)
    return run.pictures(data, split)


def _document(
    subject: Subject,
    data: DataSet,
    split: str,
    crop: str,
    found: Predictions,
    metrics: Sequence[Metrics],
    seconds: float,
) -> dict[str, Any]:
    """The content of metrics.json."""
    return {
        "format_version": FORMAT_VERSION,
        "model": subject.about,
        "data": {
            "layout": data.layout,
            "split": split,
            "crop": crop,
            "pictures": len(found.pictures),
            "fingerprint": fingerprint(found.pictures),
        },
        "input_size": subject.size,
        "metrics": {m.level: m.to_dict() for m in metrics},
        "broken": found.broken,
        "seconds": round(seconds, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("carspotter", "onnxruntime", "torch")},
        },
    }


def _print_table(result: dict[str, Any], metrics: Sequence[Metrics]) -> None:
    about = result["data"]
    table = Table(
        title=f"{result['model']['name']} on {about['pictures']} pictures of {about['split']} "
        f"({about['crop']} pictures, {result['input_size']} px)",
        title_justify="left",
    )
    columns = ("level", "names", "top-1 %", "top-5 %", "precision %", "recall %", "F1 %")
    for column in columns:
        table.add_column(column, justify="left" if column == "level" else "right")
    for m in metrics:
        figures = (m.top1, m.top5, m.macro_precision, m.macro_recall, m.macro_f1)
        table.add_row(m.level, str(m.classes), *(f"{100 * figure:.2f}" for figure in figures))
    console = Console()
    console.print(table)
    console.print("precision, recall and F1 are means over the names (macro)")
    if result["broken"]:
        console.print(f"{len(result['broken'])} pictures could not be read and do not count:")
        for reason in result["broken"].values():
            console.print(f"  {reason}", markup=False, highlight=False)

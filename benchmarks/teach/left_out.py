"""Classes that are left out of training, and a model that never saw them."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from carspotter.data import DataSet, PictureReader, open_data_set
from carspotter.data.index import fingerprint
from carspotter.errors import UsageError
from carspotter.export import export_run
from carspotter.files import replacing, write_text
from carspotter.train import RunFolder, load_recipe, train
from carspotter.train.batches import stream_seed


def choose(class_names: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """Classes to leave out; the same ones for the same names, whatever their order.

    Raises:
        UsageError: too few would stay.
    """
    if not 0 < count <= len(class_names) - 2:
        raise UsageError(f"{count} of {len(class_names)} classes cannot be left out")
    order = np.random.default_rng(stream_seed(seed, 0)).permutation(sorted(class_names))
    return tuple(sorted(order[:count].tolist()))


def trained_without(
    data: DataSet,
    left_out: Collection[str],
    recipe: str,
    changes: Sequence[str],
    work: Path,
    console: Console,
) -> Path:
    """A model file, trained by a recipe on all classes but those, or the one that was.

    A training that was cut short goes on.

    Raises:
        UsageError: the work folder is of other data or other classes.
        RecipeError: the recipe cannot be used.
        ExportError: the file would not answer as the checkpoint does.
    """
    about = {"left_out": sorted(left_out), "fingerprint": fingerprint(data.pictures)}
    _claim(work / "left-out.json", about)
    file = work / "model.onnx"
    if file.is_file():
        return file
    view, run = work / "data", RunFolder(work / "run")
    write_view(data, left_out, view)
    loaded = load_recipe(recipe, changes)
    if not run.best.is_file() or not _is_done(run, loaded.epochs):
        train(loaded, view, run.path, resume=run.recipe.is_file(), console=console)
    export_run(run.path, file)
    return file


def write_view(data: DataSet, left_out: Collection[str], folder: Path) -> None:
    """A data set's pictures without some classes, as files with a table that comes last."""
    table = folder / "labels.csv"
    if table.is_file():
        return
    reader = PictureReader()
    corners = ("x1", "y1", "x2", "y2")
    with (
        replacing(table) as part,
        part.open("w", newline="", encoding="utf-8") as lines,
    ):
        writer = csv.writer(lines, lineterminator="\n")
        boxed = any(picture.box for picture in data.pictures)
        writer.writerow(["file", "label", "split", *(corners if boxed else ())])
        kept = (picture for picture in data.pictures if picture.label not in left_out)
        for number, picture in enumerate(kept):
            # Folders that are named by splits or classes would be taken for another layout.
            name = f"pictures/{number:06}{Path(picture.key).suffix or '.jpg'}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(reader.read(picture))
            box = (picture.box or ("",) * 4) if boxed else ()
            writer.writerow([name, picture.label, picture.split, *box])
    open_data_set(folder)  # whatever is wrong with it is said now


def _claim(file: Path, about: Mapping[str, object]) -> None:
    """Make a work folder one for these classes and data, or check that it is."""
    if not file.is_file():
        write_text(file, json.dumps(about, indent=1) + "\n")
    elif json.loads(file.read_text(encoding="utf-8")) != about:
        raise UsageError(f"{file.parent} is of other classes or other data; take another --work")


def _is_done(run: RunFolder, epochs: int) -> bool:
    return len(run.read_metrics()) >= epochs

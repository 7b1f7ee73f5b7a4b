"""Classes that are left out of training, and a model that never saw them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.views import claim, write_view
from carspotter.data import DataSet
from carspotter.data.index import fingerprint
from carspotter.errors import UsageError
from carspotter.export import export_run
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
    claim(work / "left-out.json", about)
    file = work / "model.onnx"
    if file.is_file():
        return file
    view, run = work / "data", RunFolder(work / "run")
    write_view(((p, p.label) for p in data.pictures if p.label not in left_out), view)
    loaded = load_recipe(recipe, changes)
    if not run.best.is_file() or not _is_done(run, loaded.epochs):
        train(loaded, view, run.path, resume=run.recipe.is_file(), console=console)
    export_run(run.path, file)
    return file


def _is_done(run: RunFolder, epochs: int) -> bool:
    return len(run.read_metrics()) >= epochs

"""From a recipe and a data set to a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from carspotter.data import (
    DecodedPictures,
    Picture,
    decoded_pictures,
    open_data_set,
    training_parts,
)
from carspotter.data.index import DataSet, fingerprint
from carspotter.train import checkpoint
from carspotter.train.augment import TrainingPictures
from carspotter.train.classifier import ClassifierTask
from carspotter.train.loggers import loggers, need_trackers
from carspotter.train.model import CarClassifier
from carspotter.train.processes import agree, alike, make_fabric, one_message
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder
from carspotter.train.soup import best_size, greedy_soup
from carspotter.train.start import ready_start, take_up
from carspotter.train.teachers import ready_teachers
from carspotter.train.trainer import Trainer
from carspotter.train.validation import Validation

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from carspotter.train.recipe import Recipe


def train(
    recipe: Recipe,
    data_root: Path,
    out: Path,
    *,
    resume: bool = False,
    devices: int | None = None,
    nodes: int | None = None,
    console: Console,
    watch: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> RunFolder:
    """Train a classifier on the training split of a data set, and keep the best epoch.

    Args:
        recipe: how.
        data_root: a data set with a `train` split; its `val` split validates, or a part of `train`.
        out: the run folder.
        resume: go on with the run that `out` holds.
        devices: GPUs, or processes on a CPU, of each node; more than one starts this very
            command again for each of them.
        nodes: machines.
        console: for progress and messages.
        watch: called after each epoch with its line of metrics.jsonl; what it raises ends the run,
            whose checkpoints are whole. Several processes call it in the first one alone.

    Returns:
        The run folder.

    Raises:
        DataError: the data set cannot be used.
        RecipeError: the recipe's model or weights cannot be had, or its loss diverges.
        UsageError: `out` holds a run and `resume` is not set, or the other way round, or a run of
            another number of processes.
    """
    folder = RunFolder(out)
    with one_message():
        fabric = make_fabric(recipe, devices, nodes)
        fabric.launch()
        if not fabric.is_global_zero:
            console = Console(quiet=True)
        _train(recipe, data_root, folder, fabric, resume, console, watch)
    return folder


def _train(
    recipe: Recipe,
    data_root: Path,
    folder: RunFolder,
    fabric: Fabric,
    resume: bool,
    console: Console,
    watch: Callable[[Mapping[str, Any]], None],
) -> None:
    need_trackers(recipe)
    data = alike(fabric, lambda: open_data_set(data_root))
    parts = alike(
        fabric,
        lambda: training_parts(data, recipe.val_fraction, recipe.split_seed, recipe.exclude),
    )
    named_parts = dict(zip(("train", "val"), parts, strict=True))
    agree(fabric, lambda: folder.check(recipe, named_parts, resume=resume), first=True)
    resume = fabric.broadcast(folder.recipe.is_file())  # not yet, where its teachers are trained

    def train_one(before: Recipe, place: RunFolder, go_on: bool) -> None:
        console.print(f"{place.path}: is trained first", soft_wrap=True)
        _train(before, data_root, place, fabric, go_on, console, lambda line: None)

    start = ready_start(recipe, folder, fabric, train_one)
    teachers = ready_teachers(recipe, folder, data.class_names, fabric, train_one)
    decoded = _decoded(fabric, parts[0], recipe, console)
    targets = _targets(data, parts[0], decoded)
    trained_on = _trained_on(recipe, data, parts, len(decoded))
    task = ClassifierTask(recipe, fabric, data.class_names, targets, trained_on, teachers)
    pictures = TrainingPictures(decoded, targets, recipe)
    if start is not None:
        agree(fabric, lambda: take_up(task, start, data.class_names, pictures), first=False)
    trainer = Trainer(recipe, fabric, task, folder, console)
    if not resume:  # only now: a run that cannot start leaves no folder that bars the next try
        agree(fabric, lambda: folder.begin(recipe, data_root, named_parts), first=True)
    leave_out = _teller(folder, fabric, console)
    leave_out([*data.notes, *decoded.broken.values()])
    if resume:
        trainer.resume()
    validation = Validation(parts[1], data.class_names, recipe.area(), fabric, leave_out)
    with contextlib.ExitStack() as stack:
        opened = loggers(recipe, folder, trainer.progress.epoch, console)
        log = agree(fabric, lambda: stack.enter_context(opened), first=True)
        trainer.fit(
            pictures,
            lambda model: validation(model, recipe.eval_size),
            log or (lambda line: None),
            watch,
            keep_epochs=recipe.soup,
        )
    # In the first process alone: the run folder need not lie where the others could read it.
    alone = replace(validation, fabric=None)
    agree(fabric, lambda: _finish(folder, recipe, alone, fabric.device, console), first=True)


def _finish(
    folder: RunFolder,
    recipe: Recipe,
    validation: Validation,
    device: torch.device,
    console: Console,
) -> None:
    """What the recipe wants done after the last epoch; all of it again if it was cut short."""

    def tell(text: str) -> None:
        folder.log(text, console)

    def accuracy(model: CarClassifier, size: int) -> float:
        return validation.accuracy(model.to(device), size)

    epochs = folder.epochs()
    if not epochs and not recipe.try_sizes:
        return
    there = checkpoint.load_checkpoint(folder.best)
    found = best_size(greedy_soup(epochs, accuracy, tell) if epochs else there, accuracy, tell)
    if found.val_accuracy < there.val_accuracy:  # cut short when some epochs were removed already
        found = there
    checkpoint.save_checkpoint(folder.best, found)
    folder.keep_epochs(())
    tell(f"kept: {100 * found.val_accuracy:.2f} % on validation at {found.recipe.eval_size} px")


def _decoded(
    fabric: Fabric, pictures: Sequence[Picture], recipe: Recipe, console: Console
) -> DecodedPictures:
    """The decoded pictures; the first process of each node makes the cache, the others read it."""

    def decode() -> DecodedPictures:
        with counting("decoding", console) as count:
            return decoded_pictures(pictures, recipe.area(), recipe.cache_side, progress=count)

    return alike(fabric, decode)


def _targets(
    data: DataSet, pictures: Sequence[Picture], decoded: DecodedPictures
) -> NDArray[np.int64]:
    """(N,) class numbers of the pictures that could be decoded."""
    labels = [pictures[place].label for place in decoded.kept]
    data.need_every_class(labels)
    number = {name: index for index, name in enumerate(data.class_names)}
    return np.array([number[label] for label in labels], np.int64)


def _trained_on(
    recipe: Recipe,
    data: DataSet,
    parts: tuple[Sequence[Picture], Sequence[Picture]],
    pictures: int,
) -> dict[str, Any]:
    """What checkpoints say of the data; by it the parts can be told without the run folder."""
    kept = {picture.key for part in parts for picture in part}
    excluded = sorted(p.key for p in data.pictures if p.split != "test" and p.key not in kept)
    return {
        "layout": data.layout,
        "split": "train",
        "crop": recipe.crop,
        "box_margin": recipe.box_margin,
        "pictures": pictures,
        "val_pictures": len(parts[1]),
        "val_fraction": recipe.val_fraction,
        "split_seed": recipe.split_seed,
        **({"excluded": excluded} if excluded else {}),
        "fingerprint": fingerprint(parts[0]),
    }


def _teller(folder: RunFolder, fabric: Fabric, console: Console) -> Callable[[Iterable[str]], None]:
    """Logs each reason for leaving a picture out once."""
    told: set[str] = set()

    def leave_out(reasons: Iterable[str]) -> None:
        for reason in reasons:
            if reason not in told and fabric.is_global_zero:
                folder.log(f"left out: {reason}", console)
            told.add(reason)

    return leave_out

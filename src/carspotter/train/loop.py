"""From a recipe and a data set to a run folder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from carspotter.data import Crop, Picture, decoded_pictures, open_data_set, stratified_split
from carspotter.data.index import fingerprint
from carspotter.errors import DataError, UsageError
from carspotter.evaluate import measure, predict
from carspotter.train.augment import TrainingPictures
from carspotter.train.checkpoint import recognise
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder
from carspotter.train.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import Console

    from carspotter.train.model import CarClassifier
    from carspotter.train.recipe import Recipe


def train(
    recipe: Recipe,
    data_root: Path,
    out: Path,
    *,
    resume: bool = False,
    console: Console,
    watch: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> RunFolder:
    """Train a classifier on the training split of a data set, and keep the best epoch.

    Args:
        recipe: how.
        data_root: a data set with a `train` split; a validation part is taken from it.
        out: the run folder.
        resume: go on with the run that `out` holds.
        console: for progress and messages.
        watch: called after each epoch with its line of metrics.jsonl; what it raises ends the run,
            whose checkpoints are whole.

    Returns:
        The run folder.

    Raises:
        DataError: the data set cannot be used.
        RecipeError: the recipe's model or weights cannot be had.
        UsageError: `out` holds a run and `resume` is not set, or the other way round.
    """
    folder = RunFolder(out)
    if resume and not folder.recipe.is_file():
        raise UsageError(f"{out} holds no run to resume")
    data = open_data_set(data_root)
    parts = stratified_split(data.split("train"), recipe.val_fraction, recipe.seed)
    train_part, val_part = parts
    named_parts = {"train": train_part, "val": val_part}
    folder.check(recipe, named_parts, resume=resume)
    crop = recipe.area()
    with counting("decoding", console) as count:
        decoded = decoded_pictures(train_part, crop, recipe.cache_side, progress=count)
    labels = [train_part[place].label for place in decoded.kept]
    _need_every_class(data.class_names, labels, data_root)
    number = {name: index for index, name in enumerate(data.class_names)}
    pictures = TrainingPictures(decoded, np.array([number[x] for x in labels], np.int64), recipe)
    trained_on = {
        "layout": data.layout,
        "split": "train",
        "crop": recipe.crop,
        "box_margin": recipe.box_margin,
        "pictures": len(decoded),
        "val_pictures": len(val_part),
        "fingerprint": fingerprint(train_part),
    }
    trainer = Trainer(recipe, data.class_names, trained_on, folder, console)
    if not resume:  # only now: a run that cannot start leaves no folder that bars the next try
        folder.begin(recipe, data_root, named_parts)
    told: set[str] = set()

    def leave_out(reasons: Iterable[str]) -> None:
        for reason in reasons:
            if reason not in told:
                folder.log(f"left out: {reason}", console)
                told.add(reason)

    leave_out(decoded.broken.values())
    if resume and folder.last.is_file():
        trainer.resume()
    trainer.fit(
        pictures,
        functools.partial(
            _validate,
            pictures=val_part,
            class_names=data.class_names,
            recipe=recipe,
            crop=crop,
            leave_out=leave_out,
        ),
        watch,
    )
    return folder


def _need_every_class(class_names: Sequence[str], labels: Sequence[str], root: Path) -> None:
    missing = sorted(set(class_names) - set(labels))
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(class_names)} classes have no training picture "
            f"that can be read, {missing[0]!r} first"
        )


def _validate(
    model: CarClassifier,
    *,
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    recipe: Recipe,
    crop: Crop,
    leave_out: Callable[[Iterable[str]], None],
) -> dict[str, float]:
    found = predict(
        pictures,
        class_names,
        functools.partial(recognise, model),
        size=recipe.eval_size,
        crop=crop,
    )
    leave_out(found.broken.values())
    exact = measure(found.logits, found.targets, class_names)[0]
    loss = functional.cross_entropy(torch.from_numpy(found.logits), torch.from_numpy(found.targets))
    return {
        "val_loss": float(loss),
        "val_accuracy": exact.top1,
        "val_top5": exact.top5,
        "val_macro_f1": exact.macro_f1,
    }

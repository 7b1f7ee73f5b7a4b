"""Short trainings of tiny networks in the process of the tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from carspotter.train import Recipe, RunFolder, checkpoint, train
from carspotter.train.batches import stream_seed
from carspotter.train.model import CarClassifier

TINY = "test_efficientnet"

# 54 of the drawn pictures are trained on, in 3 steps an epoch; 18 validate.
PLAIN: dict[str, Any] = {
    "name": "tiny",
    "backbone": TINY,
    "weights": "none",
    "val_fraction": 0.25,
    "epochs": 1,
    "sizes": (48,),
    "eval_size": 48,
    "batch_size": 16,
    "warmup_epochs": 0,
    "lr": 1e-2,
    "backbone_lr_scale": 1.0,
    "dropout": 0.0,
    "rotation": 0,
    "mix_probability": 0,
    "ema_decay": 0.0,
    "label_smoothing": 0.0,
    "precision": "fp32",
}
STEPS = 3


class Stopped(Exception):  # noqa: N818 (no error)
    """Ends a run from its `watch`, as a kill at the end of an epoch would."""


def tiny(**changes: Any) -> Recipe:
    """A recipe with nothing but what is said."""
    return Recipe.model_validate({**PLAIN, **changes})


def run(
    data: Path, out: Path, *, resume: bool = False, stop_after: int = 0, **changes: Any
) -> RunFolder:
    """Train by `tiny`; a run that is to stop after an epoch is left there."""

    def watch(line: Mapping[str, Any]) -> None:
        if line["epoch"] == stop_after:
            raise Stopped

    try:
        return run_recipe(tiny(**changes), data, out, resume=resume, watch=watch)
    except Stopped:
        return RunFolder(out)


def run_recipe(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    watch: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> RunFolder:
    console = Console(quiet=True)
    return train(recipe, data, out, resume=resume, console=console, watch=watch)


def keep_epochs_in(folder: Path, out: Path) -> Callable[[Mapping[str, Any]], None]:
    """A `watch` that copies the weights of each epoch of a run that makes a soup."""
    folder.mkdir(exist_ok=True)

    def watch(line: Mapping[str, Any]) -> None:
        file = RunFolder(out).epoch(line["epoch"])
        if file.is_file():
            shutil.copy(file, folder)

    return watch


def last(folder: RunFolder) -> dict[str, Any]:
    return checkpoint.load(folder.last)


def first_weights(recipe: Recipe, classes: int = 3) -> Mapping[str, torch.Tensor]:
    """What a run of the recipe starts from."""
    torch.manual_seed(stream_seed(recipe.seed, 0))
    return CarClassifier(recipe, classes).state_dict()


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, to the last bit of each tensor."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)

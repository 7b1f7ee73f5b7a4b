"""Runs that another run needs before it: its teachers', and those whose weights it goes on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from carspotter.train.processes import agree
from carspotter.train.recipe import Recipe
from carspotter.train.run import RunFolder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

TrainOne: TypeAlias = Callable[[Recipe, RunFolder, bool], None]
"""Trains by a recipe into a folder; the flag says to go on with the run there."""

# What they share with the run that needs them: the pictures to learn from, and the machine.
_SHARED = (
    *("crop", "box_margin", "val_fraction", "split_seed", "exclude"),
    *("precision", "checkpoint_minutes"),
)


def on_the_pictures_of(recipe: Recipe, found: Recipe) -> Recipe:
    """`found`, on the training and validation part of `recipe`."""
    return found.model_copy(update={key: getattr(recipe, key) for key in _SHARED})


def train_first(recipe: Recipe, run: RunFolder, fabric: Fabric, train_one: TrainOne) -> None:
    """Train by a recipe, unless that is done; go on with it where it was cut off."""
    # The state of a run under way is there before its first result, and goes when the run is done:
    # what is left is the trained model.
    if in_first(fabric, lambda: run.best.is_file() and not run.last.exists()):
        return
    train_one(recipe, run, in_first(fabric, lambda: run.is_begun))
    agree(fabric, run.last.unlink, first=True)


def in_first(fabric: Fabric, work: Callable[[], T]) -> T:
    """What the first process makes of it, in every process."""
    return cast("T", fabric.broadcast(agree(fabric, work, first=True)))

"""Teachers: trained classifiers to learn from, or recipes by which they are trained first."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carspotter.errors import RecipeError
from carspotter.train.checkpoint import load_checkpoint
from carspotter.train.first import TrainOne, in_first, on_the_pictures_of, train_first
from carspotter.train.model import CarClassifier
from carspotter.train.recipe import Recipe, load_recipe, shipped_recipes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from carspotter.train.run import RunFolder


def ready_teachers(
    recipe: Recipe,
    folder: RunFolder,
    class_names: Sequence[str],
    fabric: Fabric,
    train_one: TrainOne,
) -> list[CarClassifier]:
    """The recipe's teachers; those that are recipes themselves are trained, unless they are yet.

    The first process alone reads them, and hands them to the others.

    Args:
        recipe: the student's.
        folder: the student's; what is trained for it goes below it.
        class_names: in the order of the logits.
        fabric: the processes.
        train_one: trains by a recipe into a folder; the flag says to go on with the run there.

    Raises:
        RecipeError: a teacher knows other classes, or a recipe that has teachers to be trained.
        ModelFileError: a teacher cannot be loaded.
    """
    found = []
    for number, name in enumerate(recipe.teachers, start=1):
        place = Path(name).expanduser()
        if is_recipe(name):
            run = folder.teacher(number, place.stem)
            train_first(_recipe_of(name, recipe), run, fabric, train_one)
            place = run.path
        found.append(in_first(fabric, functools.partial(load_teacher, place, class_names)))
    return found


def is_recipe(teacher: str) -> bool:
    """Whether a teacher is a shipped recipe's name or a recipe file, and not a trained model."""
    path = Path(teacher).expanduser()
    return path.suffix == ".toml" or (teacher in shipped_recipes() and not path.exists())


def load_teacher(path: Path, class_names: Sequence[str]) -> CarClassifier:
    """A trained classifier to learn from, in eval mode and without gradients.

    Args:
        path: a run folder or a checkpoint.
        class_names: that it must know, in the order of the logits.

    Raises:
        RecipeError: it knows other classes, or the same in another order.
        ModelFileError: it cannot be loaded.
    """
    found = load_checkpoint(path)
    if found.class_names != tuple(class_names):
        raise RecipeError(
            f"teachers: {path} knows {len(found.class_names)} classes which are not this data "
            f"set's {len(class_names)}, name by name; train it on the same classes"
        )
    return found.model.requires_grad_(False)


def _recipe_of(name: str, student: Recipe) -> Recipe:
    found = load_recipe(name)
    if any(is_recipe(teacher) for teacher in found.teachers):
        raise RecipeError(f"teachers: {name} has teachers to be trained itself; train it before")
    return on_the_pictures_of(student, found)

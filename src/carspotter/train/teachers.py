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
from carspotter.train.model_weights import fill_from_file, read_weights
from carspotter.train.recipe import Recipe, load_recipe, shipped_recipes
from carspotter.train.weights import MODEL_PREFIX

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
        if name.startswith(MODEL_PREFIX):
            found.append(in_first(fabric, functools.partial(_of_file, recipe, name, class_names)))
            continue
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
    _need_classes(found.class_names, class_names, str(path))
    return found.model.requires_grad_(False)


def _of_file(student: Recipe, name: str, class_names: Sequence[str]) -> CarClassifier:
    """The classifier of a shipped model or a model file, which must be of the student's backbone.

    Raises:
        RecipeError: it is of another, quantised, or knows other classes.
        ModelFileError: no such file, or not one of carspotter's.
    """
    found = read_weights(name.removeprefix(MODEL_PREFIX))
    _need_classes(found.class_names, class_names, found.file)
    model = CarClassifier(student, len(class_names), pretrained=False)
    fill_from_file(model, found, class_names, None)
    return model.requires_grad_(False)


def _need_classes(known: Sequence[str], wanted: Sequence[str], source: str) -> None:
    if tuple(known) != tuple(wanted):
        raise RecipeError(
            f"teachers: {source} knows {len(known)} classes which are not this data set's "
            f"{len(wanted)}, name by name; train it on the same classes"
        )


def _recipe_of(name: str, student: Recipe) -> Recipe:
    found = load_recipe(name)
    if any(is_recipe(teacher) for teacher in found.teachers):
        raise RecipeError(f"teachers: {name} has teachers to be trained itself; train it before")
    return on_the_pictures_of(student, found)

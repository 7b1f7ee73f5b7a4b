"""Weights to go on from that are a trained classifier's: a model file's, or another recipe's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from carspotter.errors import RecipeError
from carspotter.train.augment import TrainingPictures
from carspotter.train.checkpoint import load_checkpoint
from carspotter.train.classifier import ClassifierTask
from carspotter.train.first import TrainOne, in_first, on_the_pictures_of, train_first
from carspotter.train.model_weights import FileWeights, fill_from_file, read_weights
from carspotter.train.recipe import Recipe, load_recipe
from carspotter.train.weights import MODEL_PREFIX, RECIPE_PREFIX

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from carspotter.train.run import RunFolder

STATISTICS_BATCHES = 32
"""Of training pictures, on which the norms of a model file's weights are measured."""


def ready_start(
    recipe: Recipe, folder: RunFolder, fabric: Fabric, train_one: TrainOne
) -> Mapping[str, Tensor] | FileWeights | None:
    """The weights of a trained classifier that a recipe goes on from; None: it names none.

    Where they are another recipe's, that is trained first, unless it is yet. The first process
    alone reads them, and hands them to the others.

    Args:
        recipe: of the run.
        folder: its own; what is trained for it goes below it.
        fabric: the processes.
        train_one: trains by a recipe.

    Raises:
        RecipeError: no recipe, of another backbone, or with runs before it itself.
        ModelFileError: the model file, or the run's checkpoint, cannot be used.
    """
    if recipe.weights.startswith(MODEL_PREFIX):
        name = recipe.weights.removeprefix(MODEL_PREFIX)
        return in_first(fabric, lambda: read_weights(name))
    if not recipe.weights.startswith(RECIPE_PREFIX):
        return None
    train_first(_first_recipe(recipe), folder.start, fabric, train_one)
    return in_first(fabric, lambda: load_checkpoint(folder.start.path).model.state_dict())


def take_up(
    task: ClassifierTask,
    weights: Mapping[str, Tensor] | FileWeights,
    class_names: Sequence[str],
    pictures: TrainingPictures,
) -> None:
    """Give the task's model the weights that it goes on from.

    Args:
        task: whose batches stand at the begin.
        weights: of `ready_start`.
        class_names: that the model is to know. A model file of others gives its backbone alone.
        pictures: the training part.

    Raises:
        RecipeError: they do not fit the model.
    """
    if isinstance(weights, FileWeights):
        fill_from_file(task.classifier, weights, class_names, lambda: _batches(task, pictures))
        return
    try:
        task.classifier.load_state_dict(weights)
    except RuntimeError as error:
        raise RecipeError(f"weights: not of this recipe's model ({error})") from error


def _first_recipe(recipe: Recipe) -> Recipe:
    name = recipe.weights.removeprefix(RECIPE_PREFIX)
    found = load_recipe(name)
    if found.backbone != recipe.backbone:
        raise RecipeError(
            f"weights: {name} trains {found.backbone}, and this recipe {recipe.backbone}"
        )
    if found.teachers or found.weights.startswith(RECIPE_PREFIX):
        raise RecipeError(f"weights: {name} has runs before it itself; train it before")
    return on_the_pictures_of(recipe, found)


def _batches(task: ClassifierTask, pictures: TrainingPictures) -> Iterator[Tensor]:
    task.batches.start_at(0)
    for draws in itertools.islice(iter(task.batches), STATISTICS_BATCHES):
        batch = torch.stack([pictures[draw][0] for draw in draws])
        yield batch.contiguous(memory_format=torch.channels_last)

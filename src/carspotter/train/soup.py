"""What is done with a trained run: averaging of epochs or runs, and the best size at test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from carspotter.errors import RecipeError
from carspotter.train.checkpoint import Checkpoint, load_checkpoint
from carspotter.train.model import CarClassifier

Score: TypeAlias = Callable[[CarClassifier, int], float]
"""Validation accuracy, 0 to 1, of a classifier at a size in pixels."""

Tell: TypeAlias = Callable[[str], None]


def greedy_soup(paths: Sequence[Path], score: Score, tell: Tell) -> Checkpoint:
    """Average checkpoints, one after the other, as long as validation does not fall.

    The greedy soup of "Model soups" (arXiv:2203.05482); batch-norm statistics are averaged too.

    Args:
        paths: checkpoints or run folders of one backbone and one list of classes.
        score: of a classifier.
        tell: hears what came of each.

    Returns:
        The soup, as a checkpoint of the best one's recipe.

    Raises:
        ModelFileError: one of them cannot be loaded.
        RecipeError: they are of several backbones, sizes at test or lists of classes.
    """
    found = sorted(
        ((load_checkpoint(path), path) for path in paths), key=lambda one: -one[0].val_accuracy
    )
    best, first = found[0]
    taken: list[Mapping[str, Tensor]] = [_copied(best.model)]
    accuracy = score(best.model, best.recipe.eval_size)
    tell(f"soup: {_named(first)} alone {100 * accuracy:.2f} %")
    for other, path in found[1:]:
        _need_same(best, first, other, path)
        tried = [*taken, _copied(other.model)]
        best.model.load_state_dict(_mean(tried))
        with_it = score(best.model, best.recipe.eval_size)
        if with_it >= accuracy:
            taken, accuracy = tried, with_it
        verdict = "kept" if tried is taken else "left out"
        tell(f"soup: with {_named(path)} {100 * with_it:.2f} %, {verdict}")
    best.model.load_state_dict(_mean(taken))
    return replace(best, val_accuracy=accuracy)


def best_size(found: Checkpoint, score: Score, tell: Tell) -> Checkpoint:
    """The checkpoint with the size at test that validation likes best (arXiv:1906.06423).

    Objects look larger in random crops than in whole pictures: a size above the one that was
    trained at makes up for it. Among equals the smallest size is taken.
    """
    accuracy = {found.recipe.eval_size: found.val_accuracy}
    for size in found.recipe.try_sizes:
        if size not in accuracy:
            accuracy[size] = score(found.model, size)
    for size, value in sorted(accuracy.items()):
        tell(f"at {size} px: {100 * value:.2f} % on validation")
    size = min(accuracy, key=lambda size: (-accuracy[size], size))
    recipe = found.recipe.model_copy(update={"eval_size": size})
    return replace(found, recipe=recipe, val_accuracy=accuracy[size])


def _named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _copied(model: CarClassifier) -> Mapping[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _mean(states: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The mean of each tensor, in its own type."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }


def _need_same(one: Checkpoint, one_path: Path, other: Checkpoint, other_path: Path) -> None:
    for what, a, b in (
        ("backbones", one.recipe.backbone, other.recipe.backbone),
        ("sizes at test", one.recipe.eval_size, other.recipe.eval_size),
        ("lists of classes", one.class_names, other.class_names),
    ):
        if a != b:
            raise RecipeError(
                f"{one_path} and {other_path} have different {what}: no average can be made"
            )

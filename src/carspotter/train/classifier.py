"""The training of a classifier, as the trainer sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from carspotter.train.augment import BatchMixer
from carspotter.train.batches import EpochBatches, even_chances, stream_seed
from carspotter.train.checkpoint import Checkpoint, save_checkpoint
from carspotter.train.loss import Objective
from carspotter.train.model import CarClassifier, check_sizes
from carspotter.train.recipe import Recipe
from carspotter.train.task import Loss
from carspotter.train.weights import is_trained

if TYPE_CHECKING:
    import numpy as np
    from lightning_fabric import Fabric
    from numpy.typing import NDArray


class ClassifierTask:
    """A `task.Task`: pictures in, one of the classes out.

    Args:
        recipe: how.
        fabric: launched; says on what.
        class_names: in the order of the logits.
        targets: (N,) class numbers of the training part.
        trained_on: what the checkpoints say of the data.
        teachers: to learn from, beside the labels.

    Raises:
        RecipeError: the recipe's model or weights cannot be had.
        DataError: too few pictures for one step.
    """

    score = "accuracy"
    train_figure = "accuracy"
    collate: Callable[[list[Any]], Any] | None = None

    def __init__(
        self,
        recipe: Recipe,
        fabric: Fabric,
        class_names: tuple[str, ...],
        targets: NDArray[np.int64],
        trained_on: dict[str, Any],
        teachers: Sequence[CarClassifier] = (),
    ) -> None:
        self._recipe = recipe
        self._class_names = class_names
        self._trained_on = trained_on
        chances = even_chances(targets) if recipe.sampling == "balanced" else None
        self.batches = EpochBatches(
            len(targets), recipe, fabric.global_rank, fabric.world_size, chances
        )
        torch.manual_seed(stream_seed(recipe.seed, 0))
        pretrained = not is_trained(recipe.weights)
        self.classifier = CarClassifier(recipe, len(class_names), pretrained=pretrained)
        self.model: nn.Module = self.classifier
        check_sizes(self.classifier, recipe)
        self._mix = BatchMixer(recipe, len(class_names))
        self._objective = Objective(recipe, len(class_names), targets, teachers).to(fabric.device)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Loss:
        """The loss of pictures (N, 3, S, S) uint8 and class numbers (N,)."""
        pictures, targets = batch
        pixels = pictures.float().contiguous(memory_format=torch.channels_last)
        mixed, goal = self._mix(pixels, targets)
        logits = model(mixed)
        right = int((logits.argmax(dim=1) == targets).sum())
        return Loss(self._objective(logits, goal, mixed), right, len(targets))

    def save(self, path: Path, model: nn.Module, epoch: int, score: float) -> None:
        """Write a checkpoint, whole or not at all."""
        assert isinstance(model, CarClassifier)
        found = Checkpoint(
            model=model,
            recipe=self._recipe,
            class_names=self._class_names,
            trained_on=self._trained_on,
            epoch=epoch,
            val_accuracy=score,
        )
        save_checkpoint(path, found)

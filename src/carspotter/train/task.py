"""What a trainer needs to know of what it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from carspotter.train.batches import EpochBatches


class Loss(NamedTuple):
    """What a batch came to.

    Attributes:
        value: mean of the pictures; differentiable.
        right: sum over the pictures of how right each was answered, up to 1.
        seen: pictures.
    """

    value: Tensor
    right: float
    seen: int


class Task(Protocol):
    """What is trained. The trainer knows neither pictures nor what is told of them.

    Attributes:
        model: with a `backbone` and a `head`; called by `loss`, it is what is differentiated.
        batches: which pictures come when.
        score: name of the figure that says how good a model is; up to 1, higher is better.
        train_figure: name of what `Loss.right` is the sum of.
        collate: makes a batch of what the data set gives; None: torch's own way.
    """

    model: nn.Module
    batches: EpochBatches
    score: str
    train_figure: str
    collate: Callable[[list[Any]], Any] | None

    def loss(self, model: nn.Module, batch: Any) -> Loss:
        """The loss of a batch; `model` is `self.model`, wrapped for several processes."""
        ...

    def save(self, path: Path, model: nn.Module, epoch: int, score: float) -> None:
        """Write a checkpoint of a model, whole or not at all."""
        ...

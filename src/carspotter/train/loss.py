"""The loss: cross-entropy, and what teachers say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from carspotter.train.model import CarClassifier
from carspotter.train.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Objective(nn.Module):
    """Cross-entropy with the labels, mixed with the divergence from the teachers' mean.

    Distillation (arXiv:1503.02531): teachers see the very pixels that the student sees
    (arXiv:2106.05237), augmentation and mixing included.

    Args:
        recipe: smoothing, class weights, the teachers' share and temperature.
        classes: how many there are.
        targets: (N,) class numbers of the training part.
        teachers: of the same classes, without gradients.
    """

    def __init__(
        self,
        recipe: Recipe,
        classes: int,
        targets: NDArray[np.int64],
        teachers: Sequence[CarClassifier] = (),
    ) -> None:
        super().__init__()
        weight = None
        if recipe.class_weights == "balanced":
            counts = np.bincount(targets, minlength=classes)
            weight = torch.from_numpy(len(targets) / (classes * counts)).float()
        self._labels = nn.CrossEntropyLoss(weight, label_smoothing=recipe.label_smoothing)
        self._share = recipe.distill_weight if teachers else 0.0
        self._temperature = recipe.distill_temperature
        self._teachers = nn.ModuleList(teachers)
        self._teachers.to(memory_format=torch.channels_last)

    def forward(self, logits: Tensor, targets: Tensor, pixels: Tensor) -> Tensor:
        """The loss in nats.

        Args:
            logits: (N, classes) of the student.
            targets: (N,) class numbers or (N, classes) probabilities.
            pixels: (N, 3, S, S) what the student saw, 0 to 255.
        """
        loss: Tensor = self._labels(logits, targets)
        if not self._share:
            return loss
        learnt = functional.log_softmax(logits.float() / self._temperature, dim=1)
        divergence = functional.kl_div(learnt, self._taught(pixels), reduction="batchmean")
        # Gradients of softened targets shrink with the square of the temperature.
        return (1 - self._share) * loss + self._share * self._temperature**2 * divergence

    @torch.no_grad()
    def _taught(self, pixels: Tensor) -> Tensor:
        """(N, classes) mean of the teachers' probabilities."""
        each = [(t(pixels).float() / self._temperature).softmax(dim=1) for t in self._teachers]
        return torch.stack(each).mean(dim=0)

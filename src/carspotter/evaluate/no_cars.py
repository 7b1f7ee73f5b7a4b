"""How well pictures without a car are told from those with a car that is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchmetrics.functional.classification import binary_auroc

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT = 0.95
"""Share of the cars that is to pass where false alarms are counted."""


@dataclass(frozen=True, slots=True)
class Apartness:
    """How far a score parts known cars from pictures without one.

    Attributes:
        auroc: chance that a car scores higher than a picture without one, 0 to 1; 0.5 is a coin.
        false_alarms: share of the pictures without a car that score no lower than the least of
            the `KEPT` highest cars, 0 to 1.
    """

    auroc: float
    false_alarms: float


@dataclass(frozen=True, slots=True)
class NoCars:
    """What a model says of pictures without a car.

    Attributes:
        pictures: how many.
        answered: share of them that is answered, instead of `unknown`; None where the model has
            no thresholds.
        confidence: of the most probable class, as a score.
        familiarity: the file's own score; None where it has none.
    """

    pictures: int
    answered: float | None
    confidence: Apartness
    familiarity: Apartness | None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def apartness(cars: NDArray[np.floating], others: NDArray[np.floating]) -> Apartness:
    """How far a score parts two kinds of pictures.

    Args:
        cars: (N,) scores of cars that are known.
        others: (M,) scores of pictures that show none.
    """
    scores = torch.from_numpy(np.concatenate([cars, others]).astype(np.float64))
    # Ranks, since torchmetrics takes what is not within 0 to 1 for logits and squashes it.
    ranks = torch.unique(scores, return_inverse=True)[1].double()
    kinds = torch.cat([torch.ones(len(cars)), torch.zeros(len(others))]).long()
    least = np.quantile(cars, 1 - KEPT, method="higher")
    return Apartness(
        auroc=float(binary_auroc(ranks / max(1.0, float(ranks.max())), kinds)),
        false_alarms=float((others >= least).mean()),
    )

"""Sets of classes that hold the right one as often as promised, by split conformal prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COVERAGES = (0.8, 0.9, 0.95, 0.99)
"""For which a model file carries thresholds."""


@dataclass(frozen=True, slots=True)
class SetFigures:
    """How sets do on labelled pictures.

    Attributes:
        coverage: share of the pictures whose set holds the right class, 0 to 1.
        mean_size: of the sets.
        single: share of the sets that hold one class alone, 0 to 1.
    """

    coverage: float
    mean_size: float
    single: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def fit_set_threshold(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], coverage: float
) -> float:
    """The least probability of a class in a set, such that sets hold the right class often enough.

    Split conformal prediction with one minus the probability as score (arXiv:2107.07511, section
    1): for pictures like those that it is fitted on, the promise is kept whatever the model. Of all
    scores this gives the smallest sets (arXiv:1609.00451).

    Args:
        probabilities: (N, classes), calibrated, of pictures that the model was not trained on.
        targets: (N,) class numbers.
        coverage: share of the sets that are to hold the right class, above 0 and below 1.

    Returns:
        0 where there are too few pictures to promise anything but the set of all classes.
    """
    right = np.sort(probabilities[np.arange(len(targets)), targets])
    place = int(np.floor((len(right) + 1) * (1 - coverage) + 1e-9))
    return float(right[place - 1]) if place >= 1 else 0.0


def measure_sets(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], threshold: float
) -> SetFigures:
    """Measure sets (see `Decider.label_set`) on (N, classes) probabilities, (N,) class numbers."""
    inside = probabilities >= threshold
    inside[np.arange(len(targets)), probabilities.argmax(axis=1)] = True
    size = inside.sum(axis=1)
    return SetFigures(
        coverage=float(inside[np.arange(len(targets)), targets].mean()),
        mean_size=float(size.mean()),
        single=float((size == 1).mean()),
    )

"""What makes a confidence mean what it says: the temperature, and the thresholds of the levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

from carspotter.decide import softmax
from carspotter.names import LEVELS, CarName, Level, group_classes, sum_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROMISE = 0.97
"""Share of answers that are to be right, at whatever level they are given."""


def negative_log_likelihood(
    logits: NDArray[np.float32], targets: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Mean of -log p(right class), in nats, of logits (N, classes) and class numbers (N,)."""
    right = softmax(logits, temperature)[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(right, 1e-300)).mean())


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """The temperature of least negative log-likelihood (arXiv:1706.04599), between 0.05 and 20.

    Args:
        logits: (N, classes) of pictures that the model was not trained on.
        targets: (N,) class numbers.
    """
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(logits, targets, float(np.exp(log_t))),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def fit_thresholds(
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    names: Sequence[CarName],
    promise: float = PROMISE,
) -> dict[Level, float]:
    """The least confidence of each level at which its answers keep the promise.

    From the finest level on: as many pictures as possible are answered there, such that the share
    of right answers among them is at least `promise`; the rest goes to the next coarser level.

    Args:
        probabilities: (N, classes), calibrated, of pictures that the model was not trained on.
        targets: (N,) class numbers.
        names: the classes.
        promise: share of right answers, 0 to 1.

    Returns:
        By level; 1.0 where no threshold keeps the promise.
    """
    left = np.arange(len(targets))
    thresholds: dict[Level, float] = {}
    for level in LEVELS:
        _, groups = group_classes(names, level)
        sums = sum_groups(probabilities[left], groups)
        confidence = np.minimum(1.0, sums.max(axis=1, initial=0.0))
        right = sums.argmax(axis=1) == groups[targets[left]]
        order = np.argsort(-confidence, kind="stable")
        share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        # Pictures of equal confidence are answered together: a threshold cannot part them.
        ends = np.append(np.diff(confidence[order]) < 0, True)[: len(order)]
        keeping = np.flatnonzero((share >= promise) & ends)
        thresholds[level] = float(confidence[order[keeping[-1]]]) if len(keeping) else 1.0
        left = left[confidence < thresholds[level]]
    return thresholds

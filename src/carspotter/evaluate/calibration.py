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

_MOST_STEPS = 1000  # thresholds that are tried for each level


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
    """The least probabilities of an answer with which the answers, all together, keep the promise.

    There is one for exact names and models, and one for makes that is no higher: where neither the
    exact name nor the model is sure, the make often is sure enough. An answer is the finest one
    that is so probable. Of the pairs with which the share of right answers, each at the level it
    is given at, is at least `promise`, the one is chosen with which most is answered, an exact
    answer counting twice (selective classification, arXiv:1705.08500).

    Args:
        probabilities: (N, classes), calibrated, of pictures that the model was not trained on.
        targets: (N,) class numbers.
        names: the classes.
        promise: share of right answers, 0 to 1.

    Returns:
        By level; 1.0 where nothing keeps the promise.
    """
    best = [_best_at(level, probabilities, targets, names) for level in LEVELS]
    confidence = np.stack([sure for sure, _ in best])
    right = np.stack([is_right for _, is_right in best])
    steps = np.unique(confidence[confidence > 0])
    if len(steps) > _MOST_STEPS:
        steps = np.unique(np.quantile(steps, np.linspace(0, 1, _MOST_STEPS), method="lower"))
    found, most = dict.fromkeys(LEVELS, 1.0), 0
    for fine in steps:
        lower = steps[steps <= fine]
        worth = _worth(confidence, right, fine, lower, promise)
        if worth.max() > most:
            most = int(worth.max())
            coarse = float(lower[worth.argmax()])
            found = {"exact": float(fine), "model": float(fine), "make": coarse}
    return found


def _worth(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    fine: float,
    lower: NDArray[np.float64],
    promise: float,
) -> NDArray[np.int64]:
    """What thresholds are worth: answers, and exact ones twice; 0 where the promise is broken.

    Args:
        confidence: (levels, N) probability of the best name at each level, the finest first.
        right: (levels, N) whether it is right.
        fine: threshold of exact names and models.
        lower: (T,) thresholds of makes.
        promise: share of right answers.

    Returns:
        (T,)
    """
    reached = confidence[:-1] >= fine
    answered = reached.any(axis=0)
    sure = right[reached.argmax(axis=0), np.arange(reached.shape[1])][answered].sum()
    makes, right_makes = confidence[-1][~answered], right[-1][~answered]
    order = np.argsort(-makes, kind="stable")
    also = np.searchsorted(-makes[order], -lower, side="right")
    good = sure + np.concatenate([[0], right_makes[order].cumsum()])[also]
    count = answered.sum() + also
    worth: NDArray[np.int64] = np.where(good >= promise * count - 1e-9, count + reached[0].sum(), 0)
    return worth


def _best_at(
    level: Level,
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    names: Sequence[CarName],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N,) probability of the most probable name at a level, and (N,) whether it is right.

    The probability is 0 where the name has no such level.
    """
    _, groups = group_classes(names, level)
    sums = sum_groups(probabilities, groups)
    found = sums.argmax(axis=1)
    _, first = np.unique(groups, return_index=True)
    has = np.array([names[k].has(level) for k in first])
    confidence = np.where(has[found], np.minimum(1.0, sums.max(axis=1)), 0.0)
    return confidence, found == groups[targets]

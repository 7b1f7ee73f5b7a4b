"""How far figures may be off: bootstrap intervals over pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from carspotter.evaluate.metrics import FIGURES, LevelGuesses, figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

Interval: TypeAlias = tuple[float, float]
"""Lower and upper bound."""

RESAMPLES = 1000
LEVEL = 0.95
"""Share of the resamples whose figure lies within an interval."""


def resamples(pictures: int, count: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Samples of as many pictures as there are, drawn with replacement.

    Yields:
        (pictures,) how often each was drawn; the same samples for the same numbers.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)


def percentile_interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """The percentile interval (Efron 1979) of a figure's values in the resamples."""
    edge = 50 * (1 - LEVEL)
    low, high = np.percentile(np.asarray(values), [edge, 100 - edge])
    return float(low), float(high)


def interval_of(
    statistic: Callable[[NDArray[np.int64]], float], pictures: int, count: int = RESAMPLES
) -> Interval:
    """The interval of one statistic, which takes how often each picture counts."""
    return percentile_interval([statistic(counts) for counts in resamples(pictures, count)])


def level_intervals(found: LevelGuesses, count: int = RESAMPLES) -> dict[str, Interval]:
    """The interval of each of the figures of a level."""
    rows = [figures(found, counts) for counts in resamples(len(found.truth), count)]
    return {name: percentile_interval([row[name] for row in rows]) for name in FIGURES}


def share_intervals(
    right: NDArray[np.bool_], groups: NDArray[np.int64], number: int, count: int = RESAMPLES
) -> list[Interval | None]:
    """The interval of the share of right pictures in each group.

    Args:
        right: (N,).
        groups: (N,) the group of each picture, 0 to `number` - 1.
        number: of groups.
        count: of resamples.

    Returns:
        For each group; None for one without a picture. A resample without a picture of a group
        says nothing of it.
    """
    drawn = np.empty((count, number))
    hits = np.empty((count, number))
    for row, counts in enumerate(resamples(len(right), count)):
        drawn[row] = np.bincount(groups, counts, number)
        hits[row] = np.bincount(groups, counts * right, number)
    return [
        percentile_interval(hits[there, group] / drawn[there, group]) if there.any() else None
        for group, there in enumerate((drawn > 0).T)
    ]

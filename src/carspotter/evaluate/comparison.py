"""Two models on the same pictures: is the difference real, and where does it lie?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest

from carspotter.evaluate.bootstrap import Interval, interval_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Difference:
    """What the second model gains over the first.

    Attributes:
        both_right: pictures that both name rightly.
        first_only: pictures that only the first names rightly.
        second_only: pictures that only the second names rightly.
        both_wrong: pictures that neither does.
        gain: accuracy of the second minus that of the first, -1 to 1.
        interval: 95 % bootstrap interval of the gain, over pictures.
        p_value: of the exact McNemar test (McNemar 1947): how probable a difference at least this
            large is if both models are equally good.
    """

    both_right: int
    first_only: int
    second_only: int
    both_wrong: int
    gain: float
    interval: Interval
    p_value: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """What the second model gains over the first on the pictures of one class.

    Attributes:
        name: the class.
        pictures: how many.
        first_only: pictures that only the first names rightly.
        second_only: pictures that only the second names rightly.
    """

    name: str
    pictures: int
    first_only: int
    second_only: int

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Compare which of the same pictures (N,) two models name rightly."""
    first_only, second_only = int((first & ~second).sum()), int((~first & second).sum())
    change = second.astype(np.float64) - first
    unequal = first_only + second_only
    return Difference(
        both_right=int((first & second).sum()),
        first_only=first_only,
        second_only=second_only,
        both_wrong=int((~first & ~second).sum()),
        gain=float(change.mean()),
        interval=interval_of(lambda counts: float(counts @ change) / len(change), len(change)),
        p_value=float(binomtest(second_only, unequal).pvalue) if unequal else 1.0,
    )


def class_differences(
    first: NDArray[np.bool_], second: NDArray[np.bool_], labels: Sequence[str]
) -> tuple[ClassDifference, ...]:
    """Compare class by class, the largest loss first; classes where nothing differs are left out.

    Args:
        first: (N,) which pictures the first model names rightly.
        second: (N,) which the second does.
        labels: of the pictures.
    """
    of_picture = np.asarray(labels)
    found = []
    for name in np.unique(of_picture):
        here = of_picture == name
        lost, won = int((first & ~second)[here].sum()), int((~first & second)[here].sum())
        if lost or won:
            found.append(ClassDifference(str(name), int(here.sum()), lost, won))
    return tuple(sorted(found, key=lambda c: (c.second_only - c.first_only, c.name)))

"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carspotter.names import split_name

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Two classes that are taken for each other.

    Attributes:
        classes: their numbers, the one that is mistaken more often first.
        mistaken: how many pictures of the first are taken for the second, and the other way.
    """

    classes: tuple[int, int]
    mistaken: tuple[int, int]


def confusion_matrix(
    guesses: NDArray[np.int64], targets: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """(classes, classes): how many pictures of the row's class are taken for the column's."""
    places = targets * classes + guesses
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def most_confused(matrix: NDArray[np.int64], count: int) -> list[ConfusedPair]:
    """The pairs of classes that are mistaken for each other most often, worst first."""
    both = np.triu(matrix + matrix.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:count]
    found = []
    for place in order:
        one, other = divmod(int(place), len(matrix))
        if not both[one, other]:
            break
        if matrix[one, other] < matrix[other, one]:
            one, other = other, one
        found.append(ConfusedPair((one, other), (int(matrix[one, other]), int(matrix[other, one]))))
    return found


def by_make(class_names: Sequence[str]) -> list[int]:
    """Class numbers in the order of make, model, body and year: what is alike stands together."""
    split = [split_name(name) for name in class_names]
    return sorted(
        range(len(split)),
        key=lambda k: (
            (split[k].make or split[k].label).casefold(),
            (split[k].model or "").casefold(),
            split[k].body or "",
            split[k].year or 0,
        ),
    )

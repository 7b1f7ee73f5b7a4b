"""A car's name in its four parts: make, model, body (may be missing) and year.

The 196 Stanford Cars names are split by a table that was checked by hand, since no rule splits
"AM General Hummer", "Ram C/V Cargo Van Minivan" and "smart fortwo" alike.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Level: TypeAlias = Literal["exact", "model", "make"]
"""How fine a name is: `exact` has all four parts, `model` only make and model, `make` the make."""

LEVELS: tuple[Level, ...] = ("exact", "model", "make")
"""From the finest to the coarsest."""


@dataclass(frozen=True, slots=True)
class CarName:
    """One class name and its parts. A name that no table splits has only its label."""

    label: str
    make: str | None = None
    model: str | None = None
    body: str | None = None
    year: int | None = None

    def at(self, level: Level) -> str:
        """The name at a level: "BMW M3 Coupe 2012", "BMW M3" or "BMW".

        A name that is not split, or lacks the part, is kept whole: it forms a group of its own.
        """
        if level == "make" and self.make is not None:
            return self.make
        if level == "model" and self.make is not None and self.model is not None:
            return f"{self.make} {self.model}"
        return self.label


@functools.cache
def stanford_names() -> Mapping[str, CarName]:
    """The 196 Stanford Cars names by label, in the order of the official devkit."""
    text = resources.files("carspotter").joinpath("stanford_cars.csv").read_text(encoding="utf-8")
    return {
        row["label"]: CarName(
            label=row["label"],
            make=row["make"],
            model=row["model"],
            body=row["body"] or None,
            year=int(row["year"]),
        )
        for row in csv.DictReader(text.splitlines())
    }


@functools.cache
def _stanford_by_folder() -> Mapping[str, CarName]:
    return {_folded(label): name for label, name in stanford_names().items()}


def split_name(label: str) -> CarName:
    """Split a class name by the table; a name that is not in it is kept whole.

    A label that was bent to fit a folder ("Ram C-V", "Ram C_V", "Ram CV") finds its entry too.
    """
    found = stanford_names().get(label) or _stanford_by_folder().get(_folded(label))
    return found if found is not None else CarName(label)


def _folded(label: str) -> str:
    """Letters and digits alone: what survives when a name becomes a folder."""
    return re.sub(r"[^0-9a-z]", "", label.casefold())


def group_classes(
    names: Sequence[CarName], level: Level
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Group classes by their name at a level.

    Returns:
        The group names in order of first appearance, and (classes,) the group of each class.
    """
    at_level = [name.at(level) for name in names]
    place = {group: index for index, group in enumerate(dict.fromkeys(at_level))}
    return tuple(place), np.array([place[group] for group in at_level], np.int64)


def sum_groups(
    probabilities: NDArray[np.float64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N, groups) probabilities of groups: the sums over the classes of each, of (N, classes)."""
    total = np.zeros((len(probabilities), int(groups.max()) + 1))
    np.add.at(total.T, groups, probabilities.T)
    return total

"""A car's name in its four parts: make, model, body (may be missing) and year.

The 196 Stanford Cars names are split by a table that was checked by hand, since no rule splits
"AM General Hummer", "Ram C/V Cargo Van Minivan" and "smart fortwo" alike.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from carspotter.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Level: TypeAlias = Literal["exact", "model", "make"]
"""How fine a name is: `exact` has all four parts, `model` only make and model, `make` the make."""

LEVELS: tuple[Level, ...] = ("exact", "model", "make")
"""From the finest to the coarsest."""

FIRST_YEAR, LAST_YEAR = 1885, 9999
"""Of cars: from the first one's to the last that has four digits."""


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

    def has(self, level: Level) -> bool:
        """Whether the name can be given at a level: one that no table splits has only its label."""
        if level == "exact":
            return True
        return self.make is not None and (level == "make" or self.model is not None)


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
    return {folded(label): name for label, name in stanford_names().items()}


def split_name(label: str) -> CarName:
    """Split a class name by the table; a name that is not in it is kept whole.

    A label that was bent to fit a folder ("Ram C-V", "Ram C_V", "Ram CV") finds its entry too.
    """
    found = stanford_names().get(label) or _stanford_by_folder().get(folded(label))
    return found if found is not None else CarName(label)


def class_name(label: str) -> CarName:
    """A class of a data set, split by the table; its label stays as the data set spells it."""
    return replace(split_name(label), label=label)


def folded(label: str) -> str:
    """Letters and digits alone: what survives when a name becomes a folder."""
    return "".join(letter for letter in label.casefold() if letter.isalnum())


def name_of(
    label: str, *, make: str | None = None, body: str | None = None, year: int | None = None
) -> CarName:
    """A name of the user's own: split by the parts that are given, or by the table if it is there.

    The label begins with the make, ends with the year, and has the body before that; what is left
    is the model.

    Args:
        label: the whole name; spaces at its ends are dropped.
        make: its make; a name that is to be split needs one.
        body: its body style, if it has one.
        year: its year, if it has one.

    Raises:
        UsageError: an empty name, one of several lines, a year of no car, or parts that are not
            where they belong.
    """
    label = label.strip()
    if not folded(label) or not label.isprintable():
        raise UsageError(f"{label!r} is no name of a car: it must be one line of text")
    if make is None:
        if body is not None or year is not None:
            raise UsageError(f"{label}: a name with a body or a year needs its --make too")
        return split_name(label)
    if year is not None and not FIRST_YEAR <= year <= LAST_YEAR:
        raise UsageError(f"{label}: the year {year} must be from {FIRST_YEAR} to {LAST_YEAR}")
    rest = label.split()
    parts = [
        make.split(),
        [] if body is None else body.split(),
        [] if year is None else [str(year)],
    ]
    start, end = len(parts[0]), len(rest) - len(parts[1]) - len(parts[2])
    found = [
        rest[:start],
        rest[max(start, end) : len(rest) - len(parts[2])],
        rest[len(rest) - len(parts[2]) :],
    ]
    if not make.strip() or start >= end or [_lower(p) for p in found] != [_lower(p) for p in parts]:
        wanted = " ".join(filter(None, (make, "MODEL", body, str(year or ""))))
        raise UsageError(f"{label}: does not read {wanted!r}, as its parts say")
    body = " ".join(found[1]) or None
    return CarName(label, " ".join(found[0]), " ".join(rest[start:end]), body, year)


def _lower(words: Sequence[str]) -> list[str]:
    return [word.casefold() for word in words]


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

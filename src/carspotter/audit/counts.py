"""How many pictures each class has, split by split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from carspotter.data import DataSet, Picture

FEW = 10
"""Pictures of a class below which it is named."""

UNEVEN = 10
"""Times that the largest class is the smallest, from which on it is said."""

_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class SplitCounts:
    """The classes of one split; pictures that cannot be read do not count.

    Attributes:
        split: "train", "val" or "test".
        pictures: all that can be read.
        smallest: pictures of the smallest class that has any.
        largest: pictures of the largest class.
        none: classes without a picture.
        few: classes with less than `FEW` pictures, and how many they have.
        per_class: pictures of each class, 0 among them.
    """

    split: str
    pictures: int
    smallest: int
    largest: int
    none: tuple[str, ...]
    few: dict[str, int]
    per_class: dict[str, int]

    @property
    def imbalance(self) -> float:
        """The largest class as a multiple of the smallest that has any."""
        return self.largest / self.smallest if self.smallest else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "imbalance": round(self.imbalance, 2)}


def count_classes(data: DataSet, readable: Sequence[Picture]) -> tuple[SplitCounts, ...]:
    """Count the classes of each split that the data set has."""
    splits = {picture.split for picture in data.pictures}
    return tuple(
        _count(split, data.class_names, [p for p in readable if p.split == split])
        for split in sorted(splits, key=_ORDER.index)
    )


def _count(split: str, class_names: Sequence[str], pictures: Sequence[Picture]) -> SplitCounts:
    counted = Counter(picture.label for picture in pictures)
    per_class = {name: counted[name] for name in class_names}
    there = {name: number for name, number in per_class.items() if number}
    return SplitCounts(
        split,
        len(pictures),
        min(there.values(), default=0),
        max(there.values(), default=0),
        tuple(name for name in class_names if not counted[name]),
        {name: number for name, number in there.items() if number < FEW},
        per_class,
    )

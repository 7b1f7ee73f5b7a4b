"""The whole check of a data set, and check.json."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from carspotter.audit.counts import UNEVEN, SplitCounts, count_classes
from carspotter.audit.duplicates import Duplicates, find_duplicates
from carspotter.audit.scan import Seen, scan
from carspotter.audit.suspects import LabelCheck, check_predictions, find_suspects
from carspotter.data import DataSet, Picture
from carspotter.data.index import fingerprint
from carspotter.errors import PhotoError

FORMAT_VERSION = 1

TINY = 64
"""Shorter side, in pixels, below which a picture is tiny."""

EXTREME = 3.0
"""Longer side as a multiple of the shorter one, above which the aspect ratio is extreme."""

_USUAL = 0.9
"""Share of the pictures from which on their common size is the usual one, and others are odd."""

FAULTS = ("tiny", "extreme_aspect", "grey", "odd_size", "box_outside")
"""What is said of single pictures that can be read."""

Counting: TypeAlias = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        data: what was checked.
        broken: why pictures cannot be used, by key.
        sizes: width and height of the others in pixels, by key.
        usual_size: of nine pictures in ten or more; None where there is no such size.
        faults: keys of pictures, for each of `FAULTS`.
        duplicates: copies.
        counts: the classes of each split.
        labels: what predictions say of the labels; None without predictions.
        seconds: how long it took.
    """

    data: DataSet
    broken: Mapping[str, PhotoError]
    sizes: Mapping[str, tuple[int, int]]
    usual_size: tuple[int, int] | None
    faults: Mapping[str, tuple[str, ...]]
    duplicates: Duplicates
    counts: tuple[SplitCounts, ...]
    labels: LabelCheck | None
    seconds: float

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where each picture stands in the data set."""
        return {picture.key: place for place, picture in enumerate(self.data.pictures)}

    def summary(self) -> dict[str, int]:
        """How often each thing was found."""
        groups = self.duplicates.groups
        return {
            "broken": len(self.broken),
            **{fault: len(keys) for fault, keys in self.faults.items()},
            "duplicates_exact": sum(group.kind == "exact" for group in groups),
            "duplicates_near": sum(group.kind == "near" for group in groups),
            "contradictory": sum(group.contradictory for group in groups),
            "leaks": sum(group.leak for group in groups),
            "classes_without_picture": sum(len(split.none) for split in self.counts),
            "classes_with_few": sum(len(split.few) for split in self.counts),
            "uneven_splits": sum(split.imbalance >= UNEVEN for split in self.counts),
            "label_suspects": len(self.labels.suspects) if self.labels else 0,
        }

    def to_dict(self) -> dict[str, Any]:
        """The content of check.json."""
        return {
            "format_version": FORMAT_VERSION,
            "data": {
                "root": str(self.data.root),
                "layout": self.data.layout,
                "pictures": len(self.data.pictures),
                "classes": len(self.data.class_names),
                "fingerprint": fingerprint(self.data.pictures),
                "notes": list(self.data.notes),
            },
            "summary": self.summary(),
            "splits": [split.to_dict() for split in self.counts],
            "broken": [
                {"picture": key, "code": error.code, "reason": str(error)}
                for key, error in self.broken.items()
            ],
            "usual_size": self.usual_size,
            "faults": {
                fault: [self._sized(key) for key in keys] for fault, keys in self.faults.items()
            },
            "duplicates": [group.to_dict() for group in self.duplicates.groups],
            "labels": self.labels.to_dict() if self.labels else None,
            "seconds": round(self.seconds, 1),
        }

    def _sized(self, key: str) -> dict[str, Any]:
        width, height = self.sizes[key]
        return {"picture": key, "width": width, "height": height}


def check_data_set(data: DataSet, predictions: Path | None, counting: Counting) -> Check:
    """Look at every picture, and compare them all.

    Args:
        data: what to check; a picture that cannot be read is a finding, not an error.
        predictions: a predictions.parquet of its pictures, by which labels are judged.
        counting: makes a progress bar for what it is told.

    Raises:
        DataError: the predictions cannot be read, or are of another data set.
    """
    started = time.monotonic()
    recorded = None if predictions is None else check_predictions(predictions, data)
    labels = (
        find_suspects(predictions, recorded, data)
        if predictions is not None and recorded is not None
        else None
    )
    broken: dict[str, PhotoError] = {}
    pictures: list[Picture] = []
    seen: list[Seen] = []
    with counting("looking at pictures") as progress:
        for picture, one in zip(data.pictures, scan(data.pictures, progress), strict=True):
            if isinstance(one, PhotoError):
                broken[picture.key] = one
            else:
                pictures.append(picture)
                seen.append(one)
    with counting("comparing them") as progress:
        duplicates = find_duplicates(pictures, seen, progress)
    sizes = {p.key: (one.width, one.height) for p, one in zip(pictures, seen, strict=True)}
    usual = _usual_size(list(sizes.values()))
    return Check(
        data,
        broken,
        sizes,
        usual,
        _faults(pictures, seen, usual),
        duplicates,
        count_classes(data, pictures),
        labels,
        time.monotonic() - started,
    )


def _usual_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    if not sizes:
        return None
    size, number = Counter(sizes).most_common(1)[0]
    return size if number >= _USUAL * len(sizes) else None


def _faults(
    pictures: Sequence[Picture], seen: Sequence[Seen], usual: tuple[int, int] | None
) -> dict[str, tuple[str, ...]]:
    def keys(is_so: Callable[[Seen], bool]) -> tuple[str, ...]:
        return tuple(p.key for p, one in zip(pictures, seen, strict=True) if is_so(one))

    return {
        "tiny": keys(lambda s: min(s.width, s.height) < TINY),
        "extreme_aspect": keys(lambda s: max(s.width, s.height) > EXTREME * min(s.width, s.height)),
        "grey": keys(lambda s: s.grey),
        "odd_size": keys(lambda s: usual is not None and (s.width, s.height) != usual),
        "box_outside": keys(lambda s: s.box_outside),
    }

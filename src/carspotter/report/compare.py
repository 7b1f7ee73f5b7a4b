"""Several evaluations of the same pictures, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carspotter.errors import DataError, UsageError
from carspotter.evaluate.comparison import (
    ClassDifference,
    Difference,
    class_differences,
    difference,
)
from carspotter.evaluate.metrics import Metrics, guesses_at, level_metrics
from carspotter.evaluate.recorded import Recorded, read_recorded
from carspotter.evaluate.reliability import reliability
from carspotter.names import LEVELS
from carspotter.pages import render

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Side:
    """One of the evaluations.

    Attributes:
        name: of the model; with its folder's name where two are called alike.
        report: the folder.
        metrics: of each level.
        ece: expected calibration error, 0 to 1.
        right: (N,) which pictures' most probable class is the right one, in the order of the first
            evaluation.
        about: the model and the data.
    """

    name: str
    report: Path
    metrics: tuple[Metrics, ...]
    ece: float
    right: NDArray[np.bool_]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Pairing:
    """One of the further evaluations against the first."""

    first: Side
    second: Side
    total: Difference
    classes: tuple[ClassDifference, ...]


@dataclass(frozen=True)
class Comparison:
    """All evaluations, and each of the further ones against the first.

    Attributes:
        pictures: how many all of them looked at.
        notes: in what they differ besides the model.
        sides: the evaluations.
        pairings: the first with each of the others.
    """

    pictures: int
    notes: tuple[str, ...]
    sides: tuple[Side, ...]
    pairings: tuple[Pairing, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "pictures": self.pictures,
            "notes": list(self.notes),
            "models": [
                {
                    "name": side.name,
                    "report": str(side.report),
                    **side.about,
                    "metrics": {m.level: m.to_dict() for m in side.metrics},
                    "ece": side.ece,
                }
                for side in self.sides
            ],
            "pairs": [
                {
                    "first": pair.first.name,
                    "second": pair.second.name,
                    **pair.total.to_dict(),
                    "classes": [one.to_dict() for one in pair.classes],
                }
                for pair in self.pairings
            ],
        }


def compare(reports: Sequence[Path]) -> Comparison:
    """Compare evaluations of the same pictures.

    Args:
        reports: two or more folders that `carspotter evaluate --report` wrote.

    Raises:
        UsageError: fewer than two, or one of them twice.
        DataError: one cannot be read, or they are not of the same pictures with the same labels.
    """
    if len(reports) < 2:
        raise UsageError("compare needs two reports or more")
    if len({report.resolve() for report in reports}) < len(reports):
        raise UsageError("compare: one report is given twice")
    read = [read_recorded(report) for report in reports]
    for report, other in zip(reports[1:], read[1:], strict=True):
        _need_same_pictures(reports[0], read[0], report, other)
    names = _names(reports, read)
    sides = tuple(
        _side(name, report, found, read[0])
        for name, report, found in zip(names, reports, read, strict=True)
    )
    labels = read[0].labels
    return Comparison(
        pictures=len(labels),
        notes=_notes(sides),
        sides=sides,
        pairings=tuple(
            Pairing(
                sides[0],
                side,
                difference(sides[0].right, side.right),
                class_differences(sides[0].right, side.right, labels),
            )
            for side in sides[1:]
        ),
    )


def _need_same_pictures(one: Path, first: Recorded, two: Path, second: Recorded) -> None:
    labels = dict(zip(first.pictures, first.labels, strict=True))
    others = dict(zip(second.pictures, second.labels, strict=True))
    if labels == others:
        return
    missing = sorted(labels.keys() ^ others.keys())
    if missing:
        where = one if missing[0] in labels else two
        raise DataError(
            f"{one} and {two} are not of the same pictures: {len(missing)} are in one of them "
            f"alone, {missing[0]} only in {where}; evaluate both on the same data and split"
        )
    key = next(key for key in labels if labels[key] != others[key])
    raise DataError(
        f"{one} and {two} do not have the same labels: {key} is {labels[key]!r} in one and "
        f"{others[key]!r} in the other; evaluate both on the same data"
    )


def _names(reports: Sequence[Path], read: Sequence[Recorded]) -> list[str]:
    names = [str(found.about.get("model", {}).get("name", "model")) for found in read]
    return [
        f"{name} ({report})" if names.count(name) > 1 else name
        for name, report in zip(names, reports, strict=True)
    ]


def _side(name: str, report: Path, found: Recorded, first: Recorded) -> Side:
    place = {key: row for row, key in enumerate(found.pictures)}
    rows = np.array([place[key] for key in first.pictures])
    probabilities, targets = found.probabilities[rows], found.targets()[rows]
    levels = [guesses_at(level, probabilities, targets, found.class_names) for level in LEVELS]
    return Side(
        name=name,
        report=report,
        metrics=tuple(map(level_metrics, levels)),
        ece=reliability(probabilities, targets).ece,
        right=levels[0].guesses == targets,
        about=found.about,
    )


def _notes(sides: Sequence[Side]) -> tuple[str, ...]:
    crops = dict.fromkeys(str(side.about.get("data", {}).get("crop")) for side in sides)
    if len(crops) == 1:
        return ()
    return (f"the pictures were not looked at alike: {', '.join(crops)}",)


def page(found: Comparison) -> str:
    """The comparison as one HTML page that opens without a network."""
    return render(
        "compare.html.j2",
        title=" / ".join(side.name for side in found.sides),
        found=found,
        level_names={"exact": "exact", "model": "make and model", "make": "make"},
    )

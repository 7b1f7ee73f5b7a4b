"""Accuracy, precision, recall and F1, at exact, model and make level, by torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from carspotter.decide import softmax
from carspotter.names import LEVELS, Level, group_classes, split_name, sum_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one level, each from 0 to 1.

    Attributes:
        level: "exact", "model" or "make".
        classes: how many names there are at this level.
        top1: share of pictures whose most probable name is right.
        top5: share of pictures whose right name is among the five most probable.
        macro_precision: mean over names of TP / (TP + FP).
        macro_recall: mean over names of TP / (TP + FN).
        macro_f1: mean over names of the harmonic mean of both.
    """

    level: Level
    classes: int
    top1: float
    top5: float
    macro_precision: float
    macro_recall: float
    macro_f1: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GroupMetrics:
    """Figures of the pictures of one make or of one body style.

    Attributes:
        name: the make or body; empty where the names do not state it.
        classes: how many have it.
        pictures: how many were measured.
        exact: share of pictures whose most probable class is right, 0 to 1.
        part: share of pictures whose most probable class has the right make or body, 0 to 1.
    """

    name: str
    classes: int
    pictures: int
    exact: float
    part: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    logits: NDArray[np.float32], targets: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[Metrics, ...]:
    """Measure predictions at every level; a make's probability is the sum over its classes.

    Args:
        logits: (N, classes).
        targets: (N,) class numbers.
        class_names: in the order of the logits.

    Returns:
        One for each of `names.LEVELS`.
    """
    probabilities = softmax(logits)
    names = [split_name(name) for name in class_names]
    found = []
    for level in LEVELS:
        at_level, groups = group_classes(names, level)
        figures = _collection(len(at_level))(
            torch.from_numpy(sum_groups(probabilities, groups)), torch.from_numpy(groups[targets])
        )
        found.append(
            Metrics(level, len(at_level), **{key: float(value) for key, value in figures.items()})
        )
    return tuple(found)


def measure_by(
    part: Literal["make", "body"],
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    class_names: Sequence[str],
) -> tuple[GroupMetrics, ...]:
    """Measure predictions make by make, or body style by body style.

    Args:
        part: of the name, by which the pictures are grouped.
        logits: (N, classes).
        targets: (N,) class numbers.
        class_names: in the order of the logits.

    Returns:
        By falling number of pictures; groups without a picture are left out.
    """
    of_class = np.array([getattr(split_name(name), part) or "" for name in class_names])
    guesses = logits.argmax(axis=1)
    found = []
    for group in np.unique(of_class[targets]):
        here = of_class[targets] == group
        found.append(
            GroupMetrics(
                name=str(group),
                classes=int((of_class == group).sum()),
                pictures=int(here.sum()),
                exact=float((guesses[here] == targets[here]).mean()),
                part=float((of_class[guesses[here]] == group).mean()),
            )
        )
    return tuple(sorted(found, key=lambda group: (-group.pictures, group.name)))


def _collection(classes: int) -> MetricCollection:
    return MetricCollection(
        {
            "top1": MulticlassAccuracy(classes, average="micro"),
            "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
            "macro_precision": MulticlassPrecision(classes, average="macro"),
            "macro_recall": MulticlassRecall(classes, average="macro"),
            "macro_f1": MulticlassF1Score(classes, average="macro"),
        },
        compute_groups=False,
    )

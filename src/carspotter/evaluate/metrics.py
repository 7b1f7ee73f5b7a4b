"""Accuracy, precision, recall and F1, at exact, model and make level, and group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from carspotter.decide import softmax
from carspotter.names import LEVELS, Level, class_name, group_classes, sum_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURES = (
    "top1",
    "top5",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
)
"""The figures of a level, as `Metrics` names them."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of one level, each from 0 to 1.

    Macro: the mean over names that occur among right or given answers. Weighted: the mean over
    names, each counting as often as it is right.

    Attributes:
        level: "exact", "model" or "make".
        classes: how many names there are at this level.
        top1: share of pictures whose most probable name is right.
        top5: share of pictures whose right name is among the five most probable.
        macro_precision: mean over names of TP / (TP + FP).
        macro_recall: mean over names of TP / (TP + FN).
        macro_f1: mean over names of the harmonic mean of both.
        weighted_precision: weighted mean of TP / (TP + FP).
        weighted_recall: weighted mean of TP / (TP + FN); equal to `top1`.
        weighted_f1: weighted mean of the harmonic mean of both.
    """

    level: Level
    classes: int
    top1: float
    top5: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float

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


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Figures of one class, each from 0 to 1; 0 where there is nothing to divide by.

    Attributes:
        name: the class.
        pictures: how many show it.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        f1: the harmonic mean of both.
    """

    name: str
    pictures: int
    precision: float
    recall: float
    f1: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class LevelGuesses:
    """Right and given answers at a level.

    Attributes:
        level: "exact", "model" or "make".
        names: at this level.
        truth: (N,) number of the right name.
        guesses: (N,) number of the most probable name.
        ranks: (N,) how many names are more probable than the right one.
    """

    level: Level
    names: tuple[str, ...]
    truth: NDArray[np.int64]
    guesses: NDArray[np.int64]
    ranks: NDArray[np.int64]


def guesses_at(
    level: Level,
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    class_names: Sequence[str],
) -> LevelGuesses:
    """Answers at a level, from (N, classes) probabilities; a group's is the sum over its classes.

    Of equally probable names the first one is more probable.
    """
    names, groups = group_classes([class_name(name) for name in class_names], level)
    sums = sum_groups(probabilities, groups)
    truth = groups[targets]
    right = sums[np.arange(len(truth)), truth][:, None]
    before = np.arange(len(names))[None] < truth[:, None]
    ranks = ((sums > right) | ((sums == right) & before)).sum(axis=1)
    return LevelGuesses(level, names, truth, sums.argmax(axis=1), ranks)


def figures(found: LevelGuesses, counts: NDArray[np.int64] | None = None) -> dict[str, float]:
    """The `FIGURES` of answers.

    Args:
        found: the answers.
        counts: (N,) how often each picture counts; None: once.
    """
    weights = np.ones(len(found.truth)) if counts is None else counts.astype(np.float64)
    right = found.guesses == found.truth
    precision, recall, f1, support, seen = _per_name(found, weights)
    total = weights.sum()
    return {
        "top1": float(weights[right].sum() / total),
        "top5": float(weights[found.ranks < 5].sum() / total),
        **{
            f"{mean}_{name}": float(np.average(values, weights=shares))
            for mean, shares in (("macro", seen), ("weighted", support))
            for name, values in (("precision", precision), ("recall", recall), ("f1", f1))
        },
    }


def _per_name(found: LevelGuesses, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Precision, recall, F1, pictures of each name, and 1 where it occurs at all, else 0."""
    count = len(found.names)
    right = found.guesses == found.truth
    hits = np.bincount(found.truth, weights * right, count).astype(np.float64)
    support = np.bincount(found.truth, weights, count).astype(np.float64)
    given = np.bincount(found.guesses, weights, count).astype(np.float64)
    precision = hits / np.maximum(given, 1)
    recall = hits / np.maximum(support, 1)
    # 2 PR / (P + R), which is 2 TP / (2 TP + FP + FN) and needs no second case.
    f1 = 2 * hits / np.maximum(given + support, 1)
    return precision, recall, f1, support, (given + support > 0).astype(np.float64)


def measure(
    logits: NDArray[np.float32],
    targets: NDArray[np.int64],
    class_names: Sequence[str],
    temperature: float = 1.0,
) -> tuple[Metrics, ...]:
    """Measure predictions at every level; a make's probability is the sum over its classes.

    Args:
        logits: (N, classes).
        targets: (N,) class numbers.
        class_names: in the order of the logits.
        temperature: of the softmax; it bears on the sums, so on the coarser levels alone.

    Returns:
        One for each of `names.LEVELS`.
    """
    probabilities = softmax(logits, temperature)
    return tuple(
        level_metrics(guesses_at(level, probabilities, targets, class_names)) for level in LEVELS
    )


def level_metrics(found: LevelGuesses) -> Metrics:
    """The figures of answers at a level."""
    return Metrics(found.level, len(found.names), **figures(found))


def measure_classes(
    guesses: NDArray[np.int64], targets: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    """Measure predictions class by class.

    Args:
        guesses: (N,) class numbers given.
        targets: (N,) class numbers that are right.
        class_names: every class; those without a picture are there too.
    """
    found = LevelGuesses("exact", tuple(class_names), targets, guesses, np.zeros_like(targets))
    columns = _per_name(found, np.ones(len(targets)))
    return tuple(
        ClassMetrics(name, int(support), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, support, _ in zip(class_names, *columns, strict=True)
    )


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
    of_class = np.array([getattr(class_name(name), part) or "" for name in class_names])
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

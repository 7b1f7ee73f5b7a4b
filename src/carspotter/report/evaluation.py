"""All that is measured of a model on a labelled split, in one pass over the pictures."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from carspotter.data import Crop, DataSet, Picture
from carspotter.decide import Decider, softmax
from carspotter.errors import DataError, ModelFileError
from carspotter.evaluate import Metrics, Predictions, Recogniser, measure, predict
from carspotter.evaluate.bootstrap import Interval, level_intervals
from carspotter.evaluate.corruptions import CORRUPTIONS, STRENGTHS, evenly
from carspotter.evaluate.metrics import LevelGuesses, guesses_at, level_metrics
from carspotter.evaluate.no_cars import NoCars, apartness
from carspotter.evaluate.predict import Focus, Share, predict_share
from carspotter.names import LEVELS, Level, class_name
from carspotter.report.subject import Subject
from carspotter.results import Answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

Counting: TypeAlias = Callable[[str], contextlib.AbstractContextManager[Callable[[int, int], None]]]
"""For what is done, a context that gives a function to call with the number done and the total."""

_TIMED = 40
"""Single pictures that are timed."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Which pictures are looked at, and how.

    Attributes:
        data: the data set.
        split: the name of the split.
        pictures: of the split.
        crop: which part of each picture is taken.
        focus: which part of that is looked at; None: all of it.
        taken: the same in words, for reports.
        no_cars: pictures without a car, looked at as a whole or where `focus` says.
    """

    data: DataSet
    split: str
    pictures: Sequence[Picture]
    crop: Crop
    focus: Focus | None
    taken: str
    no_cars: Sequence[Picture] = ()


@dataclass(frozen=True, slots=True)
class Robustness:
    """Accuracy on pictures that were made worse.

    Attributes:
        pictures: how many, spread evenly over the split.
        clean: top-1 on them as they are, 0 to 1.
        top1: by corruption, at each of the five strengths.
    """

    pictures: int
    clean: float
    top1: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Speed:
    """How long the model takes, on the machine that measured.

    Attributes:
        single_ms: median milliseconds of one picture by itself, model alone.
        pictures_per_second: of the whole pass: reading, decoding and recognition.
    """

    single_ms: float
    pictures_per_second: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        subject: the model.
        protocol: the pictures, and how they were looked at.
        found: the predictions.
        probabilities: (N, classes), calibrated.
        levels: right and given answers at each level.
        metrics: the figures of each level.
        intervals: of each level's figures, by name.
        answers: what is answered for each picture; None for a model without thresholds.
        answers_right: (N,) whether that is right, at its level.
        speed: of the model.
        robustness: None where it was not asked for.
        no_cars: None where there are no such pictures.
        seconds: of the pass over the pictures.
    """

    subject: Subject
    protocol: Protocol
    found: Predictions
    probabilities: NDArray[np.float64]
    levels: tuple[LevelGuesses, ...]
    metrics: tuple[Metrics, ...]
    intervals: Mapping[Level, Mapping[str, Interval]]
    answers: tuple[Answer, ...] | None
    answers_right: NDArray[np.bool_] | None
    speed: Speed
    robustness: Robustness | None
    no_cars: NoCars | None
    seconds: float

    @property
    def guesses(self) -> NDArray[np.int64]:
        """(N,) the most probable class of each picture."""
        return self.levels[0].guesses

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) whether the most probable class is the right one."""
        right: NDArray[np.bool_] = self.guesses == self.found.targets
        return right


def evaluate(
    subject: Subject, protocol: Protocol, counting: Counting, robustness: int = 0
) -> Evaluation:
    """Measure a model.

    Args:
        subject: the model.
        protocol: the pictures, and how they are looked at.
        counting: shows what is being done.
        robustness: how many of the pictures are looked at once more under each corruption at each
            strength; 0: none.

    Raises:
        DataError: a label that the model does not know, or no picture that can be read, with a
            car or without.
        ModelFileError: the model gives no numbers.
    """
    started = time.monotonic()
    with counting("evaluating") as count:
        found = _predict(subject, protocol, protocol.pictures, protocol.focus, count)
    seconds = time.monotonic() - started
    _check_numbers(found)
    probabilities = softmax(found.logits, subject.temperature)
    levels = tuple(
        guesses_at(level, probabilities, found.targets, subject.class_names) for level in LEVELS
    )
    answers = _answers(subject, found.logits)
    return Evaluation(
        subject=subject,
        protocol=protocol,
        found=found,
        probabilities=probabilities,
        levels=levels,
        metrics=tuple(map(level_metrics, levels)),
        intervals={level.level: level_intervals(level) for level in levels},
        answers=answers,
        answers_right=None if answers is None else _right(answers, found.pictures),
        speed=Speed(_single_ms(subject), len(found.pictures) / seconds),
        robustness=_robustness(subject, protocol, robustness, counting) if robustness else None,
        no_cars=_no_cars(subject, protocol, probabilities, counting) if protocol.no_cars else None,
        seconds=seconds,
    )


def _predict(
    subject: Subject,
    protocol: Protocol,
    pictures: Sequence[Picture],
    focus: Focus | None,
    count: Callable[[int, int], None],
) -> Predictions:
    return predict(
        pictures,
        subject.class_names,
        subject.recogniser,
        size=subject.size,
        resize=subject.resize,
        crop=protocol.crop,
        focus=focus,
        progress=count,
    )


def _check_numbers(found: Predictions) -> None:
    broken = np.flatnonzero(~np.isfinite(found.logits).all(axis=1))
    if len(broken):
        raise ModelFileError(
            f"the model's logits are no numbers for {len(broken)} of {len(found.pictures)} "
            f"pictures, {found.pictures[broken[0]].key} first: the model is broken; train or "
            "export it again"
        )


def _answers(subject: Subject, logits: NDArray[np.float32]) -> tuple[Answer, ...] | None:
    if subject.thresholds is None:
        return None
    names = [class_name(name) for name in subject.class_names]
    decider = Decider(names, subject.temperature, subject.thresholds)
    return tuple(decider.answer(row) for row in logits)


def _right(answers: Sequence[Answer], pictures: Sequence[Picture]) -> NDArray[np.bool_]:
    return np.array(
        [
            answer.level != "unknown" and answer.label == class_name(picture.label).at(answer.level)
            for answer, picture in zip(answers, pictures, strict=True)
        ]
    )


def _no_cars(
    subject: Subject, protocol: Protocol, cars: NDArray[np.float64], counting: Counting
) -> NoCars:
    """What is said of pictures without a car, beside the probabilities (N, classes) of the cars."""
    empty = replace(protocol, pictures=protocol.no_cars, crop=Crop())
    with counting("pictures without a car") as count:
        logits = _said(subject.recogniser, subject, empty, count)
    answers = _answers(subject, logits)
    familiarity = None
    if subject.familiarity is not None:
        with counting("familiarity") as count:
            of_cars = _said(subject.familiarity, subject, protocol, count)
            of_others = _said(subject.familiarity, subject, empty, count)
        familiarity = apartness(of_cars[:, 0], of_others[:, 0])
    return NoCars(
        pictures=len(logits),
        answered=None
        if answers is None
        else float(np.mean([answer.level != "unknown" for answer in answers])),
        confidence=apartness(cars.max(axis=1), softmax(logits, subject.temperature).max(axis=1)),
        familiarity=familiarity,
    )


def _said(
    recogniser: Recogniser,
    subject: Subject,
    protocol: Protocol,
    count: Callable[[int, int], None],
) -> NDArray[np.float32]:
    """What is said of the protocol's pictures that can be read, whatever they are called."""
    found = predict_share(
        protocol.pictures,
        recogniser,
        Share(),
        size=subject.size,
        resize=subject.resize,
        crop=protocol.crop,
        focus=protocol.focus,
        progress=count,
    )
    if found.logits is None:
        raise DataError("none of the pictures without a car can be read")
    return found.logits


def _single_ms(subject: Subject) -> float:
    """The median of single pictures; the first ones, which warm it up, do not count."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, subject.size, subject.size, 3), np.uint8)
    taken = []
    for _ in range(_TIMED + 3):
        started = time.perf_counter()
        subject.recogniser(pixels)
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken[3:]))


def _robustness(
    subject: Subject, protocol: Protocol, pictures: int, counting: Counting
) -> Robustness:
    chosen = [protocol.pictures[k] for k in evenly(pictures, len(protocol.pictures))]

    def top1(change: Callable[[Pixels], Pixels] | None, what: str) -> float:
        with counting(what) as count:
            focus = _one_after_the_other(change, protocol.focus)
            found = _predict(subject, protocol, chosen, focus, count)
        return measure(found.logits, found.targets, subject.class_names)[0].top1

    return Robustness(
        pictures=len(chosen),
        clean=top1(None, "clean"),
        top1={
            corruption.name: tuple(
                top1(functools.partial(corruption, strength=strength), corruption.name)
                for strength in STRENGTHS
            )
            for corruption in CORRUPTIONS
        },
    )


def _one_after_the_other(
    first: Callable[[Pixels], Pixels] | None, second: Focus | None
) -> Focus | None:
    """The photo is bad before anything is looked for on it."""
    if first is None or second is None:
        return first or second
    return lambda pixels: second(first(pixels))

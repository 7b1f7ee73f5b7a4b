"""Figures against scikit-learn's, and calibration against what is known."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sklearn_metrics

from carspotter.decide import Decider, softmax
from carspotter.evaluate import measure, measure_by
from carspotter.evaluate.calibration import (
    fit_temperature,
    fit_thresholds,
    negative_log_likelihood,
)
from carspotter.names import LEVELS, CarName, Level, split_name, stanford_names

NAMES = tuple(stanford_names())


def guesses(count: int, seed: int, sureness: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits over the Stanford names that are right for some of the pictures, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, len(NAMES), count)
    logits = rng.normal(size=(count, len(NAMES))).astype(np.float32) * 1.5
    logits[np.arange(count), targets] += rng.normal(sureness, 2, count).astype(np.float32)
    # Errors that stay within the make: neighbours in the list.
    near = np.clip(targets + rng.integers(-2, 3, count), 0, len(NAMES) - 1)
    logits[np.arange(count), near] += np.float32(sureness)
    return logits, targets


def name_at(label: str, level: Level) -> str:
    name = split_name(label)
    assert name.make is not None
    return {"exact": label, "model": f"{name.make} {name.model}", "make": name.make}[level]


# --- figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "seed"), [(900, 0), (60, 1)])  # 60: most names never come up
def test_figures_are_those_of_scikit_learn(count: int, seed: int) -> None:
    logits, targets = guesses(count, seed)
    powers = np.exp(logits.astype(np.float64))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    found = measure(logits, targets, NAMES)
    assert [m.level for m in found] == ["exact", "model", "make"]
    for m in found:
        names = [name_at(label, m.level) for label in NAMES]
        groups = sorted(set(names))
        number = np.array([groups.index(name) for name in names])
        scores = np.stack(
            [probabilities[:, number == group].sum(axis=1) for group in range(len(groups))], axis=1
        )
        truth, guess = number[targets], scores.argmax(axis=1)
        top5 = sklearn_metrics.top_k_accuracy_score(
            truth, scores, k=5, labels=np.arange(len(groups))
        )
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
            truth, guess, average="macro", zero_division=0
        )
        assert m.classes == len(groups)
        assert m.top1 == pytest.approx(sklearn_metrics.accuracy_score(truth, guess), abs=1e-6)
        assert m.top5 == pytest.approx(top5, abs=1e-6)
        assert m.macro_precision == pytest.approx(precision, abs=1e-6)
        assert m.macro_recall == pytest.approx(recall, abs=1e-6)
        assert m.macro_f1 == pytest.approx(f1, abs=1e-6)


def test_levels_of_the_stanford_names() -> None:
    exact, model, make = measure(*guesses(900, 0), NAMES)
    assert (exact.classes, make.classes) == (196, 49)
    assert 196 > model.classes > 49
    assert exact.top1 < model.top1 < make.top1 < 1
    assert exact.top1 < exact.top5


def test_makes_are_judged_by_the_sum_over_their_classes() -> None:
    names = ["BMW M3 Coupe 2012", "BMW M5 Sedan 2010", "Audi R8 Coupe 2012"]
    logits = np.log(np.array([[0.3, 0.3, 0.4]], np.float32))
    exact, _, make = measure(logits, np.array([1]), names)
    assert (exact.top1, make.top1, make.classes) == (0.0, 1.0, 2)


def test_names_without_parts_stay_whole() -> None:
    logits = np.eye(3, dtype=np.float32)
    found = measure(logits, np.array([0, 1, 1]), ["mine", "yours", "theirs"])
    assert [m.classes for m in found] == [3, 3, 3]
    assert [m.top1 for m in found] == pytest.approx([2 / 3] * 3)


def test_makes_and_bodies_by_themselves() -> None:
    names = ["BMW M3 Coupe 2012", "BMW M5 Sedan 2010", "Audi R8 Coupe 2012", "Acura RL Sedan 2012"]
    guesses, truth = [0, 1, 2, 0, 1], [0, 0, 0, 1, 2]
    logits = np.eye(4, dtype=np.float32)[guesses]
    by_make = measure_by("make", logits, np.array(truth), names)
    assert [(g.name, g.classes, g.pictures) for g in by_make] == [("BMW", 2, 4), ("Audi", 1, 1)]
    assert [(g.exact, g.part) for g in by_make] == [(0.25, 0.75), (0.0, 0.0)]
    by_body = measure_by("body", logits, np.array(truth), names)
    assert [(g.name, g.classes, g.pictures) for g in by_body] == [("Coupe", 2, 4), ("Sedan", 2, 1)]
    assert [(g.exact, g.part) for g in by_body] == [(0.25, 0.5), (0.0, 0.0)]


def test_every_picture_is_in_one_make_and_one_body() -> None:
    logits, targets = guesses(900, 0)
    exact = measure(logits, targets, NAMES)[0].top1
    for part in ("make", "body"):
        found = measure_by(part, logits, targets, NAMES)
        assert sum(group.pictures for group in found) == 900
        assert sum(group.classes for group in found) == len(NAMES)
        assert sum(g.exact * g.pictures for g in found) / 900 == pytest.approx(exact)
    assert "" in {group.name for group in measure_by("body", logits, targets, NAMES)}


# --- the temperature ---------------------------------------------------------------------------


def sampled(count: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets drawn from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 12)).astype(np.float32) * 4
    chances = np.exp(logits / temperature)
    chances /= chances.sum(axis=1, keepdims=True)
    targets = (chances.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits, np.minimum(targets, 11)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7, 4.0])
def test_known_temperature_is_found(temperature: float) -> None:
    logits, targets = sampled(6000, temperature)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 4.0])
def test_temperature_is_the_best_there_is(temperature: float) -> None:
    logits, targets = sampled(500, temperature, seed=1)
    fitted = fit_temperature(logits, targets)
    best = negative_log_likelihood(logits, targets, fitted)
    for other in (1.0, fitted * 0.9, fitted * 1.1, *np.geomspace(0.05, 20, 60)):
        assert best <= negative_log_likelihood(logits, targets, float(other)) + 1e-6


def test_likelihood_is_that_of_scikit_learn() -> None:
    logits, targets = sampled(300, 1.0)
    for temperature in (0.5, 1.0, 3.0):
        expected = sklearn_metrics.log_loss(
            targets, softmax(logits, temperature), labels=np.arange(12)
        )
        found = negative_log_likelihood(logits, targets, temperature)
        assert found == pytest.approx(expected, rel=1e-6)


# --- thresholds --------------------------------------------------------------------------------


def answers(
    probabilities: np.ndarray, thresholds: dict[Level, float]
) -> list[tuple[Level | None, str]]:
    """Level and name of the finest answer for each row, written without the code under test."""
    given: list[tuple[Level | None, str]] = []
    for row in probabilities:
        answer: tuple[Level | None, str] = (None, "")
        for level in LEVELS:
            sums: dict[str, float] = {}
            for label, share in zip(NAMES, row, strict=True):
                name = name_at(label, level)
                sums[name] = sums.get(name, 0.0) + float(share)
            best = max(sums, key=lambda name: sums[name])
            if min(1.0, sums[best]) >= thresholds[level] - 1e-12:
                answer = (level, best)
                break
        given.append(answer)
    return given


def shares(
    probabilities: np.ndarray, targets: np.ndarray, thresholds: dict[Level, float]
) -> tuple[float, float]:
    """Share of right answers, each at its level, among those given; and what they are worth."""
    given = answers(probabilities, thresholds)
    right = [
        name == name_at(NAMES[target], level)
        for (level, name), target in zip(given, targets, strict=True)
        if level is not None
    ]
    exact = sum(level == "exact" for level, _ in given)
    return float(np.mean(right)) if right else 0.0, len(right) + exact


@pytest.mark.parametrize("promise", [0.8, 0.97])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_promise_is_kept_by_the_thresholds_that_answer_most(seed: int, promise: float) -> None:
    logits, targets = guesses(400, seed, sureness=6.0)
    probabilities = softmax(logits)
    thresholds = fit_thresholds(probabilities, targets, list(map(split_name, NAMES)), promise)
    assert set(thresholds) == set(LEVELS)
    assert thresholds["exact"] == thresholds["model"] >= thresholds["make"] > 0.1
    right, worth = shares(probabilities, targets, thresholds)
    assert right >= promise
    steps = np.quantile(probabilities.max(axis=1), np.linspace(0.05, 0.95, 6))
    for fine in steps:
        for coarse in steps[steps <= fine]:
            other: dict[Level, float] = {"exact": fine, "model": fine, "make": coarse}
            kept, reached = shares(probabilities, targets, other)
            assert kept < promise or reached <= worth + 3  # a thousand steps are tried, not all
    assert {level for level, _ in answers(probabilities, thresholds)} >= set(LEVELS)


def test_no_threshold_keeps_the_promise() -> None:
    names = [CarName(label) for label in "abc"]
    probabilities = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    thresholds = fit_thresholds(probabilities, np.array([1, 2, 0]), names)
    assert thresholds == {"exact": 1.0, "model": 1.0, "make": 1.0}


def test_pictures_of_equal_confidence_are_answered_together_or_not_at_all() -> None:
    names = [CarName(label) for label in "abc"]
    sure, tied = [0.9, 0.1, 0.0], [0.6, 0.4, 0.0]
    # Of those at 0.6 the first is right, the other nine are wrong: none of them may be answered.
    probabilities = np.array([sure] * 10 + [tied] * 10)
    targets = np.array([0] * 11 + [1] * 9)
    assert fit_thresholds(probabilities, targets, names)["exact"] == pytest.approx(0.9)


def test_decider_keeps_the_promise() -> None:
    logits, targets = guesses(400, 5, sureness=6.0)
    temperature = fit_temperature(logits, targets)
    names = list(map(split_name, NAMES))
    thresholds = fit_thresholds(softmax(logits, temperature), targets, names, 0.9)
    decider = Decider(names, temperature, thresholds)
    levels, right = set(), []
    for row, target in zip(logits, targets, strict=True):
        answer = decider.answer(row)
        levels.add(answer.level)
        if answer.level != "unknown":
            right.append(answer.label == name_at(NAMES[target], answer.level))
    assert levels >= set(LEVELS)
    assert np.mean(right) >= 0.9

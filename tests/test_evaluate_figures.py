"""Figures against scikit-learn's and torchmetrics', on cases that hypothesis makes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn.metrics as sklearn_metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from carspotter.decide import softmax
from carspotter.evaluate.bootstrap import (
    interval_of,
    level_intervals,
    percentile_interval,
    resamples,
    share_intervals,
)
from carspotter.evaluate.comparison import class_differences, difference
from carspotter.evaluate.confusion import by_make, confusion_matrix, most_confused
from carspotter.evaluate.metrics import figures, guesses_at, measure_classes
from carspotter.evaluate.reliability import reliability, risk_coverage, thinned
from carspotter.names import stanford_names

NAMES = tuple(f"class {k}" for k in range(7))


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 7) and targets (N,): some classes never occur, some guesses are right."""
    count = draw(st.integers(1, 60))
    classes = draw(st.integers(1, len(NAMES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    targets = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, len(NAMES))).astype(np.float32) * draw(st.floats(0.1, 8))
    logits[np.arange(count), targets] += np.float32(draw(st.floats(0, 10)))
    return softmax(logits), targets


@given(predictions())
@settings(deadline=None)
def test_figures_are_those_of_scikit_learn_and_torchmetrics(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, targets = case
    guesses = probabilities.argmax(axis=1)
    found = figures(guesses_at("exact", probabilities, targets, NAMES))
    assert found["top1"] == pytest.approx(sklearn_metrics.accuracy_score(targets, guesses))
    assert found["top5"] == pytest.approx(
        sklearn_metrics.top_k_accuracy_score(
            targets, probabilities, k=5, labels=np.arange(len(NAMES))
        )
    )
    for mean in ("macro", "weighted"):
        expected = sklearn_metrics.precision_recall_fscore_support(
            targets, guesses, average=mean, zero_division=0
        )
        own = [found[f"{mean}_{name}"] for name in ("precision", "recall", "f1")]
        assert own == pytest.approx(expected[:3])
        tensors = torch.from_numpy(guesses), torch.from_numpy(targets)
        theirs = [
            float(metric(*tensors, num_classes=len(NAMES), average=mean))
            for metric in (multiclass_precision, multiclass_recall, multiclass_f1_score)
        ]
        assert own == pytest.approx(theirs, abs=1e-6)
    assert found["top1"] == pytest.approx(
        float(
            multiclass_accuracy(
                torch.from_numpy(guesses),
                torch.from_numpy(targets),
                num_classes=len(NAMES),
                average="micro",
            )
        ),
        abs=1e-6,
    )


@given(predictions())
@settings(deadline=None)
def test_classes_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, targets = case
    guesses = probabilities.argmax(axis=1)
    expected = sklearn_metrics.precision_recall_fscore_support(
        targets, guesses, labels=np.arange(len(NAMES)), zero_division=0
    )
    found = measure_classes(guesses, targets, NAMES)
    assert [c.name for c in found] == list(NAMES)
    for column, values in zip(("precision", "recall", "f1", "pictures"), expected, strict=True):
        assert [getattr(c, column) for c in found] == pytest.approx(list(values))


@given(predictions())
@settings(deadline=None)
def test_calibration_is_that_of_torch_torchmetrics_and_scikit_learn(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, targets = case
    found = reliability(probabilities, targets)
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(targets), len(NAMES), n_bins=15
    )
    assert found.ece == pytest.approx(float(expected), abs=1e-5)
    labels = np.arange(len(NAMES))
    # By torch: scikit-learn takes probabilities below the type's resolution for that.
    logarithms = torch.log(torch.from_numpy(probabilities.astype(np.float64)))
    expected_nll = torch.nn.functional.nll_loss(logarithms, torch.from_numpy(targets))
    assert found.nll == pytest.approx(float(expected_nll), rel=1e-6, abs=1e-9)
    assert found.brier == pytest.approx(
        sklearn_metrics.brier_score_loss(
            targets, probabilities, labels=labels, scale_by_half=False
        ),
        rel=1e-6,
        abs=1e-9,
    )
    assert sum(one.pictures for one in found.bins) == len(targets)


@given(predictions())
@settings(deadline=None)
def test_confusions_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, targets = case
    guesses = probabilities.argmax(axis=1)
    found = confusion_matrix(guesses, targets, len(NAMES))
    expected = sklearn_metrics.confusion_matrix(targets, guesses, labels=np.arange(len(NAMES)))
    assert (found == expected).all()
    pairs = most_confused(found, 100)
    both = [sum(pair.mistaken) for pair in pairs]
    assert both == sorted(both, reverse=True)
    assert sum(both) == (guesses != targets).sum()
    for pair in pairs:
        one, other = pair.classes
        assert pair.mistaken == (found[one, other], found[other, one])
        assert pair.mistaken[0] >= pair.mistaken[1]


@given(predictions())
@settings(deadline=None)
def test_risk_falls_out_of_the_definition(case: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, targets = case
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    curve = risk_coverage(confidence, right)
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - right.mean())
    for coverage, risk in zip(curve.coverage, curve.risk, strict=True):
        least = np.sort(confidence)[::-1][round(coverage * len(targets)) - 1]
        answered = confidence >= least
        assert answered.mean() == pytest.approx(coverage)
        assert risk == pytest.approx(1 - right[answered].mean())
    few = thinned(curve, 3)
    assert (few.coverage[-1], few.aurc) == (1, curve.aurc)


def test_area_under_the_curve_of_known_cases() -> None:
    right = np.array([True, True, False, False])
    best = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), right)
    worst = risk_coverage(np.array([0.6, 0.7, 0.8, 0.9]), right)
    same = risk_coverage(np.full(4, 0.5), right)
    assert best.aurc == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert worst.aurc == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert (same.aurc, same.coverage) == (0.5, (1.0,))


# --- intervals ---------------------------------------------------------------------------------


def test_intervals_cover_what_they_promise() -> None:
    """Of many samples of a known share, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        right = rng.random(120) < 0.8
        low, high = interval_of(lambda counts, r=right: float(counts @ r) / len(r), 120, 200)
        held += low <= 0.8 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_interval_of_the_accuracy_is_near_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 7, 2000)
    guesses = np.where(rng.random(2000) < 0.9, targets, (targets + 1) % 7)
    found = guesses_at("exact", np.eye(7)[guesses], targets, NAMES)
    low, high = level_intervals(found)["top1"]
    exact = binomtest(int((guesses == targets).sum()), 2000).proportion_ci(0.95)
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.004)
    for name, (lower, upper) in level_intervals(found, 50).items():
        assert lower <= figures(found)[name] <= upper


def test_resamples_are_the_same_each_time() -> None:
    first, again = (np.stack(list(resamples(30, 5))) for _ in range(2))
    assert (first == again).all()
    assert (first.sum(axis=1) == 30).all()
    assert len(np.unique(first, axis=0)) == 5


def test_shares_of_groups() -> None:
    groups = np.array([0] * 50 + [1] * 50)
    right = np.array([True] * 50 + [True, False] * 25)
    certain, half, empty = share_intervals(right, groups, 3)
    assert certain == (1.0, 1.0)
    assert half is not None
    assert half[0] < 0.5 < half[1]
    assert empty is None


def test_percentiles() -> None:
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))


# --- two models --------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
@settings(deadline=None, max_examples=40)
def test_differences(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    found = difference(first, second)
    assert found.gain == pytest.approx(second.mean() - first.mean())
    assert found.interval[0] <= found.gain <= found.interval[1]
    counts = (found.both_right, found.first_only, found.second_only, found.both_wrong)
    assert sum(counts) == len(pairs)
    back = difference(second, first)
    assert (back.gain, back.p_value) == (pytest.approx(-found.gain), pytest.approx(found.p_value))
    if found.first_only == found.second_only:
        assert found.p_value == pytest.approx(1)


def test_a_real_difference_is_told_from_chance() -> None:
    both = np.ones(1000, bool)
    worse = both.copy()
    worse[:30] = False
    found = difference(worse, both)
    assert found.p_value < 1e-6
    assert found.interval[0] > 0
    luck = difference(np.array([True, False] * 20), np.array([False, True] * 20))
    assert luck.p_value == 1
    assert luck.interval[0] < 0 < luck.interval[1]


def test_differences_by_class() -> None:
    first = np.array([True, True, False, True])
    second = np.array([False, True, True, True])
    found = class_differences(first, second, ["a", "a", "b", "c"])
    assert [(c.name, c.pictures, c.first_only, c.second_only) for c in found] == [
        ("a", 2, 1, 0),
        ("b", 1, 0, 1),
    ]


def test_makes_stand_together() -> None:
    names = tuple(stanford_names())
    order = by_make(names)
    assert sorted(order) == list(range(len(names)))
    makes = [stanford_names()[names[k]].make for k in order]
    assert sum(a != b for a, b in itertools.pairwise(makes)) == 48

"""From logits to an answer, and what a result looks like as plain values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax as reference

from carspotter.decide import Decider, softmax
from carspotter.names import CarName, split_name
from carspotter.results import Answer, Failure, Identification, ModelInfo

LABELS = (
    "Audi S4 Sedan 2012",
    "Audi S4 Sedan 2007",
    "Audi TT Hatchback 2011",
    "smart fortwo Convertible 2012",
    "My own car",
    "My other car",
)
NAMES = tuple(map(split_name, LABELS))
THRESHOLDS = {"exact": 0.9, "model": 0.8, "make": 0.7}


def logits(*probabilities: float) -> np.ndarray:
    """Logits that stand for these probabilities; what is missing to 1 goes to the last class."""
    missing = len(LABELS) - len(probabilities) - 1
    whole = [*probabilities, *[1e-9] * missing, max(1e-9, 1 - sum(probabilities))]
    return np.log(whole[: len(LABELS)]).astype(np.float32)


def decider(**thresholds: float) -> Decider:
    return Decider(NAMES, 1.0, {**THRESHOLDS, **thresholds})


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_softmax_is_scipys(temperature: float) -> None:
    rows = np.random.default_rng(0).normal(0, 30, (50, 196)).astype(np.float32)
    found = softmax(rows, temperature)
    assert found.dtype == np.float64
    np.testing.assert_allclose(
        found, reference(rows.astype(np.float64) / temperature, axis=1), rtol=1e-10
    )


def test_softmax_of_huge_logits_is_finite() -> None:
    found = softmax(np.array([[3e38, -3e38, 0], [-3e38, -3e38, -3e38]], np.float32), 0.1)
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize(
    ("probabilities", "answer"),
    [
        ((0.95, 0.02, 0.02), ("exact", "Audi S4 Sedan 2012", 0.95)),
        ((0.45, 0.40, 0.05), ("model", "Audi S4", 0.85)),
        ((0.30, 0.25, 0.20), ("make", "Audi", 0.75)),
        ((0.30, 0.20, 0.15), ("unknown", "unknown", 0.65)),
        ((0.0001, 0.0001, 0.0001, 0.95), ("exact", "smart fortwo Convertible 2012", 0.95)),
        ((0.0001, 0.0001, 0.0001, 0.85), ("model", "smart fortwo", 0.85)),
    ],
)
def test_the_finest_level_that_is_supported_is_answered(
    probabilities: tuple[float, ...], answer: tuple[str, str, float]
) -> None:
    found = decider().answer(logits(*probabilities))
    assert (found.level, found.label) == answer[:2]
    assert found.confidence == pytest.approx(answer[2], abs=1e-5)


def test_the_best_model_need_not_hold_the_best_class() -> None:
    found = decider(exact=0.99, model=0.5).answer(logits(0.3, 0.3, 0.0001, 0.35))
    assert (found.level, found.label) == ("model", "Audi S4")
    assert found.confidence == pytest.approx(0.6, abs=1e-4)


@pytest.mark.parametrize(
    ("probabilities", "parts"),
    [
        ((0.95,), ("Audi", "S4", "Sedan", 2012)),
        ((0.45, 0.45), ("Audi", "S4", None, None)),
        ((0.25, 0.25, 0.30), ("Audi", None, None, None)),
        ((0.2, 0.1, 0.1, 0.3), (None, None, None, None)),
    ],
)
def test_a_coarse_answer_has_only_its_own_parts(
    probabilities: tuple[float, ...], parts: tuple[str | int | None, ...]
) -> None:
    name = decider().answer(logits(*probabilities)).name
    assert (name.make, name.model, name.body, name.year) == parts


def test_a_threshold_is_reached_at_equality() -> None:
    even = np.zeros(len(LABELS), np.float32)
    two = Decider(NAMES[2:4], 1.0, {"exact": 0.5, "model": 1.0, "make": 1.0})
    assert two.answer(even[:2]).level == "exact"
    assert decider(exact=1.0, model=1.0, make=0.5).answer(even).level == "make"


def test_an_unsplit_name_is_answered_exactly_or_not_at_all() -> None:
    assert decider().answer(logits(0.0001, 0.0001, 0.0001, 0.0001, 0.95)).label == "My own car"
    unsure = decider().answer(logits(0.0001, 0.0001, 0.0001, 0.0001, 0.85))
    assert (unsure.level, unsure.label) == ("unknown", "unknown")
    # Not even where the thresholds of the coarser levels are nothing at all.
    nothing = decider(model=0.0, make=0.0)
    assert nothing.answer(logits(0.1, 0.0001, 0.0001, 0.0001, 0.85)).level == "unknown"


def test_a_name_without_a_model_is_answered_by_its_make() -> None:
    names = (CarName("Tatra, old", "Tatra"), CarName("Tatra, new", "Tatra"), CarName("Else"))
    found = Decider(names, 1.0, THRESHOLDS).answer(np.array([5, 5, 0], np.float32))
    assert (found.level, found.label, found.name.model) == ("make", "Tatra", None)


def test_confidence_is_a_probability_in_spite_of_rounding() -> None:
    names = tuple(CarName(str(k), "Make", "Model") for k in range(999))
    found = Decider(names, 1.0, {"exact": 2.0, "model": 0.999, "make": 0.999}).answer(
        np.random.default_rng(1).normal(size=999).astype(np.float32)
    )
    assert found.level == "model"
    assert 0.999 < found.confidence <= 1.0


def test_the_temperature_makes_less_sure() -> None:
    one = Decider(NAMES, 1.0, THRESHOLDS).answer(logits(0.95, 0.03))
    two = Decider(NAMES, 2.0, THRESHOLDS).answer(logits(0.95, 0.03))
    assert one.level == "exact"
    assert two.level != "exact"


def test_candidates_come_best_first() -> None:
    values = logits(0.1, 0.4, 0.2, 0.25)
    found = decider().candidates(values, 3)
    assert [c.label for c in found] == [LABELS[1], LABELS[3], LABELS[2]]
    assert [c.confidence for c in found] == pytest.approx([0.4, 0.25, 0.2], abs=1e-6)
    assert found[0].name is NAMES[1]
    everything = decider().candidates(values, 100)
    assert {c.label for c in everything} == set(LABELS)
    assert sum(c.confidence for c in everything) == pytest.approx(1)


def test_equal_candidates_keep_the_order_of_the_classes() -> None:
    found = decider().candidates(np.zeros(len(LABELS), np.float32), 6)
    assert [c.label for c in found] == list(LABELS)


def test_logits_that_are_no_numbers_are_no_answer() -> None:
    broken = np.full(len(LABELS), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        assert decider().answer(broken).level == "unknown"
        # Not even where any probability is enough.
        assert decider(exact=0.0, model=0.0, make=0.0).answer(broken).level == "unknown"


RESULT_KEYS = {"photo", "answer", "candidates", "box", "others", "model", "error"}
PART_KEYS = {"label", "make", "model", "body", "year", "confidence"}
MODEL = ModelInfo("tiny", "1", "0" * 64)


def test_a_result_as_plain_values() -> None:
    values = logits(0.95, 0.03)
    found = Identification(
        "a.jpg", decider().answer(values), decider().candidates(values, 2), (1, 2, 30, 40), MODEL
    )
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain == found.to_dict()
    assert set(plain) == RESULT_KEYS
    assert set(plain["answer"]) == PART_KEYS | {"level"}
    assert [set(candidate) for candidate in plain["candidates"]] == [PART_KEYS] * 2
    assert plain["answer"] == {
        "level": "exact",
        "label": "Audi S4 Sedan 2012",
        "make": "Audi",
        "model": "S4",
        "body": "Sedan",
        "year": 2012,
        "confidence": 0.95,
    }
    assert plain["box"] == [1, 2, 30, 40]
    assert plain["others"] == []
    assert plain["model"] == {"name": "tiny", "version": "1", "sha256": "0" * 64}
    assert plain["error"] is None


def test_a_failure_as_plain_values() -> None:
    failure = Failure("empty", "a.jpg: the file is empty")
    plain = Identification("a.jpg", None, (), None, MODEL, failure).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == RESULT_KEYS
    assert (plain["answer"], plain["candidates"], plain["box"]) == (None, [], None)
    assert plain["error"] == {"code": "empty", "message": "a.jpg: the file is empty"}


def test_an_unknown_answer_has_null_parts() -> None:
    plain = Answer("unknown", CarName("unknown"), 0.2).to_dict()
    assert plain["level"] == "unknown"
    assert [plain[key] for key in ("make", "model", "body", "year")] == [None] * 4


def test_results_are_frozen() -> None:
    answer = Answer("unknown", CarName("unknown"), 0.2)
    with pytest.raises(AttributeError):
        answer.confidence = 1.0  # type: ignore[misc]

"""Sets of classes that hold the right one as often as is promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from cli_checks import complaint
from conftest import Carspotter
from tiny_model import BLACK, BLUE, GREEN, LABELS, RED, plain

from carspotter import ModelFileError, UsageError, load
from carspotter.decide import Decider, softmax
from carspotter.evaluate.conformal import COVERAGES, fit_set_threshold, measure_sets
from carspotter.names import CarName


def calibrated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities over 12 classes, and targets drawn from other ones: a model that is wrong."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 12)).astype(np.float32) * 3
    true = softmax(logits + rng.normal(size=logits.shape).astype(np.float32))
    targets = (true.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return softmax(logits), np.minimum(targets, 11)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_promise_is_kept_on_other_pictures(coverage: float) -> None:
    threshold = fit_set_threshold(*calibrated(4000, 0), coverage)
    found = measure_sets(*calibrated(4000, 1), threshold)
    assert found.coverage == pytest.approx(coverage, abs=0.02)
    assert 1 <= found.mean_size <= 12
    assert 0 <= found.single <= 1


def test_the_rank_is_the_one_that_the_proof_needs() -> None:
    """Of 19 pictures, 95 % takes the smallest probability of a right class; of 18 none will do."""
    probabilities = np.stack([np.linspace(0.2, 0.8, 19), 1 - np.linspace(0.2, 0.8, 19)], axis=1)
    targets = np.zeros(19, np.int64)
    assert fit_set_threshold(probabilities, targets, 0.95) == pytest.approx(0.2)
    assert fit_set_threshold(probabilities[:18], targets[:18], 0.95) == 0
    assert fit_set_threshold(probabilities, targets, 0.9) == pytest.approx(
        np.linspace(0.2, 0.8, 19)[1]
    )


def test_measured_sets_are_those_that_are_given() -> None:
    probabilities, targets = calibrated(300, 2)
    decider = Decider(
        [CarName(str(k)) for k in range(12)], 1.0, dict.fromkeys(("exact", "model", "make"), 0.5)
    )
    sets = [decider.label_set(np.log(row).astype(np.float32), 0.12) for row in probabilities]
    found = measure_sets(probabilities, targets, 0.12)
    assert found.mean_size == pytest.approx(np.mean([len(one) for one in sets]))
    held = [
        str(target) in {c.label for c in one} for one, target in zip(sets, targets, strict=True)
    ]
    assert found.coverage == pytest.approx(np.mean(held))
    assert min(len(one) for one in sets) == 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    card = replace(tiny_model.card(), sets={"0.9": 0.3, "0.95": 0.2})
    return tiny_model.write(tmp_path / "sets.onnx", card.to_json())


def test_sets_in_python(model: Path) -> None:
    spotter = load(model)
    assert spotter.identify(plain(RED)).label_set is None
    one, two, all_four = (
        spotter.identify(plain(colour), coverage=0.95).label_set for colour in (RED, GREEN, BLACK)
    )
    assert one is not None
    assert (one.coverage, [c.label for c in one.candidates]) == (0.95, [LABELS[0]])
    assert two is not None
    assert [c.label for c in two.candidates] == list(LABELS[:2])
    assert two.candidates[0].confidence == pytest.approx(0.5, abs=1e-3)
    assert all_four is not None
    assert len(all_four.candidates) == 4
    narrow = spotter.identify(plain(BLACK), coverage=0.9).label_set
    assert narrow is not None
    assert len(narrow.candidates) == 1  # never none, though none is probable enough
    with pytest.raises(UsageError, match=r"coverage 0\.5; it has 0\.9, 0\.95"):
        spotter.identify(plain(RED), coverage=0.5)


def test_sets_on_the_command_line(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    photos = []
    for name, colour in (("red", RED), ("blue", BLUE)):
        photos.append(tmp_path / f"{name}.png")
        plain(colour).save(photos[-1])
    done = carspotter("identify", *photos, "--model", model, "--sets", "--json")
    assert done.returncode == 0, done.stderr
    red, blue = (json.loads(line)["set"] for line in done.stdout.splitlines())
    assert (red["coverage"], [c["label"] for c in red["candidates"]]) == (0.95, [LABELS[0]])
    assert [c["label"] for c in blue["candidates"]] == list(LABELS[:3])
    shown = carspotter("identify", *photos, "--model", model, "--sets").stdout
    assert "this one alone, 95 %" in shown
    assert f"one of these 3, 95 %: {'; '.join(LABELS[:3])}" in shown
    without = carspotter("identify", photos[0], "--model", model, "--json")
    assert "set" not in json.loads(without.stdout)


def test_a_set_of_what_is_not_probable_enough_claims_nothing(
    carspotter: Carspotter, tmp_path: Path
) -> None:
    card = replace(tiny_model.card(), sets={"0.95": 0.3})
    file = tiny_model.write(tmp_path / "sets.onnx", card.to_json())
    plain(BLACK).save(tmp_path / "black.png")  # four classes of 25 %
    shown = carspotter("identify", tmp_path / "black.png", "--model", file, "--sets").stdout
    assert "  the most probable one, but none is probable enough for a set at 95 %\n" in shown
    assert "alone" not in shown


def test_models_without_sets_say_so(carspotter: Carspotter, tmp_path: Path) -> None:
    photo, old = tmp_path / "red.png", tiny_model.write(tmp_path / "old.onnx")
    plain(RED).save(photo)
    message = complaint(carspotter("identify", photo, "--model", old, "--sets"))
    assert str(old) in message
    assert "export it again" in message
    both = complaint(carspotter("identify", photo, "--sets", "--explain", tmp_path / "x"))
    assert "exclude each other" in both


@pytest.mark.parametrize("sets", [{"much": 0.1}, {"0.95": 2.0}, {"1.5": 0.1}, [0.95]])
def test_a_card_with_other_sets_is_refused(tmp_path: Path, sets: object) -> None:
    text = json.dumps({**json.loads(tiny_model.card().to_json()), "sets": sets})
    with pytest.raises(ModelFileError, match="card is not complete"):
        load(tiny_model.write(tmp_path / "bad.onnx", text))

"""How familiar a picture is, in the graph as by numpy; and what that does to the logits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
import pytest
import tiny_model

from carspotter.export.gate import LEAST, Gate, fit_gate, with_gate
from carspotter.export.half import weights_in_half

WIDTH = 3  # of the tiny model's embedding: its mean colour


def classifier() -> onnx.ModelProto:
    """The tiny model in the version of ONNX that torch exports."""
    return onnx.version_converter.convert_version(tiny_model.graph(), 18)


def ran(model: onnx.ModelProto, pixels: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))


@pytest.fixture
def pixels() -> np.ndarray:
    """Colours all over, black among them."""
    colours = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3), dtype=np.uint8)
    colours[0] = 0
    return np.broadcast_to(colours, (40, tiny_model.SIZE, tiny_model.SIZE, 3)).copy()


@pytest.fixture
def gate() -> Gate:
    means = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1], [0, 1, 0]], np.float32)
    return Gate(means, low=0.7, high=0.95)


@pytest.mark.parametrize("in_half", [False, True])
def test_the_graph_does_what_numpy_does(pixels: np.ndarray, gate: Gate, in_half: bool) -> None:
    plain = classifier()
    gated = with_gate(plain, gate)
    before, after = ran(plain, pixels), ran(weights_in_half(gated) if in_half else gated, pixels)
    expected = gate.familiarity(before["embedding"])
    np.testing.assert_allclose(after["familiarity"], expected, atol=1e-5)
    factors = gate.factors(expected)
    assert {np.float32(LEAST), np.float32(1)} < set(factors)  # and some between
    np.testing.assert_allclose(after["logits"], before["logits"] * factors[:, None], atol=1e-4)
    for name in ("embedding", "feature_map", "head"):
        np.testing.assert_array_equal(after[name], before[name])


def test_it_is_the_cosine_to_the_nearest_class_mean(gate: Gate) -> None:
    found = gate.familiarity(np.array([[2, 0, 0], [0, 3, 4], [-1, 0, 0], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(found, [1, 0.8, 0, 0], atol=1e-6)


def test_no_order_changes(pixels: np.ndarray, gate: Gate) -> None:
    plain = classifier()
    before, after = ran(plain, pixels)["logits"], ran(with_gate(plain, gate), pixels)["logits"]
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def drawn(seed: int, count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of five classes, each around a direction of its own, and their classes."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(5, 64))
    targets = rng.integers(0, 5, count)
    embeddings = directions[targets] + spread * rng.normal(size=(count, 64))
    return (embeddings * rng.uniform(0.5, 3, (count, 1))).astype(np.float32), targets


def test_cars_pass_and_others_do_not() -> None:
    seen, targets = drawn(1, 400, 0.5)
    held_out, _ = drawn(2, 400, 0.7)
    gate = fit_gate(seen, targets, held_out)
    assert gate.low < gate.high
    cars = gate.factors(gate.familiarity(drawn(3, 400, 0.7)[0]))
    assert (cars == 1).mean() == pytest.approx(0.95, abs=0.04)
    strangers = np.random.default_rng(4).normal(size=(400, 64)).astype(np.float32)
    assert (gate.factors(gate.familiarity(strangers)) == np.float32(LEAST)).mean() > 0.9


def test_cars_that_are_all_alike() -> None:
    rows = np.ones((6, 4), np.float32)
    gate = fit_gate(rows, np.array([0, 0, 0, 1, 1, 1]), rows)
    assert np.isfinite([gate.low, gate.high]).all()
    assert gate.low < gate.high
    np.testing.assert_allclose(gate.factors(gate.familiarity(rows)), 1, atol=1e-3)

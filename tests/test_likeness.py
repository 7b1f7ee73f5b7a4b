"""The space in which photos are compared, and what a model file says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model

import carspotter
from carspotter import ModelFileError
from carspotter.garage import Garage, JointScores, TaughtPhoto
from carspotter.likeness import PLAIN, class_means, fit_space, likeness_in, parse_space
from carspotter.names import CarName


def test_directions_within_cars_are_damped() -> None:
    rng = np.random.default_rng(0)
    cars = rng.normal(size=(8, 6)) ** 2 + 4
    targets = np.repeat(np.arange(8), 30)
    pictures = cars[targets] + rng.normal(size=(240, 6)) * [2.0, 0.01, 0.01, 0.01, 0.01, 0.01]
    space = fit_space(pictures.astype(np.float32), targets, 8, directions=2)
    assert space.directions.shape == (2, 6)
    assert abs(space.directions[0, 0]) > 0.99
    assert space.damping[0] > 0.4 > 0.01 > space.damping[1]
    straight = space.straighten(pictures.astype(np.float32))
    rooted = np.sqrt(np.abs(pictures)) - space.mean
    np.testing.assert_allclose(straight[:, 1:], rooted[:, 1:], atol=0.02)
    assert straight[:, 0].std() < 0.75 * rooted[:, 0].std()


def test_it_comes_back_from_the_metadata() -> None:
    rng = np.random.default_rng(1)
    made = fit_space(rng.random((40, 5)).astype(np.float32), np.arange(40) % 4, 5, directions=3)
    assert made.known is not None
    assert made.known.any(axis=1).tolist() == [True] * 4 + [False]  # of the fifth no picture
    read = parse_space(made.to_json(), 5, 5, "m.onnx")
    embeddings = rng.random((6, 5)).astype(np.float32)
    np.testing.assert_allclose(read.straighten(embeddings), made.straighten(embeddings), atol=2e-3)
    assert np.array_equal(read.known, made.known)
    with pytest.raises(ModelFileError, match="cannot be read"):
        parse_space(made.to_json(), 5, 3, "m.onnx")


def test_known_cars_lie_where_their_pictures_do() -> None:
    rng = np.random.default_rng(2)
    cars, targets = rng.random((6, 40)), np.arange(60) % 6
    pictures = (cars[targets] + 0.1 * rng.random((60, 40))).astype(np.float32)
    likeness = likeness_in(fit_space(pictures, targets, 6))
    known = likeness.known_cars()
    assert known is not None
    np.testing.assert_allclose(np.linalg.norm(known, axis=1), 1, atol=1e-5)
    features = likeness.features(np.zeros((60, 6), np.float32), pictures)
    assert np.array_equal((features @ known.T).argmax(axis=1), targets)
    exact = class_means(features, targets, 6)
    assert (exact * known).sum(axis=1).min() > 0.9999
    assert likeness_in(None).known_cars() is None


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format_version": 1, "mean": "AA", "directions": "", "damping": ""}'],
)
def test_metadata_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    file = tiny_model.write(tmp_path / "m.onnx", space_text=text)
    with pytest.raises(ModelFileError, match=r"m\.onnx"):
        carspotter.load(file)


def test_a_newer_space(tmp_path: Path) -> None:
    text = tiny_model.SPACE.to_json().replace('"format_version": 1', '"format_version": 9')
    file = tiny_model.write(tmp_path / "m.onnx", space_text=text)
    with pytest.raises(ModelFileError, match="pip install -U"):
        carspotter.load(file)


def test_one_picture_of_each_car() -> None:
    space = fit_space(np.eye(3, dtype=np.float32), np.arange(3), 3)
    assert np.isfinite(space.damping).all()


def test_known_logits_all_equal() -> None:
    features = PLAIN.features(np.ones((2, 4), np.float32), np.zeros((2, 3), np.float32))
    assert (features == 0).all()


def test_a_sure_network_is_asked_how_alike_the_known_car_is() -> None:
    rng = np.random.default_rng(3)
    cars, targets = rng.random((6, 40)), np.arange(60) % 6
    space = fit_space((cars[targets] + 0.1 * rng.random((60, 40))).astype(np.float32), targets, 6)
    info = carspotter.ModelInfo("m", "1", "0" * 64)
    other = rng.random(40).astype(np.float16)
    photo = TaughtPhoto("1" * 64, np.zeros(6, np.float16), other)
    known = tuple(f"car {n}" for n in range(6))
    garage = Garage(info, known).teach(CarName("taught"), [photo])
    # Of the taught car and of car 0: the network is sure that both are car 0.
    pictures = np.stack([other.astype(np.float32), cars[0].astype(np.float32)])
    logits = np.tile(np.float32([24, 0, 0, 0, 0, 0]), (2, 1))
    placed = JointScores(garage, likeness_in(space), 1.0)(logits, pictures)
    assert placed.argmax(axis=1).tolist() == [6, 0]
    unplaced = JointScores(garage, likeness_in(replace(space, known=None)), 1.0)
    assert unplaced(logits, pictures).argmax(axis=1).tolist() == [0, 0]
    assert np.array_equal(unplaced(logits, pictures)[:, :6], logits)

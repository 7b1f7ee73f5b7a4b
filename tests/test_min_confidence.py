"""Another least probability of an answer than the model file's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_model
from conftest import Carspotter
from serve_process import photo as png
from serve_process import served
from taught_cars import PLUM, model_with_space
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, RED, plain

from carspotter import UsageError, load
from carspotter.names import CarName
from carspotter.teaching import teach


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model.write(tmp_path / "tiny.onnx")


@pytest.mark.parametrize(
    ("least", "levels"),
    [
        (None, ["exact", "model", "make", "unknown"]),
        (0.4, ["exact", "exact", "model", "model"]),
        (0.0, ["exact", "exact", "exact", "exact"]),
        (1.0, ["unknown", "unknown", "unknown", "unknown"]),
    ],
)
def test_in_python(model: Path, least: float | None, levels: list[str]) -> None:
    spotter = load(model, min_confidence=least)
    found = [spotter.identify(plain(colour)).answer for colour in (RED, GREEN, BLUE, BLACK)]
    assert [answer.level for answer in found if answer is not None] == levels


def test_another_spotter_is_made_and_the_first_left_as_it_is(model: Path) -> None:
    spotter = load(model)
    sure = spotter.with_min_confidence(0.4)
    for colour, (level, _) in ANSWERS.items():
        answer = spotter.identify(plain(colour)).answer
        assert answer is not None
        assert answer.level == level
    answer = sure.with_garage(None).identify(plain(GREEN)).answer
    assert answer is not None
    assert answer.level == "exact"


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(model: Path, least: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        load(model, min_confidence=least)


def test_on_the_command_line(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    photo = tmp_path / "green.png"
    plain(GREEN).save(photo)
    shown = carspotter(
        "identify", photo, "--model", model, "--json", "--min-confidence", "0.4"
    ).stdout
    assert json.loads(shown)["answer"]["level"] == "exact"
    refused = carspotter("identify", photo, "--model", model, "--min-confidence", "2")
    assert refused.returncode == 2
    assert "--min-confidence" in refused.stderr


def test_a_lesson_asks_how_sure_the_model_file_is(tmp_path: Path) -> None:
    spotter = load(model_with_space(tmp_path), min_confidence=0.0)
    lesson = teach(spotter, tmp_path / "garage.npz", CarName("Plum"), [plain(PLUM), plain(RED)])
    assert [taken.label for _, taken in lesson.taken_for] == [ANSWERS[RED][1]]


def test_of_the_service(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    with served(tmp_path, "--model", model, "--min-confidence", "0.4") as service:
        answer = service.client.post("/v1/identify", content=png(GREEN)).json()
        assert answer["results"][0]["answer"]["level"] == "exact"
    refused = carspotter("serve", "--model", model, "--min-confidence", "2")
    assert refused.returncode == 2
    assert refused.stderr == "carspotter: --min-confidence 2.0: must be 0 to 1\n"

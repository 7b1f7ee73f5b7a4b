"""The model card, and the checksum that guards a model file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import onnx
import pytest
import tiny_model

from carspotter.card import CARD_KEY, CHECKSUM_KEY, FORMAT_VERSION, parse_card, sealed, unsealed
from carspotter.errors import ModelFileError
from carspotter.names import CarName


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model.write(tmp_path / "tiny.onnx")


def changed(**values: object) -> str:
    """The tiny model's card with other values; None takes a key away."""
    card = {**json.loads(tiny_model.card().to_json()), **values}
    return json.dumps({key: value for key, value in card.items() if value is not None})


def test_a_card_comes_back_as_it_was() -> None:
    card = dataclasses.replace(
        tiny_model.card([CarName("Ein Käfer 1968", "VW", "Käfer"), CarName("日産")]),
        trained_on={"layout": "folders", "pictures": 12},
        accuracy={"measured": {"exact": {"top1": 0.5}}},
        temperature=1.25,
    )
    assert parse_card(card.to_json(), "file") == card
    assert json.loads(card.to_json())["format_version"] == FORMAT_VERSION


@pytest.mark.parametrize("content", [b"", b"x", b"some model" * 100, bytes(range(256))])
def test_what_is_sealed_can_be_read(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(sealed(content))
    data, sha256 = unsealed(file)
    assert data == file.read_bytes()
    assert data.startswith(content)
    assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_sealed_file_is_ordinary_onnx(model: Path) -> None:
    found = onnx.load(model)
    onnx.checker.check_model(found)
    metadata = {entry.key: entry.value for entry in found.metadata_props}
    assert set(metadata) == {CARD_KEY, CHECKSUM_KEY}
    assert parse_card(metadata[CARD_KEY], "file") == tiny_model.card()
    content = model.read_bytes()[: -len(sealed(b""))]
    assert metadata[CHECKSUM_KEY] == hashlib.sha256(content).hexdigest()


def refusal(file: Path) -> str:
    with pytest.raises(ModelFileError) as raised:
        unsealed(file)
    message = str(raised.value)
    assert str(file) in message
    assert "\n" not in message
    return message


def test_a_flipped_byte_anywhere_is_noticed(model: Path) -> None:
    data = model.read_bytes()
    chosen = random.Random(0).sample(range(len(data)), 150)
    for place in {0, len(data) - 1, *range(len(data) - 90, len(data)), *chosen}:
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        model.write_bytes(damaged)
        refusal(model)


@pytest.mark.parametrize("kept", [0, 1, 50, 84, 200, -84])
def test_a_file_cut_short_is_refused(model: Path, kept: int) -> None:
    model.write_bytes(model.read_bytes()[:kept])
    assert "cut short" in refusal(model)


@pytest.mark.parametrize("lost", [1, 2, 20])
def test_a_file_that_lost_its_last_bytes_is_refused(model: Path, lost: int) -> None:
    model.write_bytes(model.read_bytes()[:-lost])
    assert "get it again" in refusal(model)


def test_a_file_with_more_behind_it_is_refused(model: Path) -> None:
    model.write_bytes(model.read_bytes() + b"\n")
    assert "damaged" in refusal(model)


def test_a_model_that_was_never_sealed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plain.onnx"
    onnx.save(tiny_model.graph(), file)
    assert "carspotter export" in refusal(file)


def test_a_file_saved_by_another_tool_is_refused(model: Path) -> None:
    found = onnx.load(model)
    found.producer_name = "someone else"
    onnx.save(found, model)
    assert "damaged or changed" in refusal(model)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "no such model file" in refusal(tmp_path / "none.onnx")


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


def test_a_newer_format_asks_for_an_update() -> None:
    # Of a newer card nothing else may be looked at: its other keys may be anything.
    text = json.dumps({"format_version": FORMAT_VERSION + 1, "all": "new"})
    with pytest.raises(ModelFileError, match="pip install -U carspotter") as raised:
        parse_card(text, "my.onnx")
    assert "my.onnx" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "3",
        '"text"',
        "{}",
        changed(format_version="one"),
        changed(format_version=[]),
        *(changed(**{key: None}) for key in ("name", "version", "classes", "input_size")),
        *(changed(**{key: None}) for key in ("resize", "mean", "std", "temperature")),
        changed(thresholds=None),
        changed(thresholds={"exact": 0.5, "model": 0.5}),
        changed(thresholds={"exact": 0.5, "model": 0.5, "make": 0.5, "body": 0.5}),
        changed(classes=[]),
        changed(classes=[{"make": "Audi"}]),
        changed(classes=["Audi"]),
        changed(temperature=0),
        changed(temperature=-1.0),
        changed(temperature="warm"),
        changed(mean=0.5),
        changed(surprise=1),
    ],
)
def test_an_incomplete_card_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"^my\.onnx: "):
        parse_card(text, "my.onnx")


@pytest.mark.parametrize(
    "text",
    [
        changed(resize="stretch"),
        changed(temperature=float("nan")),
        changed(thresholds=["exact", "model", "make"]),
        changed(input_size="32"),
    ],
    ids=["resize", "temperature", "thresholds", "input_size"],
)
def test_a_card_of_wrong_values_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError):
        parse_card(text, "my.onnx")

"""The model card as people read it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import tiny_model
from conftest import Carspotter

from carspotter.card import Card, parse_card
from carspotter.card_text import card_text

FIGURES = {
    "classes": 4,
    "top1": 0.9,
    "top5": 1.0,
    "macro_precision": 0.8125,
    "macro_recall": 0.7,
    "macro_f1": 0.75,
}


def measured_card() -> Card:
    groups = [
        {"name": "Coupe", "classes": 2, "pictures": 30, "exact": 0.8, "part": 0.9},
        {"name": "", "classes": 1, "pictures": 10, "exact": 0.5, "part": 0.6},
    ]
    return dataclasses.replace(
        tiny_model.card(),
        notes="## Not for\n\nAnything that matters.",
        trained_on={"layout": "huggingface", "crop": "whole", "pictures": 54, "val_pictures": 18},
        accuracy={
            "measured": {
                "split": "test",
                "crop": "whole",
                "pictures": 40,
                **{level: {"level": level, **FIGURES} for level in ("exact", "model", "make")},
                "by_body": groups,
                "by_make": [{**groups[0], "name": "Audi"}],
            }
        },
    )


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_what_8_bits_cost_is_in_the_text() -> None:
    card = measured_card()
    assert "8 bits" not in card_text(card)
    loss = {"pictures": 800, "before": 0.92, "after": 0.91875, "agreement": 0.9925}
    in_8_bits = dataclasses.replace(card, accuracy={**card.accuracy, "in_8_bits": loss})
    assert "Of 800 validation pictures it names 91.88 % rightly, in 32 bits 92.00 %, and the " in (
        card_text(in_8_bits)
    )


def test_every_figure_is_in_the_text() -> None:
    text = card_text(measured_card())
    found = rows(text)
    assert ["exact", "4", "90.00", "100.00", "81.25", "70.00", "75.00"] in found
    assert ["make and model", "4", "90.00", "100.00", "81.25", "70.00", "75.00"] in found
    assert ["Coupe", "2", "30", "80.00", "90.00"] in found
    assert ["not stated", "1", "10", "50.00", "60.00"] in found
    assert ["Audi", "2", "30", "80.00", "90.00"] in found
    assert ["pictures learnt from", "54"] in found
    assert "40 pictures of the test split" in text
    assert "Anything that matters." in text
    assert not re.search(r"\n\n\n", text)


def test_tables_are_whole() -> None:
    widths = {len(row) for block in card_text(measured_card()).split("\n\n") for row in rows(block)}
    assert widths == {2, 5, 7}
    for block in card_text(measured_card()).split("\n\n"):
        assert len({len(row) for row in rows(block)}) <= 1


def test_a_file_without_figures_says_so() -> None:
    text = card_text(tiny_model.card())
    assert "holds no figures" in text
    assert "does not say" in text


def test_a_card_without_notes_can_be_read() -> None:
    values = json.loads(tiny_model.card().to_json())
    del values["notes"]  # as files have it that were made before there were any
    assert parse_card(json.dumps(values), "file") == tiny_model.card()


def test_the_command_prints_it(carspotter: Carspotter, tmp_path: Path) -> None:
    card = measured_card()
    file = tiny_model.write(tmp_path / "mine.onnx", card.to_json())
    assert carspotter("models", "--card", file).stdout == card_text(card)
    as_json = carspotter("models", "--card", file, "--json").stdout
    assert parse_card(as_json, "file") == card
    missing = carspotter("models", "--card", "nothing.onnx")
    assert missing.returncode == 2
    assert "nothing.onnx" in missing.stderr

"""`evaluate --crop`: which part of each picture is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_detectors
import tiny_model
from conftest import Carspotter
from PIL import Image
from tiny_detectors import SIZE
from tiny_model import GREEN, LABELS, RED

CAR = (20, 10, 38, 30)
"""In pixels of the detector's input."""


@pytest.fixture
def coloured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model to which red is the first class, green the second, blue the third."""
    monkeypatch.setattr(tiny_model, "WEIGHTS", 9 * np.eye(3, 4, dtype=np.float32))
    return tiny_model.write(tmp_path / "coloured.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two green cars on red ground, of which one is cut out by its box in a table; and one red."""
    root = tmp_path / "photos"
    root.mkdir()
    width, height = (10 * side for side in SIZE)
    box = [10 * side for side in CAR]
    rows = ["file,label,split,x1,y1,x2,y2"]
    for number, (colour, label) in enumerate(
        [(GREEN, LABELS[1]), (GREEN, LABELS[1]), (RED, LABELS[0])]
    ):
        image = Image.new("RGB", (width, height), RED)
        patch = Image.new("RGB", (box[2] - box[0] + 40, box[3] - box[1] + 40), colour)
        image.paste(patch, (box[0] - 20, box[1] - 20))
        image.save(root / f"{number}.png")
        rows.append(f"{number}.png,{label},test,{','.join(map(str, box))}")
    (root / "cars.csv").write_text("\n".join(rows) + "\n")
    return root


def test_each_way_to_crop(
    carspotter: Carspotter, coloured: Path, data: Path, tmp_path: Path
) -> None:
    # A car of brightness 1/3 is found at a score of 0.9/3; black ones would not be.
    file = tiny_detectors.localiser(tmp_path / "l.onnx", [CAR], [0.9], threshold=0.2)

    def measured(*options: str | Path) -> tuple[float, str]:
        done = carspotter("evaluate", coloured, "--data", data, "--json", *options)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["metrics"]["exact"]["top1"], found["data"]["crop"]

    assert measured() == (pytest.approx(1 / 3), "whole")
    assert measured("--crop", "none") == (pytest.approx(1 / 3), "whole")
    assert measured("--crop", "box") == (1, "box + 16 px")
    assert measured("--crop", "auto", "--detector", file) == (1, "auto")
    # Where no car is found, the whole picture is looked at.
    blind = tiny_detectors.localiser(tmp_path / "blind.onnx", [CAR], [0.1], threshold=0.5)
    assert measured("--crop", "auto", "--detector", blind) == (pytest.approx(1 / 3), "auto")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--crop", "sideways"), "auto, none or box"),
        (("--crop", "auto", "--detector", "none"), "--crop auto needs a detector"),
        (("--detector", "some.onnx"), "--detector needs --crop auto"),
        (("--crop", "auto", "--detector", "gone.onnx"), "gone.onnx: no such"),
    ],
)
def test_what_does_not_go_together(
    carspotter: Carspotter, coloured: Path, data: Path, options: tuple[str, ...], said: str
) -> None:
    done = carspotter("evaluate", coloured, "--data", data, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr

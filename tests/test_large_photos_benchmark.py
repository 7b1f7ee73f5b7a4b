"""Large photos: they are as large as said, Pillow stands beside, and answers are compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model
from conftest import ROOT
from PIL import Image

from benchmarks.large_photos import enlarge
from carspotter.data import open_data_set


def test_speeds_and_answers_stand_beside_pillow(drawn_data: Path, tmp_path: Path) -> None:
    model, out = tiny_model.write(tmp_path / "tiny.onnx"), tmp_path / "large.json"
    small = ["--megapixels", "1", "--every", "4", "--timed", "2", "--rounds", "1"]
    places: list[str | Path] = ["--data", drawn_data, "--work", tmp_path / "photos", "--out", out]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large_photos", "--model", model, *places, *small],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert json.loads(done.stdout) == found
    assert found["photos"] == 6
    speeds = found["photos_per_second"]
    assert set(speeds) == {*found["times_as_fast_as"], "carspotter"}
    for name, ratio in found["times_as_fast_as"].items():
        assert ratio == pytest.approx(speeds["carspotter"] / speeds[name])  # of one round
    assert set(found["the_same"]) == {"answer", "first name"}
    assert all(0 <= share <= 1 for share in found["the_same"].values())


def test_photos_are_as_large_as_said_and_made_once(drawn_data: Path, tmp_path: Path) -> None:
    pictures = open_data_set(drawn_data).split("test")[:2]
    files = enlarge(pictures, tmp_path, 1)
    for file in files:
        with Image.open(file) as image:
            assert image.format == "JPEG"
            assert image.width * image.height == pytest.approx(1e6, rel=0.01)
    before = [file.stat().st_mtime_ns for file in files]
    assert enlarge(pictures, tmp_path, 1) == files
    assert [file.stat().st_mtime_ns for file in files] == before
    assert files[0].read_bytes() != files[1].read_bytes()

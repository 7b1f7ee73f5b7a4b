"""`carspotter bench`: what it measures is there, and has the order of magnitude of its kind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny_model
from conftest import Carspotter
from PIL import Image

from carspotter.bench.measure import run_process
from carspotter.bench.photos import write_photos
from carspotter.errors import CarspotterError


@pytest.mark.parametrize("megapixels", [0.05, 2.0])
def test_photos_have_the_size_and_the_weight_of_photos(tmp_path: Path, megapixels: float) -> None:
    files = write_photos(tmp_path, megapixels, 2)
    for file in files:
        with Image.open(file) as image:
            width, height = image.size
        assert width * height == pytest.approx(megapixels * 1e6, rel=0.01)
        assert width / height == pytest.approx(4 / 3, rel=0.01)
        assert 0.15 < file.stat().st_size / (width * height) < 1.0
    assert files[0].read_bytes() != files[1].read_bytes()


def test_all_is_measured(carspotter: Carspotter, tmp_path: Path) -> None:
    model = tiny_model.write(tmp_path / "tiny.onnx")
    small = ("--megapixels", "0.05", "--megapixels", "3", "--photos", "20")
    done = carspotter("bench", "--model", model, *small, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["model"]["name"] == "tiny"
    assert said["machine"]["cores"] >= 1
    first, second = said["photos"]
    assert [first["megapixels"], second["megapixels"]] == [0.05, 3]
    for one in (first, second):
        assert one["cold_to_bare"] == pytest.approx(one["cold_seconds"] / one["bare_seconds"])
        assert one["cold_seconds"] > one["p50_ms"] / 1000
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["photos_per_second"] > 0
        assert one["peak_mib"] > 20
    assert second["p50_ms"] > first["p50_ms"]  # sixty times the pixels


def test_a_wrong_model_is_told_before_anything_is_measured(carspotter: Carspotter) -> None:
    done = carspotter("bench", "--model", "gone.onnx")
    assert done.returncode in (1, 2)
    assert "gone.onnx" in done.stderr


def test_a_peer_is_measured_beside(carspotter: Carspotter, tmp_path: Path) -> None:
    model, report = tiny_model.write(tmp_path / "tiny.onnx"), tmp_path / "peers.json"
    chosen = ("--peer", "plain_onnxruntime", "--peers-python", sys.executable)
    small = ("--megapixels", "0.05", "--photos", "20")
    done = carspotter("bench", "--model", model, *chosen, *small, "--report", report)
    assert done.returncode == 0, done.stderr
    assert "a plain onnxruntime script" in done.stdout
    ours, theirs = json.loads(report.read_text())["peers"]
    assert (ours["contender"], theirs["contender"]) == ("carspotter", "plain_onnxruntime")
    for key, ratio in theirs["times_ours"].items():
        assert ratio == pytest.approx(theirs[key] / ours[key])
    assert set(theirs["times_ours"]) == {
        "cold_seconds",
        "p50_ms",
        "p99_ms",
        "photos_per_second",
        "peak_mib",
    }
    assert set(ours["times_ours"].values()) == {1.0}


def test_a_peer_that_fails_is_named_and_the_others_are_measured(
    carspotter: Carspotter, tmp_path: Path
) -> None:
    model = tiny_model.write(tmp_path / "tiny.onnx")
    python = tmp_path / "python"  # has no onnxruntime: it knows only its own packages
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    chosen = ("--peer", "plain_onnxruntime", "--peers-python", python)
    small = ("--megapixels", "0.05", "--photos", "5", "--json")
    done = carspotter("bench", "--model", model, *chosen, *small)
    assert done.returncode == 1
    ours, theirs = json.loads(done.stdout)["peers"]
    assert ours["photos_per_second"] > 0
    assert "No module named" in theirs["error"]
    assert f"a plain onnxruntime script, 0.05 MP: {theirs['error']}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--peer", "somebody"), "must be one of plain_onnxruntime, timm_eager"),
        (("--peers", "--peers-python", "nowhere/python"), "nowhere/python"),
    ],
)
def test_wrong_peers_are_told_before_anything_is_measured(
    carspotter: Carspotter, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    model = tiny_model.write(tmp_path / "tiny.onnx")
    done = carspotter("bench", "--model", model, *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_measured_process_that_the_system_ends() -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(CarspotterError, match="ended by signal 9"):
        run_process([sys.executable, "-c", killed])

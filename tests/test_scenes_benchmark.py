"""The benchmark of whole scenes: what it composes, and what it counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_detectors
from conftest import ROOT, encoded
from PIL import Image
from tiny_detectors import SIZE

import carspotter
from benchmarks.scenes import measure
from benchmarks.scenes.material import (
    CarsToName,
    Composed,
    cars_to_name,
    compose,
    hidden,
    unseen_backgrounds,
)
from carspotter.data.scenes import part_of, read_backgrounds
from carspotter.detect import Localiser

WHITE = (255, 255, 255)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "cache"))


def pictures(file: Path, colours: list[tuple[int, int, int]], **columns: list[object]) -> Path:
    rows = [
        {
            "image": {"bytes": encoded(Image.new("RGB", (96, 64), colour)), "path": f"{n}.jpg"},
            **{key: values[n] for key, values in columns.items()},
        }
        for n, colour in enumerate(colours)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.fixture
def backgrounds(tmp_path: Path) -> Path:
    return pictures(tmp_path / "grounds.parquet", [(0, 0, 90)] * 40)


@pytest.fixture
def cars(drawn_data: Path) -> CarsToName:
    return cars_to_name(drawn_data, every=1)


def test_each_car_is_in_one_scene(cars: CarsToName, backgrounds: Path) -> None:
    grounds = unseen_backgrounds(backgrounds)
    kept_out = [p for p in read_backgrounds(backgrounds) if part_of(p) == "test"]
    assert 0 < len(grounds) == len(kept_out) < 40
    scenes = list(compose(cars, grounds, seed=0))
    assert sorted(n for scene in scenes for n in scene.cars) == list(range(24))
    assert {len(scene.cars) for scene in scenes} == {1, 2, 3}
    again = list(compose(cars, grounds, seed=0))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(scenes, again, strict=True))
    for scene in scenes:
        assert scene.pixels.shape == (640, 960, 3)
        for left, top, right, bottom in scene.boxes:
            assert 0 <= left < right <= 960
            assert 0 <= top < bottom <= 640
        assert all(0 < share < 1.01 for share in scene.seen)
    shares = [share for scene in scenes for share in scene.seen]
    assert min(shares) < 0.9 < 0.99 < max(shares)


def test_cars_are_counted_by_box_and_name(tmp_path: Path, model: Path) -> None:
    boxes = [(2, 4, 10, 12), (16, 8, 36, 28)]
    file = tiny_detectors.localiser(tmp_path / "l.onnx", boxes, [0.9, 0.9])
    spotter = carspotter.load(model, detector=file, threads=1)
    width, height = (10 * side for side in SIZE)
    photo = np.full((height, width, 3), 255, np.uint8)
    label = "Audi S4 Sedan 2012"  # what the tiny model says of anything

    def scene(*where: tuple[int, int, int, int]) -> Composed:
        there = [np.array(box, float) * 10 for box in where]
        return Composed(photo, list(range(len(where))), there, [1.0, 0.7][: len(where)])

    cars = CarsToName(
        [label, "Audi TT Hatchback 2011"],
        [photo[:20, :20], photo[:20, :20]],  # type: ignore[arg-type]  # as good as decoded ones
        np.ones((2, 2), np.float32),
        np.tile(np.array([0, 0, 1, 1], np.float32), (2, 1)),
    )
    both = measure.composites(spotter, cars, [scene(boxes[1], boxes[0])])
    every = {"cars": 2, "found": 1.0, "top1": 0.5, "top1_as_a_crop": 0.5}
    assert both["all_cars"] == every
    assert both["whole_cars"] == {"cars": 1, "found": 1.0, "top1": 1.0, "top1_as_a_crop": 1.0}
    assert both["top1_main_car"] == both["top1_main_car_as_a_crop"] == 1.0
    elsewhere = measure.composites(spotter, cars, [scene((0, 20, 10, 32))])
    missed = {"cars": 1, "found": 0.0, "top1": 0.0, "top1_as_a_crop": 1.0}
    assert elsewhere["all_cars"] == elsewhere["whole_cars"] == missed


@pytest.mark.parametrize(
    ("by", "share"), [((0, 0, 5, 5), 0.25), ((5, 5, 20, 20), 0.25), ((20, 20, 30, 30), 0.0)]
)
def test_what_another_car_hides(by: tuple[int, int, int, int], share: float) -> None:
    assert hidden(np.array([0.0, 0, 10, 10]), np.array(by, float)) == pytest.approx(share)


def test_streets_count_what_is_wide_enough(tmp_path: Path) -> None:
    def box(label: str, *corners: float) -> dict[str, object]:
        return {"label": label, **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))}

    # Of a frame 96 wide: 6 pixels are the least.
    frames = pictures(
        tmp_path / "frames.parquet",
        [WHITE, WHITE],
        split=["test", "test"],
        boxes=[
            [box("car", 24, 16, 48, 32), box("truck", 60, 8, 64, 16), box("ignore", 72, 0, 96, 20)],
            [box("car", 0, 40, 24, 64)],
        ],
    )
    scale = np.array([SIZE[0] / 96, SIZE[1] / 64] * 2)
    found = [(24, 16, 48, 32), (60, 8, 64, 16), (74, 2, 94, 18), (50, 40, 54, 60)]
    file = tiny_detectors.localiser(
        tmp_path / "l.onnx", [np.array(b) * scale for b in found], [0.9, 0.8, 0.7, 0.6]
    )
    said = measure.streets(Localiser(file, threads=1), frames)
    assert (said["frames"], said["vehicles"]) == (2, 2)
    # One of two is found; in the second frame the first and third box are wrong, in the first none.
    assert said["curve"][0]["precision"] == pytest.approx(1)
    assert max(s["recall"] for s in said["curve"]) == pytest.approx(0.5)


class BrightIsSure:
    """A localiser that takes the whole picture for a vehicle, the surer the brighter it is."""

    card = SimpleNamespace(threshold=0.5)

    def boxes(self, photo: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        whole = np.array([[0, 0, *photo.size]], np.float32)
        return whole, np.array([np.asarray(photo).mean() / 255], np.float32)


def test_pictures_without_a_car_at_the_threshold_that_keeps_the_cars() -> None:
    def grey(*levels: float) -> list[np.ndarray]:
        return [np.full((20, 30, 3), round(255 * level), np.uint8) for level in levels]

    crops = grey(0.1, *[0.8] * 19, *[0.9] * 20)
    whole, corner = np.array([0, 0, 30, 20.0]), np.array([0, 0, 5, 5.0])
    # Whatever its score, a box that is not the car's does not keep it.
    scenes = [Composed(p, [0], [whole], [1.0]) for p in grey(*[0.6] * 18)]
    scenes += [Composed(p, [0], [corner], [1.0]) for p in grey(0.9, 0.9)]
    none = np.zeros((40, 4), np.float32)
    found = measure.quiet(
        BrightIsSure(),  # type: ignore[arg-type]  # has what is measured, and no file
        # Pictures in a list instead of a cache on disk: both have a length and items.
        CarsToName([""] * 40, crops, none[:, :2], none),  # type: ignore[arg-type]
        scenes,
        grey(0.2, 0.4, 0.55, 0.7, 0.85),  # type: ignore[arg-type]  # likewise
    )
    assert found == {
        "threshold_of_the_file": 0.4,
        "threshold_keeping_95%_of_crops": 0.8,
        "threshold_keeping_95%_of_composites": 0.0,
    }


def test_the_command(drawn_data: Path, backgrounds: Path, model: Path, tmp_path: Path) -> None:
    frames = pictures(
        tmp_path / "frames.parquet",
        [WHITE],
        split=["test"],
        boxes=[[{"label": "car", "x1": 10.0, "y1": 10.0, "x2": 80.0, "y2": 60.0}]],
    )
    file = tiny_detectors.localiser(tmp_path / "l.onnx", [(4, 5, 33, 30)], [0.9])
    arguments = {
        "--data": drawn_data,
        "--backgrounds": backgrounds,
        "--frames": frames,
        "--detector": file,
        "--model": model,
        "--every": 2,
        "--out": tmp_path / "report",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.scenes",
            *(str(part) for pair in arguments.items() for part in pair),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CARSPOTTER_CACHE": str(tmp_path / "cache")},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "scenes.json").read_text())
    assert found["crops"]["pictures"] == found["composites"]["all_cars"]["cars"] == 12
    assert found["streets"]["ap50"] == pytest.approx(1)
    assert 0 <= found["no_cars"]["unknown_without_a_box"] <= 1
    assert found["cost_of_one_photo"]["median"] > 0
    # The stand-in finds one and the same vehicle on all but dark pictures: on each crop, but no
    # pasted car.
    assert found["no_box_without_a_car"] == {
        "threshold_of_the_file": 1.0,
        "threshold_keeping_95%_of_crops": 1.0,
        "threshold_keeping_95%_of_composites": 0.0,
    }
    assert (tmp_path / "report" / "curve.png").stat().st_size > 1000

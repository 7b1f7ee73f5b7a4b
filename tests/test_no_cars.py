"""`evaluate --no-cars`: how well pictures without a car are told from known cars."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from conftest import Carspotter
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny_model import BLACK, LABELS, RED

from carspotter.data.scenes import part_of, read_backgrounds
from carspotter.evaluate.no_cars import apartness

scores = st.lists(st.floats(-40, 40, allow_nan=False, width=32), min_size=1, max_size=30)


@settings(deadline=None)
@given(scores, scores)
def test_auroc_is_that_of_another_implementation(cars: list[float], others: list[float]) -> None:
    found = apartness(np.array(cars), np.array(others))
    right = [1] * len(cars) + [0] * len(others)
    assert found.auroc == pytest.approx(roc_auc_score(right, cars + others), abs=1e-6)


def test_false_alarms_at_95_of_100_cars() -> None:
    cars = np.arange(100, dtype=float)
    assert apartness(cars, np.array([4.0, 5.0, 6.0, 7.0])).false_alarms == 0.75
    assert apartness(cars, np.array([-1.0])).false_alarms == 0


def written(file: Path, colours: list[tuple[int, int, int]]) -> Path:
    """A parquet file of pictures of one colour."""
    rows = []
    for number, colour in enumerate(colours):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": f"{number}.png"})
    pq.write_table(pa.table({"image": rows}), file)
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 48), RED).save(root / f"{number}.png")
    rows = [f"{number}.png,{LABELS[number % 2]},test" for number in range(4)]
    (root / "cars.csv").write_text("\n".join(["file,label,split", *rows]) + "\n")
    return root


def test_dark_pictures_are_no_cars(carspotter: Carspotter, data: Path, tmp_path: Path) -> None:
    model = tiny_model.write(tmp_path / "tiny.onnx")
    # One in four is red, which the model takes for a car it knows.
    file = written(tmp_path / "grounds.parquet", [BLACK, BLACK, BLACK, RED] * 10)
    kept = [p for p in read_backgrounds(file) if part_of(p) == "test"]
    red = sum(int(Path(p.key).stem.split(".")[0]) % 4 == 3 for p in kept)
    assert 0 < red < len(kept) < 40
    report = tmp_path / "report"
    done = carspotter(
        "evaluate", model, "--data", data, "--no-cars", file, "--report", report, "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["no_cars"]
    assert found["pictures"] == len(kept)
    assert found["answered"] == pytest.approx(red / len(kept))
    # A picture as red as the cars is as likely above as below them.
    assert found["confidence"]["auroc"] == pytest.approx(1 - red / len(kept) / 2)
    assert found["confidence"]["false_alarms"] == pytest.approx(red / len(kept))
    assert found["familiarity"] is None
    assert f"Of {len(kept)} pictures without a car" in (report / "report.html").read_text()
    told = carspotter("evaluate", model, "--data", data, "--no-cars", file).stdout
    assert f"{len(kept)} pictures without a car" in told


def test_without_the_option_nothing_is_said(
    carspotter: Carspotter, data: Path, tmp_path: Path
) -> None:
    model = tiny_model.write(tmp_path / "tiny.onnx")
    done = carspotter("evaluate", model, "--data", data, "--json")
    assert json.loads(done.stdout)["no_cars"] is None


@pytest.mark.parametrize(("name", "said"), [("gone.parquet", "no such"), ("text.parquet", "text")])
def test_files_that_are_none(
    carspotter: Carspotter, data: Path, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    model = tiny_model.write(tmp_path / "tiny.onnx")
    done = carspotter("evaluate", model, "--data", data, "--no-cars", tmp_path / name)
    assert done.returncode == 2
    assert name in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_split_that_has_none(carspotter: Carspotter, data: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "grounds.parquet", [BLACK] * 40)
    table = pq.read_table(file)
    trained = [n for n, p in enumerate(read_backgrounds(file)) if part_of(p) == "train"]
    pq.write_table(table.take(trained), file)
    model = tiny_model.write(tmp_path / "tiny.onnx")
    done = carspotter("evaluate", model, "--data", data, "--no-cars", file)
    assert done.returncode != 0
    assert "none of its pictures belongs to the part 'test'" in done.stderr

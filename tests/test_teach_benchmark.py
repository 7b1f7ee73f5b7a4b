"""The benchmark of teaching, on drawn cars of which one class is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from conftest import draw_car, encoded, write_parquet
from training import PLAIN
from typer.testing import CliRunner

import carspotter
from benchmarks.teach.__main__ import app
from benchmarks.teach.left_out import choose
from benchmarks.teach.measure import CONSTANTS
from benchmarks.views import write_view
from carspotter.data import open_data_set
from carspotter.errors import UsageError
from carspotter.likeness import IN_SPACE
from carspotter.names import CarName

NAMES = tuple(f"{hue} Car {n}" for n, hue in enumerate(("Red", "Green", "Blue", "Yellow")))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four")
    for split, count, start in (("train", 64, 0), ("test", 16, 1000)):
        rows = [
            (f"cars_{split}/{i:05d}.jpg", encoded(draw_car(start + i, i % 4)), i % 4)
            for i in range(count)
        ]
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", rows, NAMES)
    return root


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "cache"))


def benchmark(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_classes_are_chosen_by_the_seed() -> None:
    names = [f"car {n}" for n in range(40)]
    chosen = choose(names, 10, 0)
    assert chosen == choose(names[::-1], 10, 0)
    assert len(set(chosen)) == 10
    assert chosen != choose(names, 10, 1)
    for count in (0, 39):
        with pytest.raises(UsageError):
            choose(names, count, 0)


def test_the_view_lacks_the_classes(data: Path, tmp_path: Path) -> None:
    whole = open_data_set(data)
    kept = ((p, p.label) for p in whole.pictures if p.label != NAMES[1])
    write_view(kept, tmp_path / "view")
    view = open_data_set(tmp_path / "view")
    assert set(view.class_names) == set(NAMES) - {NAMES[1]}
    assert (len(view.split("train")), len(view.split("test"))) == (48, 12)


def test_from_training_to_figures(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    values = {**PLAIN, "sizes": list(PLAIN["sizes"]), "epochs": 2}
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    work = tmp_path / "work"
    common = ("--data", data, "--work", work, "--recipe", recipe, "--classes", "1")
    options = ("--draws", "2", "--shots", "1,3")
    printed = benchmark("run", *common, *options, "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "teach.json").read_text())
    assert json.loads(printed) == found
    assert (found["known"], len(found["left_out"])) == (3, 1)
    assert found["model_has_seen_them"] is False
    ways = ("among_known", "in_space", "plain")
    assert [(r["compared"], r["photos"]) for r in found["results"]] == [
        (way, photos) for way in ways for photos in (1, 3)
    ]
    for row in found["results"]:
        assert (row["pictures_taught"], row["pictures_known"]) == (4, 12)
        assert row["all"] == pytest.approx((4 * row["taught"] + 12 * row["known"]) / 16)
        assert row["known_loss"] == pytest.approx(100 * (row["known_before"] - row["known"]))

    # The second time nothing is trained, and the constants come from the same model.
    run = work / "run" / "log.txt"
    before = run.read_text()
    constants = json.loads(benchmark("fit", *common, *options))
    for way in ways:
        assert set(constants[way]) == set(CONSTANTS)
        assert (constants[way]["known_slope"] != 0) == (way == "among_known")
    assert all(constants["in_space"][key] != getattr(IN_SPACE, key) for key in ("slope", "spread"))
    assert run.read_text() == before
    with pytest.raises(UsageError, match="other settings"):
        benchmark("run", *common[:-1], "2")


def test_a_space_for_a_file_without_one(data: Path, tmp_path: Path) -> None:
    card = tiny_model.card([CarName(name) for name in NAMES])
    file = tiny_model.write(tmp_path / "old.onnx", card.to_json())
    old = carspotter.load(file)
    assert old.likeness.space is None
    benchmark("space", "--data", data, "--model", file, "--out", tmp_path / "new.onnx")
    new = carspotter.load(tmp_path / "new.onnx")
    assert new.likeness.space is not None
    assert new.likeness.space.known is not None
    assert new.card == old.card
    inputs = np.zeros((1, old.card.input_size, old.card.input_size, 3), np.uint8)
    assert np.array_equal(new.logits(inputs), old.logits(inputs))

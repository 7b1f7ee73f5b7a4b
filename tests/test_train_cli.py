"""Training through the command line, in processes of its own, on drawn pictures."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CLASSES, Carspotter, draw_car, encoded, write_parquet

from carspotter.train import checkpoint, load_recipe
from carspotter.train.recipe import Recipe

# One thread: the network is so small that more would only wait for each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

EPOCHS = 6
STEPS = 6
"""Of an epoch: 54 training pictures in batches of 8."""

RECIPE = f"""
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
freeze_stages = 0
val_fraction = 0.25
epochs = {EPOCHS}
sizes = [48, 64]
eval_size = 64
batch_size = 8
lr = 1e-2
backbone_lr_scale = 1.0
dropout = 0.0
rotation = 0
mix_probability = 0
crop_scale = [0.6, 1.0]
ema_decay = 0.9
precision = "fp32"
checkpoint_minutes = 0.0005
"""

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@dataclass(frozen=True)
class Trained:
    """One trained run, shared by the tests: none of them may change it."""

    recipe: Path
    run: Path
    model: Path
    export: Done

    def lines(self) -> list[dict[str, Any]]:
        return read_lines(self.run)


@pytest.fixture(scope="module")
def quick(carspotter: Carspotter) -> Run:
    return lambda *arguments: carspotter(*arguments, env=ONE_THREAD)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def trained(
    quick: Run, recipe: Path, drawn_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    done = quick("train", recipe, "--data", drawn_data, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    model = folder / "model.onnx"
    export = quick("export", folder / "run", "--out", model, "--json")
    assert export.returncode == 0, export.stderr
    return Trained(recipe, folder / "run", model, export)


def read_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def read_split(run: Path) -> dict[str, str]:
    with (run / "split.csv").open(newline="") as file:
        return {row["key"]: row["part"] for row in csv.DictReader(file)}


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(folder.iterdir())}


def same_answers(first: Path, second: Path) -> bool:
    """Whether two runs' best checkpoints hold the same weights, to the last bit."""
    one, other = (checkpoint.load(run / "best.ckpt") for run in (first, second))
    assert one["model"].keys() == other["model"].keys()
    assert one["epoch"] == other["epoch"]
    return all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])


# --- a run -------------------------------------------------------------------------------------


def test_run_folder_is_complete(trained: Trained) -> None:
    expected = {"recipe.toml", "split.csv", "metrics.jsonl", "best.ckpt", "last.ckpt"}
    there = {file.name for file in trained.run.iterdir()}
    assert there == expected | {"curves.png", "log.txt", "about.json"}
    assert (trained.run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_recipe(str(trained.run / "recipe.toml")) == load_recipe(str(trained.recipe))
    assert set(load_recipe(str(trained.run / "recipe.toml")).model_dump()) == set(
        Recipe.model_fields
    )
    assert (trained.run / "log.txt").read_text().count("validation") >= EPOCHS


def test_split_lists_each_training_picture_once(trained: Trained) -> None:
    split = read_split(trained.run)
    assert set(split) == {f"train/{i:05d}.jpg" for i in range(72)}
    for label in range(3):
        of_class = [split[f"train/{i:05d}.jpg"] for i in range(label, 72, 3)]
        assert (of_class.count("train"), of_class.count("val")) == (18, 6)


def test_one_line_of_metrics_an_epoch(trained: Trained) -> None:
    lines = trained.lines()
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    assert [line["size"] for line in lines] == [48] * 3 + [64] * 3
    for line in lines:
        assert set(line) >= {
            "lr",
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "val_top5",
            "val_macro_f1",
            "pictures_per_second",
            "seconds",
        }
        assert 0 <= line["train_accuracy"] <= 1
        assert 0 <= line["val_accuracy"] <= 1


def test_it_learns(trained: Trained) -> None:
    lines = trained.lines()
    assert lines[-1]["train_loss"] < 0.8 * lines[0]["train_loss"]
    assert lines[-1]["val_loss"] < 0.5 * lines[0]["val_loss"]
    assert lines[-1]["val_accuracy"] >= 0.8  # chance: a third
    assert lines[-1]["lr"] < lines[0]["lr"]


def test_best_checkpoint_is_that_of_the_best_epoch(trained: Trained) -> None:
    best = checkpoint.load_checkpoint(trained.run)
    accuracies = [line["val_accuracy"] for line in trained.lines()]
    assert best.val_accuracy == max(accuracies)
    assert best.epoch == 1 + accuracies.index(max(accuracies))
    assert best.class_names == CLASSES
    assert best.trained_on["pictures"] == 54
    assert best.trained_on["val_pictures"] == 18


def test_export_says_how_far_it_agrees(trained: Trained) -> None:
    said = json.loads(trained.export.stdout)
    assert said["file"] == str(trained.model)
    assert said["parity"]["pictures"] == 24
    assert said["parity"]["agreement"] == 1.0
    assert said["parity"]["largest_difference"] < 1e-3
    assert said["accuracy"]["measured"]["split"] == "test"


def test_checkpoint_file_and_identify_agree(
    quick: Run, trained: Trained, drawn_data: Path, tmp_path: Path
) -> None:
    reports = {}
    for name, model in (("run", trained.run), ("file", trained.model)):
        report = tmp_path / name
        done = quick("evaluate", model, "--data", drawn_data, "--report", report, "--json")
        assert done.returncode == 0, done.stderr
        reports[name] = json.loads((report / "metrics.json").read_text())
        assert json.loads(done.stdout) == reports[name]
        assert reports[name]["data"]["split"] == "test"
        assert reports[name]["data"]["pictures"] == 24
    assert reports["run"]["metrics"] == reports["file"]["metrics"]
    exact = reports["file"]["metrics"]["exact"]
    assert exact["top1"] >= 0.8
    measured = json.loads(trained.export.stdout)["accuracy"]["measured"]["exact"]
    assert measured["top1"] == exact["top1"]

    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(24):
        (photos / f"{i:05d}.jpg").write_bytes(encoded(draw_car(1000 + i, i % 3)))
    done = quick("identify", photos, "--model", trained.model, "--json")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["photo"] for r in results] == [str(photos / f"{i:05d}.jpg") for i in range(24)]
    assert all(r["model"]["name"] == "tiny" and r["error"] is None for r in results)
    right = [r["candidates"][0]["label"] == CLASSES[i % 3] for i, r in enumerate(results)]
    assert sum(right) / 24 == pytest.approx(exact["top1"], abs=1e-6)
    sure = [(r, CLASSES[i % 3]) for i, r in enumerate(results) if r["answer"]["level"] == "exact"]
    assert len(sure) >= 8
    assert sum(r["answer"]["label"] == label for r, label in sure) >= 0.8 * len(sure)


# --- refusals ----------------------------------------------------------------------------------


def test_run_is_not_overwritten(quick: Run, trained: Trained, drawn_data: Path) -> None:
    before = snapshot(trained.run)
    done = quick("train", trained.recipe, "--data", drawn_data, "--out", trained.run)
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(trained.run) == before


def test_run_is_not_resumed_by_another_recipe(
    quick: Run, trained: Trained, drawn_data: Path
) -> None:
    before = snapshot(trained.run)
    where = ("--data", drawn_data, "--out", trained.run)
    done = quick("train", trained.recipe, *where, "--resume", "--set", "flip=0.25")
    assert done.returncode == 2
    assert "flip" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(trained.run) == before


def test_unknown_key(quick: Run, recipe: Path, drawn_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = quick("train", recipe, "--data", drawn_data, "--out", out, "--set", "epoch=3")
    assert done.returncode == 2
    assert "'epoch'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_missing_data(quick: Run, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = quick("train", recipe, "--data", tmp_path / "nowhere", "--out", out)
    assert done.returncode == 2
    assert "nowhere: no such folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def drawn_rows(count: int) -> list[tuple[str, bytes | None, int]]:
    return [(f"{i:05d}.jpg", encoded(draw_car(i, i % 3)), i % 3) for i in range(count)]


def test_class_without_pictures(quick: Run, recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_parquet(file, drawn_rows(24), (*CLASSES, "White Whale Van 1999"))
    done = quick("train", recipe, "--data", tmp_path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "White Whale Van 1999" in done.stderr
    assert "Traceback" not in done.stderr
    # What never began must not bar the way for the next try.
    assert not (tmp_path / "run" / "recipe.toml").exists()


def test_broken_pictures_are_left_out_and_named(
    quick: Run, trained: Trained, tmp_path: Path
) -> None:
    rows = drawn_rows(72)
    split = read_split(trained.run)  # the same keys and labels: the same split
    chosen = [
        next(i for i in range(start, 72) if split[f"train/{i:05d}.jpg"] == part)
        for start, part in ((0, "train"), (30, "train"), (0, "val"))
    ]
    for place, damage in zip(chosen, (b"\xff\xd8\xff no picture", None, b""), strict=True):
        rows[place] = (rows[place][0], damage, rows[place][2])
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    where = ("--data", tmp_path, "--out", tmp_path / "run")
    done = quick("train", trained.recipe, *where, "--set", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert read_split(tmp_path / "run") == split
    log = (tmp_path / "run" / "log.txt").read_text()
    named = [place for place in range(72) if f"train/{place:05d}.jpg" in log]
    assert named == sorted(chosen)
    assert [line["epoch"] for line in read_lines(tmp_path / "run")] == [1]
    assert checkpoint.load_checkpoint(tmp_path / "run").trained_on["pictures"] == 52


# --- interrupted runs --------------------------------------------------------------------------


def stop_in_an_epoch(process: subprocess.Popen[bytes], run: Path) -> dict[str, Any]:
    """Wait until an epoch after the first is under way and saved; the process stands still then."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        if (run / "last.ckpt").is_file():
            os.killpg(process.pid, signal.SIGSTOP)
            at: dict[str, Any] = checkpoint.load(run / "last.ckpt")["progress"]
            if at["epoch"] >= 1 and 0 < at["step"] < STEPS:
                return at
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.02)
    raise AssertionError("no checkpoint within an epoch was seen")


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "carspotter", *map(str, arguments)]


def test_killed_run_goes_on_as_if_nothing_had_happened(
    quick: Run, trained: Trained, drawn_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("train", trained.recipe, "--data", drawn_data, "--out", run)
    environment = {**os.environ, **ONE_THREAD, "CARSPOTTER_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command(arguments),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            at = stop_in_an_epoch(process, run)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with the workers that load pictures
    assert process.returncode == -signal.SIGKILL
    assert len(read_lines(run)) == at["epoch"] < EPOCHS
    # What a run that was killed a little later may leave: a line too many, and half a line.
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**read_lines(run)[-1], "epoch": at["epoch"] + 1}) + '\n{"epoch": ')

    done = quick(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    resumed = f"resumed in epoch {at['epoch'] + 1} after {at['step']} steps"
    assert resumed in (run / "log.txt").read_text()
    timing = ("seconds", "pictures_per_second")
    found, expected = (
        [{key: value for key, value in line.items() if key not in timing} for line in lines]
        for lines in (read_lines(run), trained.lines())
    )
    assert found == expected
    assert same_answers(run, trained.run)


KILLED_AT_THE_END_OF_AN_EPOCH = """
import os
from carspotter.cli import main
from carspotter.train.run import RunFolder

write = RunFolder.write_metrics

def write_metrics(self, lines, *figures):
    if len(lines) == 2:
        os._exit(9)
    write(self, lines, *figures)

RunFolder.write_metrics = write_metrics
main()
"""


def test_checkpoint_is_never_ahead_of_the_metrics(
    trained: Trained, drawn_data: Path, tmp_path: Path
) -> None:
    # Killed at the worst moment: a line that is missing then, no resumed run writes again.
    arguments = ("train", trained.recipe, "--data", drawn_data, "--out", tmp_path / "run")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_THE_END_OF_AN_EPOCH, *map(str, arguments)],
        env={**os.environ, **ONE_THREAD, "CARSPOTTER_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    assert [line["epoch"] for line in read_lines(tmp_path / "run")] == [1]
    assert checkpoint.load(tmp_path / "run" / "last.ckpt")["progress"]["epoch"] == 1

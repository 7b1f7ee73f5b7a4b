"""Training by several real processes over gloo, through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import draw_car, encoded, write_parquet
from training import same, tiny

from carspotter.data import open_data_set
from carspotter.errors import UsageError
from carspotter.train import RunFolder, checkpoint
from carspotter.train.processes import make_fabric
from carspotter.train.validation import Validation

RECIPE = """
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
val_fraction = 0.6
epochs = 2
sizes = [48]
eval_size = 64
batch_size = 6
lr = 1e-2
backbone_lr_scale = 1.0
rotation = 0
mix_probability = 0.5
ema_decay = 0.9
precision = "fp32"
checkpoint_minutes = 0.0005
"""

TRAINING_PICTURES = 72
VAL_PICTURES = 108
"""Of 180: batches of 32, 32, 32 and 12, two for each of two processes."""

FIGURES = ("val_accuracy", "val_loss", "val_top5", "val_macro_f1")

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    count = TRAINING_PICTURES + VAL_PICTURES
    rows = [(f"{i:05d}.jpg", encoded(draw_car(i, i % 3, (48, 40))), i % 3) for i in range(count)]
    write_parquet(root / "data" / "train-00000-of-00001.parquet", rows)
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "OMP_NUM_THREADS": "1", "CARSPOTTER_CACHE": cache}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "carspotter", *map(str, arguments)]


def run(arguments: Sequence[str], environment: dict[str, str]) -> Done:
    """Run to the end; processes that wait for each other for ever are a failure."""
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def two(
    data: Path,
    recipe: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of two processes."""
    out = tmp_path_factory.mktemp("two") / "run"
    arguments = command("train", recipe, "--data", data, "--out", out, "--devices", "2")
    done = run(arguments, environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("best:") == 1, "each process said it"
    return out


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def untimed(out: Path) -> list[dict[str, Any]]:
    timing = ("seconds", "pictures_per_second")
    return [{k: v for k, v in line.items() if k not in timing} for line in lines(out)]


def measured_alone(out: Path, data: Path) -> dict[str, float]:
    """The figures of a run's best checkpoint, the loss among them, in this process."""
    found, parts = checkpoint.load_checkpoint(out), RunFolder(out).read_split()
    val = [p for p in open_data_set(data).split("train") if parts[p.key] == "val"]
    assert len(val) == VAL_PICTURES
    validation = Validation(val, found.class_names, found.recipe.area(), None, lambda reasons: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return validation(found.model, found.recipe.eval_size)
    finally:
        torch.set_num_threads(threads)


def test_figures_are_those_of_one_process(
    two: Path, data: Path, environment: dict[str, str]
) -> None:
    arguments = command("evaluate", two, "--data", data, "--split", "val", "--json")
    done = run(arguments, environment)
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)
    assert alone["data"]["pictures"] == VAL_PICTURES
    exact = alone["metrics"]["exact"]
    best = max(lines(two), key=lambda line: line["val_accuracy"])
    assert (best["val_accuracy"], best["val_top5"], best["val_macro_f1"]) == (
        exact["top1"],
        exact["top5"],
        exact["macro_f1"],
    )
    assert measured_alone(two, data) == {key: best[key] for key in FIGURES}
    # Counted once each: a share of so many pictures, and no other number.
    assert best["val_accuracy"] * VAL_PICTURES == pytest.approx(
        round(best["val_accuracy"] * VAL_PICTURES), abs=1e-4
    )


def test_all_processes_train(two: Path, data: Path, recipe: Path, tmp_path: Path) -> None:
    # 6 steps of 2 x 6 pictures; one process alone would take 12 steps of 6.
    progress = checkpoint.load(two / "last.ckpt")["progress"]
    assert progress["updates"] == 2 * TRAINING_PICTURES // (2 * 6)


def test_a_teacher_is_trained_by_all_processes(
    two: Path, data: Path, recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train = command("train", recipe, "--data", data, "--out", out, "--devices", "2")
    done = run([*train, "--set", f'teachers=["{recipe}"]', "--set", "epochs=1"], environment)
    assert done.returncode == 0, done.stderr
    assert untimed(out / "teachers" / "1-tiny") == untimed(two)
    assert len(untimed(out)) == 1


def test_torchrun(
    two: Path, data: Path, recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    train = command("train", recipe, "--data", data, "--out", tmp_path / "run")
    done = run([*launcher, "--master-port", "29533", *train[1:]], environment)
    assert done.returncode == 0, done.stderr
    assert untimed(tmp_path / "run") == untimed(two)

    others = [*train, "--devices", "3"]
    others[others.index(str(tmp_path / "run"))] = str(tmp_path / "other")
    done = run([*launcher, "--master-port", "29534", *others[1:]], environment)
    assert done.returncode != 0
    assert done.stderr.count("--devices 3: torchrun started 2 processes") == 1


def test_numbers_that_contradict_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("TORCHELASTIC_RUN_ID", "1"),
        ("LOCAL_WORLD_SIZE", "2"),
        ("GROUP_WORLD_SIZE", "3"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--devices 1: torchrun started 2 processes"):
        make_fabric(tiny(), devices=1)
    with pytest.raises(UsageError, match="--nodes 2: torchrun runs on 3 machines"):
        make_fabric(tiny(), devices=2, nodes=2)


def test_killed_and_resumed(
    two: Path, data: Path, recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = command("train", recipe, "--data", data, "--out", out, "--devices", "2")
    with subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 200
        while not (out / "last.ckpt").is_file():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert checkpoint.load(out / "last.ckpt")["progress"]["updates"] < 12
    done = run([*arguments, "--resume"], environment)
    assert done.returncode == 0, done.stderr
    assert untimed(out) == untimed(two)
    found, expected = (checkpoint.load(folder / "last.ckpt") for folder in (out, two))
    for part in ("model", "averaged", "optimizer"):
        assert same(found[part], expected[part]), part


def test_not_resumed_by_another_number_of_processes(
    two: Path, data: Path, recipe: Path, environment: dict[str, str]
) -> None:
    before = (two / "last.ckpt").read_bytes()
    done = run(
        command("train", recipe, "--data", data, "--out", two, "--resume"),
        environment,
    )
    assert done.returncode == 2, done.stderr
    assert "was trained by 2 processes, these are 1" in done.stderr
    assert (two / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ((), "2 of 3 classes have no training picture"),
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--set", "lr=-1"), "lr: "),
        # After the run has begun, and in the first process alone.
        (("--set", 'log_to=["mlflow"]'), "log_to: mlflow cannot be opened"),
    ],
    ids=["one class", "no data", "bad recipe", "no tracker"],
)
def test_an_error_is_told_once(
    recipe: Path,
    data: Path,
    environment: dict[str, str],
    tmp_path: Path,
    changes: tuple[str, ...],
    named: str,
) -> None:
    rows = [(f"{i}.jpg", encoded(draw_car(i)), 0) for i in range(12)]
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    out = tmp_path / "run"
    where = ("--data", data if "mlflow" in named else tmp_path, "--out", out, "--devices", "2")
    nowhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = run(command("train", recipe, *where, *changes), {**environment, **nowhere})
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("carspotter: ") == 1, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "last.ckpt").exists()
    assert out.exists() == ("mlflow" in named)

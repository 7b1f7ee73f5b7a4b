"""A run that is killed again and again ends as one that was left alone, to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conftest import Carspotter
from training import same

from carspotter.train import checkpoint

# Everything that draws at random is on, and weights, loss scale and patience have a past.
RECIPE = """
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
val_fraction = 0.25
epochs = 8
patience = 5
sizes = [48, 64]
eval_size = 64
batch_size = 4
accumulate = 2
lr = 3e-3
layer_decay = 0.9
backbone_lr_scale = 1.0
dropout = 0.3
drop_path = 0.2
rotation = 10
auto_augment = "randaugment"
erasing = 0.3
mix_probability = 0.5
sampling = "balanced"
ema_decay = 0.9
clip_norm = 1.0
precision = "fp16"
soup = 2
checkpoint_minutes = 0.0003
"""

KILLS = 3


def start(arguments: list[str], cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CARSPOTTER_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def updates(run: Path) -> int:
    """Optimiser steps that the last checkpoint knows of; 0 without one."""
    if not (run / "last.ckpt").is_file():
        return 0
    done: int = checkpoint.load(run / "last.ckpt")["progress"]["updates"]
    return done


def kill_after(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    """Kill the run, with the processes that load pictures, once it has saved so many steps."""
    deadline = time.monotonic() + 300
    try:
        while updates(run) < step:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def untimed(run: Path) -> list[dict[str, Any]]:
    timing = ("seconds", "pictures_per_second")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timing} for line in lines]


def test_killed_at_random_steps(carspotter: Carspotter, drawn_data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    left_alone, killed = tmp_path / "left-alone", tmp_path / "killed"
    done = carspotter(
        *("train", recipe, "--data", drawn_data, "--out", left_alone),
        env={"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    total = updates(left_alone)
    arguments = [sys.executable, "-m", "carspotter", "train", str(recipe)]
    arguments += ["--data", str(drawn_data), "--out", str(killed)]
    # Anywhere but in the last epoch, which might be over before the kill.
    steps = sorted(random.Random(total).sample(range(2, total - 8), KILLS))
    for number, step in enumerate(steps):
        process = start(arguments + ["--resume"] * (number > 0), tmp_path / "cache")
        kill_after(process, killed, step)
    assert not (killed / "best.ckpt").is_file() or updates(killed) < total
    done = carspotter(*arguments[3:], "--resume", env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resumed in epoch") == 1
    assert (killed / "log.txt").read_text().count("resumed in epoch") == KILLS

    assert untimed(killed) == untimed(left_alone)
    found, expected = (checkpoint.load(run / "last.ckpt") for run in (killed, left_alone))
    for part in ("model", "averaged", "optimizer", "precision"):
        assert same(found[part], expected[part]), part
    assert expected["precision"]["scale"] > 0
    timeless = ({**content["progress"], "seconds": 0} for content in (found, expected))
    assert next(timeless) == next(timeless)
    found, expected = (checkpoint.load(run / "best.ckpt") for run in (killed, left_alone))
    assert same(found, expected)

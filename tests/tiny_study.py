"""A study of seconds: drawn pictures without a test split, a tiny recipe, a search space."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from conftest import draw_car, encoded, write_parquet

Tune = Callable[..., CompletedProcess[str]]

EPOCHS = 4

RECIPE = f"""
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
freeze_stages = 0
val_fraction = 0.5
cache_side = 64
epochs = {EPOCHS}
sizes = [32]
eval_size = 32
batch_size = 6
warmup_epochs = 0.5
lr = 1e-2
backbone_lr_scale = 1.0
dropout = 0.0
rotation = 0
mix_probability = 0
crop_scale = [0.6, 1.0]
ema_decay = 0
precision = "fp32"
checkpoint_minutes = 0.0005
"""

HOPELESS, BURSTING = 1e-9, 1e30

SEARCH = f"""
lr = {{ choices = [0.01, 0.02, {HOPELESS}, {BURSTING}] }}
dropout = {{ low = 0.0, high = 0.3 }}
"""


@dataclass(frozen=True)
class Inputs:
    """What a study is made of."""

    recipe: Path
    search: Path
    data: Path

    def command(self, out: Path, trials: int, *more: str | Path) -> tuple[str | Path, ...]:
        named = ("--data", self.data, "--out", out, "--trials", str(trials))
        return ("tune", self.recipe, *named, "--search", self.search, *more)


def write_inputs(folder: Path) -> Inputs:
    rows: list[tuple[str, bytes | None, int]] = [
        (f"{i:05d}.jpg", encoded(draw_car(i, i % 3)), i % 3) for i in range(48)
    ]
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows)
    (folder / "tiny.toml").write_text(RECIPE)
    (folder / "search.toml").write_text(SEARCH)
    return Inputs(folder / "tiny.toml", folder / "search.toml", folder)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def finished(out: Path) -> list[dict[str, str]]:
    return [row for row in rows(out) if row["outcome"] in ("complete", "pruned", "failed")]


def run_of(out: Path, row: dict[str, str]) -> Path:
    return out / "trials" / f"{int(row['trial']):04d}"


def read_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

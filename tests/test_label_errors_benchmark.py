"""The benchmark of label errors, on drawn cars."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from training import PLAIN
from typer.testing import CliRunner

from benchmarks.label_errors.__main__ import app, broken
from carspotter.data import open_data_set
from carspotter.errors import UsageError


def test_labels_are_broken_by_the_seed() -> None:
    labels = ["a", "b", "c", "d"] * 25
    found = broken("abcd", labels, 0.1, 0)
    changed = [(old, new) for old, new in zip(labels, found, strict=True) if old != new]
    assert len(changed) == 10
    assert len(Counter(changed)) > 3
    assert found == broken("abcd", labels, 0.1, 0)
    assert found != broken("abcd", labels, 0.1, 1)


def test_from_training_to_figures(
    drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "tiny.toml"
    values = {**PLAIN, "sizes": list(PLAIN["sizes"]), "epochs": 2}
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    work = tmp_path / "work"
    common = ["--data", str(drawn_data), "--work", str(work), "--recipe", str(recipe)]

    def benchmark(*more: str) -> str:
        done = CliRunner().invoke(app, [*common, *more], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    printed = benchmark("--share", "0.1", "--out", str(tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "label-errors.json").read_text())
    assert json.loads(printed) == found
    count = len(open_data_set(drawn_data).split("train"))
    assert (found["all"]["pictures"], found["all"]["broken"]) == (count, round(0.1 * count))
    for key in ("pictures", "broken", "listed"):
        assert found["all"][key] == found["learnt_from"][key] + found["validation"][key]
    assert 0 <= found["all"]["recall"] <= 1

    before = (work / "run" / "log.txt").read_text()
    assert json.loads(benchmark("--share", "0.1")) == found  # nothing is trained again
    assert (work / "run" / "log.txt").read_text() == before
    with pytest.raises(UsageError, match="other settings"):
        benchmark("--share", "0.2")

"""The benchmark of time to accuracy: what it reads, what it concludes, and real runs of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT

from benchmarks.time_to_accuracy.contenders import (
    Plain,
    Setting,
    Timm,
    timm_accuracies,
    timm_rates,
)
from benchmarks.time_to_accuracy.marks import Ending, Mark, Outcome, Rule
from benchmarks.time_to_accuracy.prepare import Material, prepare
from benchmarks.time_to_accuracy.record import shown
from benchmarks.time_to_accuracy.report import write_report
from benchmarks.time_to_accuracy.throughput import Rate, ratios
from benchmarks.time_to_accuracy.watch import Limits, Marker, watch
from carspotter.errors import CarspotterError, DataError, UsageError
from carspotter.train import load_recipe

RECIPE = """
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
freeze_stages = 0
val_fraction = 0.25
epochs = 2
sizes = [48]
eval_size = 48
batch_size = 8
lr = 1e-2
backbone_lr_scale = 1.0
precision = "fp32"
"""

TARGET = 0.8266

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def material(drawn_data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    return prepare(drawn_data, load_recipe(str(recipe)), tmp_path_factory.mktemp("work"))


@pytest.fixture
def benchmark(drawn_data: Path, recipe: Path, tmp_path: Path) -> Run:
    """Run a command of the benchmark on drawn pictures, in a work folder of the test's own."""

    def run(verb: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        own: Sequence[str | Path] = ("--work", tmp_path / "work")
        if verb != "report":
            own = (*own, "--data", drawn_data, "--recipe", recipe)
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.time_to_accuracy", verb]
            + [str(argument) for argument in (*own, *arguments)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    return run


# --- what timm leaves --------------------------------------------------------------------------

SUMMARY = """\
epoch,train_loss,eval_loss,eval_top1,eval_top5,lr
0,5.1,4.2,12.5,31.0,1e-05
1,3.9,2.8,45.25,77.1,0.0003
"""

LOG = """\
Scheduled epochs: 2 (epochs + cooldown_epochs). Warmup within epochs when warmup_prefix=False
Train: 0 [   0/12 (  8%)]  Loss: 5.49 (5.49)  Time: 20.373s,    1.57/s  (20.373s,    1.57/s)  \
LR: 5.000e-04  Data: 0.791 (0.791)
Train: 0 [  11/12 (100%)]  Loss: 5.75 (5.52)  Time: 18.773s,    1.70/s  (29.053s,    1.10/s)  \
LR: 5.000e-04  Data: 0.000 (0.072)
Test: [   0/6]  Time: 1.0 (1.0)  Loss:   1.0 ( 1.0)  Acc@1:  90.000 ( 90.000)
Train: 1 [  10/12 ( 92%)]  Loss: 5.13 (5.13)  Time: 30.593s,    1.05/s  (30.593s,    1.05/s)  \
LR: 2.500e-04  Data: 0.279 (0.279)
"""


def test_accuracies_of_a_summary() -> None:
    assert timm_accuracies(SUMMARY) == {1: 0.125, 2: 0.4525}
    assert timm_accuracies("") == {}


def test_row_that_is_being_written_waits() -> None:
    assert timm_accuracies(SUMMARY + "2,2.5,1.9,8") == {1: 0.125, 2: 0.4525}


def test_summary_without_a_test() -> None:
    assert timm_accuracies("epoch,train_loss,lr\n0,5.1,1e-05\n") == {}


def test_rates_of_whole_epochs_alone() -> None:
    assert timm_rates(LOG) == {1: 1.10}


def test_timm_without_its_script(material: Material, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wants a checkout"):
        Timm(Setting(material), tmp_path).command(tmp_path)


def test_own_arguments_come_last_for_timm(material: Material, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    words = Timm(Setting(material), tmp_path, ("--epochs", "7")).command(tmp_path)
    assert words[-2:] == ["--epochs", "7"]
    assert words[words.index("--num-classes") + 1] == "3"


# --- marks and verdicts ------------------------------------------------------------------------


def test_testing_is_left_out() -> None:
    marker = Marker()
    marker.trained(1, 100.0, 150.0)
    marker.tested(0.5, 130.0, 190.0)
    marker.trained(2, 230.0, 340.0)
    marker.tested(0.6, 261.0, 380.0)
    assert marker.marks == [Mark(1, 100.0, 150.0, 30.0, 0.5), Mark(2, 200.0, 300.0, 61.0, 0.6)]
    assert marker.now(300.0, 400.0) == Mark(2, 239.0, 320.0, 61.0)


def outcome(
    accuracies: Sequence[float | None],
    *,
    rule: Rule = "first epoch",
    ending: Ending = "finished",
    last: float | None = None,
    name: str = "one",
    target: float = TARGET,
) -> Outcome:
    """A run of an epoch a minute, on two cores."""
    marks = tuple(
        Mark(epoch, 60.0 * epoch, 120.0 * epoch, 6.0 * epoch, accuracy)
        for epoch, accuracy in enumerate(accuracies, 1)
    )
    end = Mark(len(marks), 60.0 * len(marks) + 30, 120.0 * len(marks), 6.0 * len(marks), last)
    return Outcome(name, rule, ("python", "x.py"), target, 240.0, ending, end, marks)


def test_clock_stops_at_the_first_epoch_at_the_target() -> None:
    found = outcome([0.5, 0.83, 0.81, 0.9])
    assert found.reached == found.marks[1]
    assert found.verdict() == "2.0 minutes, 83.00 %"


def test_target_itself_is_enough() -> None:
    assert outcome([TARGET]).reached is not None


def test_not_reached() -> None:
    found = outcome([0.5, 0.8, 0.7], ending="cap")
    assert found.reached is None
    assert found.verdict() == "not reached in 3.5 minutes, best 80.00 %"


def test_whole_run_is_judged_by_its_end_alone() -> None:
    good = outcome([0.5, 0.9], rule="whole run", last=0.85)
    assert good.reached == good.end
    assert good.verdict() == "2.5 minutes, 85.00 %"
    late = outcome([0.5, 0.9], rule="whole run", last=0.8)
    assert late.verdict() == "not reached in 2.5 minutes, best 80.00 %"


def test_whole_run_cut_short_has_not_reached_it() -> None:
    assert outcome([0.5, 0.9], rule="whole run", ending="cap", last=0.9).reached is None


def test_outcome_survives_its_file() -> None:
    found = outcome([None, 0.83], rule="whole run", last=0.83)
    assert Outcome.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_commands_show_no_folder_of_the_machine() -> None:
    command = [sys.executable, "/a/b/train.py", "--out", "/a/b/work/run", "--data=/a/data"]
    places = {"/a/b": "TIMM", "/a/b/work": "WORK", "/a/data": "DATA"}
    assert shown(command, places) == (
        "python",
        "TIMM/train.py",
        "--out",
        "WORK/run",
        "--data=DATA",
    )


# --- rates -------------------------------------------------------------------------------------


def rate(number: int, contender: str, *values: float, size: int = 128) -> Rate:
    return Rate(number, size, contender, values, tuple(v / 2 for v in values), (1.0, 1.0, 1.0))


def test_ratios_are_taken_round_by_round() -> None:
    # The second round ran on a machine half as fast, for both.
    rates = [
        *(rate(1, "own", 60.0), rate(1, "other", 20.0)),
        *(rate(2, "own", 30.0), rate(2, "other", 10.0)),
        *(rate(3, "own", 60.0, 20.0, 50.0), rate(3, "other", 25.0)),
        rate(4, "other", 1.0),
    ]
    (found,) = ratios(rates, "own", "wall")
    assert (found.contender, found.size, found.rounds) == ("other", 128, 3)
    assert (found.median, found.low, found.high) == (3.0, 2.0, 3.0)
    assert ratios(rates, "own", "cpu") == [found]


# --- the report --------------------------------------------------------------------------------


def test_report(tmp_path: Path) -> None:
    runs = [
        outcome([0.5, 0.7, 0.83], name="timm"),
        outcome([0.3, 0.4], name="plain", ending="cap"),
        outcome([0.6, None], name="carspotter", rule="whole run", last=0.84),
    ]
    write_report(runs, None, tmp_path)
    lines = (tmp_path / "report.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert rows[2:] == [
        ["carspotter", "2.5", "84.00 %", "2", "4.0", "1.0 times", "0.2"],
        ["plain", "not reached in 2.5", "best 40.00 %", "2", "4.0", "> 1.0 times", "0.2"],
        ["timm", "3.0", "83.00 %", "3", "6.0", "1.2 times", "0.3"],
    ]
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "report.json").read_text())
    assert [o["verdict"] for o in document["outcomes"]] == [
        "2.5 minutes, 84.00 %",
        "not reached in 2.5 minutes, best 40.00 %",
        "3.0 minutes, 83.00 %",
    ]
    assert [m["accuracy"] for m in document["outcomes"][2]["marks"]] == [0.5, 0.7, 0.83]


def test_report_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing was measured"):
        write_report([], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outcomes_of_different_targets_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different targets"):
        write_report([outcome([0.5]), outcome([0.5], target=0.5)], None, tmp_path / "out")


# --- real runs ---------------------------------------------------------------------------------


def test_pictures_of_all_contenders_are_the_same(material: Material, drawn_data: Path) -> None:
    files = sorted(material.folders.glob("*/*/*.jpg"))
    assert len(files) == 72 + 24
    assert {file.parent.name for file in files} == {"000", "001", "002"}
    assert files[0].read_bytes().startswith(b"\xff\xd8")
    # Another look makes nothing anew.
    before = material.folders.stat().st_mtime_ns
    again = prepare(drawn_data, load_recipe("lite0", ["weights=none"]), material.folders.parent)
    assert again.folders.stat().st_mtime_ns == before


def test_stopped_contender_leaves_no_process(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(CarspotterError, match="no epoch was done"):
        watch(Plain(Setting(material, size=48)), tmp_path / "run", Limits(TARGET, cap_minutes=0))
    assert psutil.Process().children(recursive=True) == []


def test_failing_contender_is_shown_with_its_log(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    contender = Plain(Setting(material, size=48), ("--no-such-option",))
    with pytest.raises(CarspotterError, match="no-such-option"):
        watch(contender, tmp_path / "run", Limits(TARGET, cap_minutes=10))


def result(work: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / "results" / f"{name}.json").read_text())
    return found


def test_runs_are_measured_once_and_reported(benchmark: Run, tmp_path: Path) -> None:
    work = tmp_path / "work"
    # Any accuracy will do: the plain loop is stopped after its first epoch.
    arguments = ("--only", "carspotter", "--only", "plain", "--target", "0", "--size", "48")
    arguments += ("--batch", "8", "--seed", "3")
    done = benchmark("run", *arguments)
    assert done.returncode == 0, done.stderr

    plain, own = result(work, "plain"), result(work, "carspotter")
    # Its second epoch is there too, where one look at the process shows both.
    mark = plain["marks"][0]
    assert (mark["epoch"], plain["ending"]) == (1, "target")
    assert len(plain["marks"]) <= 2
    assert 0 <= mark["accuracy"] <= 1
    assert mark["cpu_seconds"] > 0
    assert [mark["epoch"] for mark in own["marks"]] == [1, 2]
    assert own["ending"] == "finished"
    # The final weights are those of the best epoch, and the run's end comes after all its epochs;
    # two of these come at once where one look at the process shows both.
    assert own["end"]["accuracy"] in {mark["accuracy"] for mark in own["marks"]}
    assert own["end"]["seconds"] >= own["marks"][1]["seconds"]
    log = (work / "runs" / "carspotter" / "run" / "metrics.jsonl").read_text().splitlines()
    first, second = (json.loads(line)["seconds"] for line in log)
    assert second > first > 0
    # No mark is set before its epoch is done, nor is the start of the process left out.
    assert own["marks"][0]["seconds"] > first
    assert own["marks"][1]["seconds"] > second
    assert own["marks"][1]["seconds"] >= own["marks"][0]["seconds"]
    assert "seed=3" in own["command"]
    assert str(tmp_path.parent) not in json.dumps([own, plain])

    times = {file: file.stat().st_mtime_ns for file in (work / "results").iterdir()}
    again = benchmark("run", *arguments)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in (work / "results").iterdir()} == times
    other = benchmark("run", *arguments, "--batch", "4")
    assert other.returncode == 2
    assert "--as" in other.stderr
    assert "Traceback" not in other.stderr

    reported = benchmark("report", "--out", tmp_path / "report")
    assert reported.returncode == 0, reported.stderr
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| carspotter |" in text
    assert "plain_loop.py" in text
    assert str(tmp_path.parent) not in text


def test_throughput_takes_turns_and_is_kept(benchmark: Run, tmp_path: Path) -> None:
    arguments = ("--only", "carspotter", "--only", "plain", "--sizes", "96", "--batch", "4")
    # Long enough epochs for the twice a second that each is looked at.
    arguments += ("--per-class", "24", "--epochs", "2", "--rounds", "1")
    done = benchmark("throughput", *arguments)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "work" / "throughput.json"
    rates = json.loads(file.read_text())["rates"]
    assert [(r["round"], r["contender"]) for r in rates] == [(1, "carspotter"), (1, "plain")]
    assert all(len(r["pictures_per_second"]) == 1 for r in rates)
    assert all(r["pictures_per_second"][0] > 0 for r in rates)
    assert all(len(r["per_cpu_second"]) == 1 and r["per_cpu_second"][0] > 0 for r in rates)

    before = file.stat().st_mtime_ns
    assert benchmark("throughput", *arguments).returncode == 0
    assert file.stat().st_mtime_ns == before
    other = benchmark("throughput", *arguments, "--epochs", "3")
    assert other.returncode == 2
    assert "measured in another way" in other.stderr

    reported = benchmark("report", "--out", tmp_path / "report")
    assert reported.returncode == 0, reported.stderr
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| 96 | plain |" in text


def test_timm_is_not_guessed(benchmark: Run, tmp_path: Path) -> None:
    done = benchmark("run", "--only", "timm")
    assert done.returncode == 2
    assert "--timm" in done.stderr
    assert not (tmp_path / "work").exists()

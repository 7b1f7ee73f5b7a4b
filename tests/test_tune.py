"""Studies through the command line, in processes of their own, on drawn pictures."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Carspotter
from optuna.trial import TrialState
from PIL import Image
from tiny_study import (
    BURSTING,
    EPOCHS,
    HOPELESS,
    Inputs,
    Tune,
    finished,
    read_lines,
    rows,
    run_of,
    write_inputs,
)

from carspotter.train import load_recipe
from carspotter.tune.storage import open_storage

# One thread: the network is so small that more would only wait for each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

TRIALS = 9

LONG_EPOCHS = 40
"""So many that a trial is still under way when it is killed."""

LONG = ("--set", f"epochs={LONG_EPOCHS}", "--heartbeat", "1")

Start = Callable[[Sequence[str | Path], str], "subprocess.Popen[bytes]"]


@dataclass(frozen=True)
class Studied:
    """A study that is done, shared by the tests: none of them may change it."""

    inputs: Inputs
    out: Path
    done: subprocess.CompletedProcess[str]

    def best(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.done.stdout)["best"]
        return found


@pytest.fixture(scope="module")
def quick(carspotter: Carspotter) -> Tune:
    return lambda *arguments: carspotter(*arguments, env=ONE_THREAD)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def studied(quick: Tune, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Studied:
    out = tmp_path_factory.mktemp("studies") / "tiny"
    done = quick(*inputs.command(out, TRIALS, "--json"))
    assert done.returncode == 0, done.stderr
    return Studied(inputs, out, done)


# --- a study -----------------------------------------------------------------------------------


def test_it_ends_with_as_many_trials_as_were_asked_for(studied: Studied) -> None:
    found = rows(studied.out)
    assert [int(row["trial"]) for row in found] == list(range(TRIALS))
    assert len(finished(studied.out)) == TRIALS
    counts = json.loads(studied.done.stdout)["trials"]
    assert counts == {
        kind: sum(row["outcome"] == kind for row in found)
        for kind in ("complete", "pruned", "failed")
    }
    said = studied.done.stderr.splitlines()
    assert [line for line in said if re.match(r"trial \d+: ", line)] == said[1:]
    assert len(said) == 1 + TRIALS


def test_the_first_trial_is_the_recipe_as_it_is(studied: Studied) -> None:
    first = run_of(studied.out, rows(studied.out)[0])
    assert load_recipe(str(first / "recipe.toml")) == load_recipe(str(studied.inputs.recipe))


def test_values_are_drawn_from_the_search_space_alone(studied: Studied) -> None:
    drawn = [float(row["dropout"]) for row in rows(studied.out)[1:]]
    assert len(set(drawn)) == TRIALS - 1
    assert all(0.0 <= value <= 0.3 for value in drawn)
    allowed = {0.01, 0.02, HOPELESS, BURSTING}
    assert {float(row["lr"]) for row in rows(studied.out)} <= allowed
    for row in finished(studied.out):
        recipe = load_recipe(str(run_of(studied.out, row) / "recipe.toml"))
        assert (recipe.lr, recipe.dropout) == (float(row["lr"]), float(row["dropout"]))
        same = load_recipe(str(studied.inputs.recipe)).model_dump(exclude={"lr", "dropout"})
        assert recipe.model_dump(exclude={"lr", "dropout"}) == same


def test_the_best_is_chosen_by_validation(studied: Studied) -> None:
    complete = [row for row in rows(studied.out) if row["outcome"] == "complete"]
    best = max(complete, key=lambda row: float(row["val_accuracy"]))
    said = studied.best()
    assert said["trial"] == int(best["trial"])
    assert said["val_accuracy"] == float(best["val_accuracy"]) >= 0.8  # chance: a third
    run = run_of(studied.out, best)
    assert said["run"] == str(run)
    assert said["recipe"] == str(studied.out / "best.toml")
    assert max(line["val_accuracy"] for line in read_lines(run)) == said["val_accuracy"]
    assert load_recipe(said["recipe"]) == load_recipe(str(run / "recipe.toml"))
    header = (studied.out / "best.toml").read_text().splitlines()[:2]
    assert re.search(rf'study "tiny", trial {best["trial"]}, \d{{4}}-\d\d-\d\d\.', header[0])
    assert f"{100 * said['val_accuracy']:.2f} %" in header[1]


def test_a_hopeless_trial_is_pruned(studied: Studied) -> None:
    pruned = [row for row in rows(studied.out) if row["outcome"] == "pruned"]
    assert pruned
    for row in pruned:
        assert float(row["lr"]) == HOPELESS
        assert len(read_lines(run_of(studied.out, row))) == int(row["epochs"]) < EPOCHS


def test_a_trial_that_fails_keeps_its_reason_and_the_study_goes_on(studied: Studied) -> None:
    failed = [row for row in rows(studied.out) if row["outcome"] == "failed"]
    assert failed
    assert all(float(row["lr"]) == BURSTING and "the loss is" in row["note"] for row in failed)
    assert int(failed[0]["trial"]) < TRIALS - 1


def test_only_the_best_run_keeps_its_checkpoints(studied: Studied) -> None:
    kept = {file.parent for file in (studied.out / "trials").glob("*/*.ckpt")}
    assert kept == {Path(studied.best()["run"])}
    assert {"best.ckpt", "last.ckpt"} <= {f.name for f in Path(studied.best()["run"]).iterdir()}
    for row in rows(studied.out):
        assert (run_of(studied.out, row) / "recipe.toml").is_file()


def test_the_report_is_complete_in_itself(studied: Studied) -> None:
    text = (studied.out / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "://" not in text
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 4  # history, learning curves, slices, importances
    for picture in pictures:
        width, height = Image.open(io.BytesIO(base64.b64decode(picture))).size
        assert min(width, height) > 100
    assert text.count("<tr class=") == 2 + TRIALS  # two keys are searched
    assert f"{100 * studied.best()['val_accuracy']:.2f} %" in text
    assert "the loss is" in text


def test_train_takes_the_best_recipe(quick: Tune, studied: Studied, tmp_path: Path) -> None:
    where = ("--data", studied.inputs.data, "--out", tmp_path / "run")
    done = quick("train", studied.out / "best.toml", *where)
    assert done.returncode == 0, done.stderr
    there = read_lines(Path(studied.best()["run"]))
    again = read_lines(tmp_path / "run")
    assert [x["val_accuracy"] for x in again] == [x["val_accuracy"] for x in there]


def test_more_trials_are_added_to_those_that_are_done(quick: Tune, studied: Studied) -> None:
    before = rows(studied.out)
    done = quick(*studied.inputs.command(studied.out, TRIALS + 1))
    assert done.returncode == 0, done.stderr
    after = rows(studied.out)
    assert after[:TRIALS] == before
    assert len(after) == TRIALS + 1
    assert done.stderr.splitlines()[0] == f"study tiny: {TRIALS} of {TRIALS + 1} trials are done"
    assert "best: trial" in done.stdout


# --- workers that come and go ------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers, each with the processes that it starts itself; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def one(command: Sequence[str | Path], log: str) -> subprocess.Popen[bytes]:
            worker = subprocess.Popen(
                [sys.executable, "-m", "carspotter", *map(str, command)],
                env={**os.environ, **ONE_THREAD, "CARSPOTTER_CACHE": str(tmp_path / "cache")},
                stdout=subprocess.DEVNULL,
                stderr=stack.enter_context((tmp_path / log).open("wb")),
                start_new_session=True,
            )
            stack.callback(end, worker)
            return worker

        yield one


def end(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(60)


def joined(storage: str, out: Path, worker: subprocess.Popen[bytes]) -> optuna.Study:
    """The study, once the worker has made it."""
    deadline = time.monotonic() + 300
    while not (out / "study.json").is_file():
        assert worker.poll() is None, "the worker ended before there was a study"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return optuna.load_study(study_name="tiny", storage=open_storage(storage, 1))


def in_a_trial(study: optuna.Study, out: Path, worker: subprocess.Popen[bytes], log: str) -> int:
    """Wait until the worker's run has logged so; the number of that trial."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert worker.poll() is None, "the worker ended before it could be stopped"
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker", "").endswith(f":{worker.pid}"):
                file = out / "trials" / f"{trial.number:04d}" / "log.txt"
                if file.is_file() and log in file.read_text():
                    return trial.number
        time.sleep(0.05)
    raise AssertionError("no trial under way was seen")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_other_worker_does_the_trial_that_one_was_killed_in(
    start: Start, inputs: Inputs, tmp_path: Path
) -> None:
    out, wanted = tmp_path / "study", 3
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    command = inputs.command(out, wanted, *LONG, "--storage", storage, "--study", "tiny")
    workers = [start(command, f"log{i}") for i in range(2)]
    study = joined(storage, out, workers[0])
    killed = in_a_trial(study, out, workers[0], "epoch 1 at")
    end(workers[0])
    assert workers[0].returncode == -signal.SIGKILL
    assert study.trials[killed].state is TrialState.RUNNING
    assert workers[1].wait(300) == 0, (tmp_path / "log1").read_text()
    assert len(finished(out)) == wanted
    lost = [row for row in rows(out) if row["outcome"] == "lost"]
    assert [int(row["trial"]) for row in lost] == [killed]
    assert lost[0]["worker"].endswith(f":{workers[0].pid}")
    again = [row for row in finished(out) if row["dropout"] == lost[0]["dropout"]]
    assert len(again) == 1
    assert again[0]["worker"].endswith(f":{workers[1].pid}")
    assert "resumed in epoch" in (run_of(out, again[0]) / "log.txt").read_text()
    assert not run_of(out, lost[0]).exists()
    best = max(finished(out), key=lambda row: float(row["val_accuracy"] or 0))
    assert load_recipe(str(out / "best.toml")) == load_recipe(
        str(run_of(out, best) / "recipe.toml")
    )


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_study_in_a_journal_outlives_all_its_workers(
    quick: Tune, start: Start, inputs: Inputs, tmp_path: Path
) -> None:
    out, journal = tmp_path / "study", tmp_path / "journal.log"
    command = inputs.command(out, 1, *LONG, "--storage", journal, "--study", "tiny")
    first = start(command, "log0")
    study = joined(str(journal), out, first)
    number = in_a_trial(study, out, first, "epoch 1 at")
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(300) not in (0, 2)
    assert "Traceback" not in (tmp_path / "log0").read_text()
    assert [(row["outcome"], row["note"]) for row in rows(out)] == [
        ("lost", "stopped: KeyboardInterrupt")
    ]
    assert (out / "report.html").is_file()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]

    second = start(command, "log1")
    assert in_a_trial(study, out, second, "resumed in epoch") == number + 1
    end(second)

    done = quick(*command)
    assert done.returncode == 0, done.stderr
    assert [row["outcome"] for row in rows(out)] == ["lost", "lost", "complete"]
    assert (out / "trials" / "0002" / "log.txt").read_text().count("resumed in epoch") == 2
    assert len(read_lines(out / "trials" / "0002")) == LONG_EPOCHS

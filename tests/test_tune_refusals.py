"""What a study refuses before it begins, and how trials are drawn, counted and rescued."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import CLASSES, draw_car, encoded, write_parquet
from optuna.trial import TrialState
from tiny_study import BURSTING, HOPELESS, Inputs, write_inputs

from carspotter.cli import main
from carspotter.data import open_data_set
from carspotter.data.index import fingerprint
from carspotter.errors import RecipeError
from carspotter.train import load_recipe
from carspotter.tune import default_space, load_space
from carspotter.tune.folder import StudyFolder
from carspotter.tune.objective import Objective, TrialFailedError, TrialLostError
from carspotter.tune.sampler import SeededTPE, make_pruner
from carspotter.tune.storage import open_storage
from carspotter.tune.study import Plan, Rescue, claim, open_study
from carspotter.tune.trials import Outcome, outcome

pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning",
    "ignore:Heartbeat of storage is supposed:UserWarning",
)

Refused = Callable[..., str]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "cache"))
    return write_inputs(tmp_path)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command line, which must end with 2 and one line; returns that line."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["carspotter", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 2
        assert said.out == ""
        assert said.err.startswith("carspotter: ")
        assert said.err.count("\n") == 1
        return said.err

    return run


def begun(inputs: Inputs, out: Path, storage: str | None = None) -> optuna.Study:
    """A study of these inputs of which nothing was done yet, as a worker opens it."""
    folder = StudyFolder(out)
    out.mkdir(exist_ok=True)
    space = load_space(load_recipe(str(inputs.recipe)), inputs.search)
    data = fingerprint(open_data_set(inputs.data).split("train"))
    opened = open_storage(storage or folder.database_url(), 1)
    study = open_study(opened, "tiny", Plan(space, data))
    claim(folder, study, storage)
    return study


# --- search spaces -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lrate = {low = 1e-4, high = 1e-2}", "unknown key 'lrate'; the keys are: accumulate, "),
        ("lr = {lo = 1e-4, high = 1e-2}", "unknown 'lo'; there are low, high, log, step"),
        ("lr = {choices = [0.1, 0.2], low = 0.1}", "unknown 'low'"),
        ("lr = 0.1", "needs {low"),
        ("lr = {low = 1e-2, high = 1e-4}", "needs low < high"),
        ("lr = {low = 0.0, high = 1e-2, log = true}", "log needs low > 0"),
        ("lr = {low = 0.1, high = 1.0, log = true, step = 0.1}", "log or step"),
        ("lr = {low = '1e-4', high = 1e-2}", "low: "),
        ("lr = {low = -1.0, high = 1e-2}", "lr = -1.0: lr: Input should be greater than 0"),
        ("lr = {choices = [0.1]}", "at least 2 items"),
        ("lr = {choices = [0.1, 'much']}", "lr = 'much': "),
        ("optimizer = {low = 0.0, high = 1.0}", "holds no number"),
        ("optimizer = {choices = ['adamw', 'adam']}", "optimizer = 'adam': "),
        ("batch_size = {low = 8.5, high = 32.0}", "8.5 is no whole number"),
        ("batch_size = {low = 8, high = 32, step = 1.5}", "step 1.5 is no whole number"),
        ("crop_scale = {low = 0.0, high = 0.5}", "crop_scale: needs 0 < low"),
        ("seed = {choices = [0, 1]}", "seed cannot be searched: a lucky seed"),
        ("val_fraction = {low = 0.1, high = 0.2}", "trials would be measured on other"),
        ("name = {choices = ['a', 'b']}", "name cannot be searched"),
        ("", "no key to search over"),
        ("lr = ", "not TOML"),
    ],
)
def test_a_search_file_that_cannot_be_used(
    refused: Refused, inputs: Inputs, tmp_path: Path, text: str, said: str
) -> None:
    inputs.search.write_text(text)
    line = refused(*inputs.command(tmp_path / "study", 2))
    assert f"{inputs.search}: " in line
    assert said in line
    assert not (tmp_path / "study").exists()


def test_a_search_file_that_is_not_there(refused: Refused, inputs: Inputs, tmp_path: Path) -> None:
    inputs.search.unlink()
    assert "search.toml: cannot be read" in refused(*inputs.command(tmp_path / "study", 2))


def drawn(space: Any, seed: int, number: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=SeededTPE(seed))
    found = []

    def objective(trial: optuna.Trial) -> float:
        found.append(space.recipe(space.suggest(trial)).model_dump())
        return float(trial.number)

    study.optimize(objective, n_trials=number)
    return found


def test_each_kind_of_key(inputs: Inputs) -> None:
    base = load_recipe(str(inputs.recipe))
    inputs.search.write_text("""
        lr = {low = 1e-4, high = 1e-2, log = true}
        batch_size = {low = 4, high = 12, step = 4}
        crop_scale = {low = 0.2, high = 0.5}
        sizes = {choices = [[32], [32, 48]]}
        optimizer = {choices = ["adamw", "sgd"]}
        test_flip = {choices = [true, false]}
    """)
    found = drawn(load_space(base, inputs.search), 0, 30)
    assert {x["batch_size"] for x in found} == {4, 8, 12}
    assert {x["sizes"] for x in found} == {(32,), (32, 48)}
    assert {x["optimizer"] for x in found} == {"adamw", "sgd"}
    assert {x["test_flip"] for x in found} == {True, False}
    assert all(0.2 <= x["crop_scale"][0] <= 0.5 and x["crop_scale"][1] == 1.0 for x in found)
    rates = sorted(x["lr"] for x in found)
    assert 1e-4 <= rates[0] < 1e-3 < rates[-1] <= 1e-2
    changed = {"lr", "batch_size", "crop_scale", "sizes", "optimizer", "test_flip"}
    for one in found:
        assert {k: v for k, v in one.items() if k not in changed} == base.model_dump(
            exclude=changed
        )


@pytest.mark.parametrize("name", ["lite0", "tiny"])
def test_the_default_space_holds_the_recipe_itself(inputs: Inputs, name: str) -> None:
    base = load_recipe(name if name == "lite0" else str(inputs.recipe))
    space = default_space(base)
    assert {"lr", "backbone_lr_scale", "weight_decay", "dropout", "label_smoothing"} <= set(
        space.distributions
    )
    assert {"crop_scale", "jitter", "mix_probability"} <= set(space.distributions)
    own = space.base_values()
    assert own is not None
    assert space.recipe(own) == base
    assert len({repr(one) for one in drawn(space, 0, 20)}) == 20


def test_values_that_do_not_go_together(inputs: Inputs) -> None:
    inputs.search.write_text("""
        mix_probability = {low = 0.5, high = 0.9}
        mixup_alpha = {choices = [0.0, 0.0001]}
        cutmix_alpha = {choices = [0.0, 0.0001]}
    """)
    space = load_space(load_recipe(str(inputs.recipe)), inputs.search)
    with pytest.raises(RecipeError, match="mix_probability: needs mixup_alpha or cutmix_alpha"):
        space.recipe({"mix_probability": 0.5, "mixup_alpha": 0.0, "cutmix_alpha": 0.0})


def test_no_two_trials_begin_alike(inputs: Inputs) -> None:
    space = default_space(load_recipe(str(inputs.recipe)))
    whole = drawn(space, 0, 4)
    assert whole == drawn(space, 0, 4)
    assert whole != drawn(space, 1, 4)
    # A second worker, or a second call, goes on where the first was: it draws nothing again.
    study = optuna.create_study(sampler=SeededTPE(0))
    rates = []
    for _ in range(4):
        study.sampler = SeededTPE(0)
        study.optimize(
            lambda t: rates.append(space.suggest(t)["lr"]) or float(t.number), n_trials=1
        )
    assert rates == [one["lr"] for one in whole]


def test_nothing_is_pruned_where_the_schedule_is_searched(inputs: Inputs) -> None:
    base = load_recipe(str(inputs.recipe))
    assert isinstance(make_pruner(default_space(base)), optuna.pruners.MedianPruner)
    inputs.search.write_text("epochs = {low = 2, high = 8}")
    assert isinstance(make_pruner(load_space(base, inputs.search)), optuna.pruners.NopPruner)


# --- studies that cannot begin -----------------------------------------------------------------


def test_what_would_fail_in_every_trial_leaves_no_wreck(
    refused: Refused, inputs: Inputs, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    command = inputs.command(out, 2)
    assert "nowhere: no such folder" in refused(*command, "--data", tmp_path / "nowhere")
    assert "no such file" in refused(*command, "--set", "weights=file:nowhere.pth")
    assert "'epoch'" in refused(*command, "--set", "epoch=3")
    assert "for every trial" in refused(*command, "--set", 'teachers=["lite2"]')
    many = tmp_path / "many"
    photos: list[tuple[str, bytes | None, int]] = [
        (f"{i}.jpg", encoded(draw_car(i, i % 3)), i % 3) for i in range(12)
    ]
    write_parquet(many / "data" / "train-0.parquet", photos, (*CLASSES, "White Whale Van 1999"))
    assert "'White Whale Van 1999'" in refused(*command, "--data", many)
    assert not out.exists()


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("sqlite:///{here}/notes.txt", "cannot be opened: "),
        ("sqlite:///{here}/no/folder/study.db", "cannot be opened: "),
        ("{here}/notes.txt", "no journal"),
        ("{here}/no/folder/journal.log", "cannot be opened: "),
        ("nosuchdb://me:secret@localhost/study", "cannot be opened: "),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_storage_that_cannot_be_used(
    refused: Refused, inputs: Inputs, tmp_path: Path, storage: str, said: str
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("what I wanted to remember")
    place = storage.format(here=tmp_path)
    line = refused(*inputs.command(tmp_path / "study", 2), "--storage", place)
    assert said in line
    assert "secret" not in line
    assert notes.read_text() == "what I wanted to remember"
    assert not (tmp_path / "study").exists()


def test_a_folder_that_cannot_be_written(refused: Refused, inputs: Inputs, tmp_path: Path) -> None:
    line = refused(*inputs.command(inputs.recipe / "study", 2))
    assert f"--out {inputs.recipe / 'study'}: " in line


def test_the_folder_need_not_be_named(
    refused: Refused, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").touch()  # so that none begins
    command = ("tune", inputs.recipe, "--data", inputs.data, "--trials", "2")
    assert f"--out {Path('studies', 'tiny')}: no folder" in refused(*command)
    assert f"--out {Path('studies', 'cars')}: no folder" in refused(*command, "--study", "cars")


def test_a_study_is_continued_by_its_own_plan_alone(
    refused: Refused, inputs: Inputs, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    study = begun(inputs, out)
    command = inputs.command(out, 2)
    line = refused(*command, "--set", "flip=0.25")
    assert "study 'tiny' has another recipe (it differs in flip); go on with its own" in line
    file = inputs.data / "data" / "train-00000-of-00001.parquet"
    photos: list[tuple[str, bytes | None, int]] = [
        (f"{i}.jpg", encoded(draw_car(i, i % 3)), i % 3) for i in range(12)
    ]
    kept = file.read_bytes()
    write_parquet(file, photos)
    assert "study 'tiny' has other data; go on" in refused(*command)
    file.write_bytes(kept)
    inputs.search.write_text("dropout = {low = 0.0, high = 0.4}")
    assert "study 'tiny' has another search space (dropout, lr); go on" in refused(*command)
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]


def test_a_folder_has_one_study(refused: Refused, inputs: Inputs, tmp_path: Path) -> None:
    out, journal = tmp_path / "study", str(tmp_path / "journal.log")
    begun(inputs, out, journal)
    command = inputs.command(out, 2)
    assert f"is kept in {journal}: name it by --storage" in refused(*command)
    line = refused(*command, "--storage", journal, "--study", "second")
    assert f"{out} holds another study, 'tiny'; say another --out" in line


def test_runs_of_a_study_that_was_deleted(refused: Refused, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "study"
    begun(inputs, out)
    (out / "trials" / "0000").mkdir(parents=True)
    (out / "study.db").unlink()
    line = refused(*inputs.command(out, 2))
    assert f"{out / 'trials'} holds runs of a study that is gone" in line


def test_workers_may_make_the_database_all_at_once(inputs: Inputs, tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path / 'shared.db'}"
    plan = Plan(default_space(load_recipe(str(inputs.recipe))), "data")
    with ThreadPoolExecutor(8) as workers:
        jobs = [
            workers.submit(lambda: open_study(open_storage(place, 1), "tiny", plan))
            for _ in range(8)
        ]
        assert len({job.result().study_name for job in jobs}) == 1


def test_a_study_of_another_program(refused: Refused, inputs: Inputs, tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path / 'shared.db'}"
    other = optuna.create_study(storage=place, study_name="tiny")
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    line = refused(*inputs.command(tmp_path / "study", 2), "--storage", place)
    assert "study 'tiny' was not made by carspotter" in line
    assert not (tmp_path / "study").exists()


# --- trials ------------------------------------------------------------------------------------


def objective(inputs: Inputs, out: Path, place: str, wanted: int) -> Objective:
    space = load_space(load_recipe(str(inputs.recipe)), inputs.search)
    plan = Plan(space, "data")
    return Objective(plan, inputs.data, StudyFolder(out), open_storage(place, 1), wanted)


def test_a_worker_that_comes_too_late_stands_back(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "study"
    study = begun(inputs, out)
    study.ask()  # another worker does the one trial that is wanted
    late = objective(inputs, out, StudyFolder(out).database_url(), wanted=1)
    study.optimize(late, n_trials=1, catch=(TrialLostError, TrialFailedError))
    assert [outcome(trial) for trial in study.trials] == [Outcome.RUNNING, Outcome.LOST]
    assert not (out / "trials").exists()


def test_what_keeps_the_first_trial_from_beginning_ends_the_study(
    inputs: Inputs, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    inputs.search.write_text("freeze_stages = {choices = [98, 99]}")
    study = begun(inputs, out)
    first = objective(inputs, out, StudyFolder(out).database_url(), wanted=2)
    with pytest.raises(RecipeError, match="freeze_stages"):
        study.optimize(first, n_trials=1, catch=(TrialLostError, TrialFailedError))
    assert [outcome(trial) for trial in study.trials] == [Outcome.LOST]
    # Once a trial came through an epoch, the same is that trial's own fault.
    trained = study.ask()
    trained.report(0.5, 1)
    study.optimize(first, n_trials=1, catch=(TrialLostError, TrialFailedError))
    assert outcome(study.trials[-1]) is Outcome.FAILED
    assert "freeze_stages" in study.trials[-1].user_attrs["error"]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_trial_whose_worker_never_spoke_is_given_up(
    inputs: Inputs, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "study"
    study = begun(inputs, out, str(tmp_path / "journal.log") if kind == "journal" else None)
    study.ask()
    rescue = Rescue(study, grace=0.05)
    rescue()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    time.sleep(0.1)
    rescue()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    again = study.ask()
    assert again.number == 1
    # It is the recipe as it is, which the first worker was to try.
    assert again.suggest_categorical("lr", [0.01, 0.02, HOPELESS, BURSTING]) == 0.01


def test_a_living_worker_is_left_alone(inputs: Inputs, tmp_path: Path) -> None:
    place = str(tmp_path / "journal.log")
    study = begun(inputs, tmp_path / "study", place)
    trial = study.ask()
    trial.set_user_attr("worker", "here:1")
    storage = open_storage(place, 1)
    storage.record_heartbeat(trial._trial_id)
    rescue = Rescue(study, grace=0.0)
    rescue()
    assert [one.state for one in study.trials] == [TrialState.RUNNING]
    storage.set_trial_system_attr(trial._trial_id, "carspotter:beat", time.time() - 60)
    rescue()
    assert [one.state for one in study.trials] == [TrialState.FAIL, TrialState.WAITING]

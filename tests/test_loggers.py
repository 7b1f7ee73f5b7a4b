"""Experiment trackers, the real ones: what a run logs is read back from them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from conftest import Carspotter
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from training import tiny

from carspotter.errors import MissingExtraError, UsageError
from carspotter.train import RunFolder
from carspotter.train.loggers import Logger, loggers, need_trackers

RECIPE = """
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
val_fraction = 0.25
epochs = 3
sizes = [48]
eval_size = 48
batch_size = 16
lr = 1e-2
rotation = 0
mix_probability = 0
precision = "fp32"
"""

# A run that dies after an epoch was logged and before its checkpoint counts it as done.
DIES = """
import os
from carspotter.cli import main
from carspotter.train.trainer import Trainer

save = Trainer._save_last

def die(self):
    if self.progress.epoch == 2:
        os._exit(9)
    save(self)

Trainer._save_last = die
main()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Trackers that keep to this machine; a folder of our own to litter."""
    return {
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
        "CARSPOTTER_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(RECIPE)
    return file


def train(
    recipe: Path, data: Path, out: Path, log_to: str, environment: dict[str, str], *more: str
) -> subprocess.CompletedProcess[str]:
    """Train in a folder of its own, where nothing may be left but the run."""
    here = out.parent / "here"
    here.mkdir(exist_ok=True)
    code = [sys.executable, "-c", DIES] if "dies" in more else [sys.executable, "-m", "carspotter"]
    done = subprocess.run(
        [
            *code,
            *("train", str(recipe), "--data", str(data), "--out", str(out)),
            *("--set", f'log_to=["{log_to}"]'),
            *(word for word in more if word != "dies"),
        ],
        env={**os.environ, **environment},
        cwd=here,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert list(here.iterdir()) == []
    # Trackers like to speak: nothing of it is wanted.
    assert not [word for word in ("INFO", "wandb:", "alembic", "Warning") if word in done.stderr]
    return done


def test_tensorboard_has_each_epoch_once(
    recipe: Path, drawn_data: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "run"
    done = train(recipe, drawn_data, out, "tensorboard", environment, "dies")
    assert done.returncode == 9, done.stderr
    done = train(recipe, drawn_data, out, "tensorboard", environment, "--resume")
    assert done.returncode == 0, done.stderr
    found = EventAccumulator(str(out / "tensorboard")).Reload()
    assert {"val_accuracy", "train_loss", "lr"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("val_accuracy")] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own use of SQLAlchemy
def test_mlflow_goes_on_with_its_run(
    recipe: Path, drawn_data: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    store = tmp_path / "store.db"
    own = {**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
    out = tmp_path / "run"
    assert train(recipe, drawn_data, out, "mlflow", own, "dies").returncode == 9
    done = train(recipe, drawn_data, out, "mlflow", own, "--resume")
    assert done.returncode == 0, done.stderr

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store}")
    (experiment,) = client.search_experiments(filter_string="name = 'carspotter'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["backbone"] == "test_efficientnet"
    history = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert sorted(entry.step for entry in history) == [1, 2, 3]


def test_wandb_offline_lies_in_the_run_folder(
    recipe: Path, drawn_data: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "run"
    done = train(recipe, drawn_data, out, "wandb", environment)
    assert done.returncode == 0, done.stderr
    (file,) = (out / "wandb").glob("offline-run-*/*.wandb")
    assert file.stat().st_size > 0
    run_id = (out / "wandb-run").read_text().strip()
    assert file.name == f"run-{run_id}.wandb"
    done = train(recipe, drawn_data, out, "wandb", environment, "--resume")
    assert done.returncode == 0, done.stderr
    assert {f.name for f in (out / "wandb").glob("offline-run-*/*.wandb")} == {file.name}


# --- opened here ---------------------------------------------------------------------------------

LINE = {"epoch": 1, "train_loss": 1.5, "val_accuracy": 0.25}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """An empty run folder; what a tracker leaves elsewhere, it leaves in `here`."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("here", "home", "run"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return RunFolder(tmp_path / "run")


def opened(name: str, folder: RunFolder, done: int = 0) -> AbstractContextManager[Logger]:
    return loggers(tiny(log_to=(name,)), folder, done, Console(quiet=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_without_a_server_keeps_to_the_run_folder(folder: RunFolder) -> None:
    with opened("mlflow", folder) as log:
        log(LINE)
    with pytest.raises(ZeroDivisionError), opened("mlflow", folder, done=1):
        raise ZeroDivisionError
    assert list(Path.cwd().iterdir()) == []
    assert "MLFLOW_TRACKING_URI" not in os.environ  # for the next run has a folder of its own

    from mlflow import MlflowClient

    run_id = (folder.path / "mlflow-run").read_text().strip()
    found = MlflowClient(f"sqlite:///{folder.path / 'mlflow.db'}").get_run(run_id)
    assert found.info.status == "FAILED"
    assert found.data.metrics == {"train_loss": 1.5, "val_accuracy": 0.25}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_has_each_epoch_of_a_localiser_once(folder: RunFolder) -> None:
    for value in (0.5, 0.75):  # a killed run, and the one that goes on with it
        with opened("mlflow", folder) as log:
            log({"epoch": 1, "train_loss": 1.5, "val_loss": 1.25, "val_ap": value})

    from mlflow import MlflowClient

    run_id = (folder.path / "mlflow-run").read_text().strip()
    client = MlflowClient(f"sqlite:///{folder.path / 'mlflow.db'}")
    assert [entry.value for entry in client.get_metric_history(run_id, "val_ap")] == [0.5]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_tracker_that_cannot_be_opened(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # No server where MLflow is sent to, and no account at W&B.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UsageError, match=f"log_to: {name} cannot be opened"), opened(name, folder):
        pass


def test_tracker_that_fails_ends_no_run(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ConnectionError("gone")

    with opened("tensorboard", folder) as log:
        monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
        log(LINE)
    text = (folder.path / "log.txt").read_text()
    assert "tensorboard: epoch 1 was not logged (gone)" in text


def test_folder_of_a_trackers_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(MissingExtraError, match="track"):
        need_trackers(tiny(log_to=("wandb",)))


# --- not installed, not known --------------------------------------------------------------------

WITHOUT_TENSORBOARD = """
import sys
sys.modules["tensorboard"] = None
from carspotter.cli import main
sys.argv[0] = "carspotter"
main()
"""


def test_a_missing_tracker_is_told_before_training(
    recipe: Path, drawn_data: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "run"
    arguments = ["train", recipe, "--data", drawn_data, "--out", out]
    done = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT_TENSORBOARD, *map(str, arguments)),
            *("--set", 'log_to=["tensorboard"]'),
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'carspotter[track]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_an_unknown_tracker(carspotter: Carspotter, recipe: Path, drawn_data: Path) -> None:
    done = carspotter(
        *("train", recipe, "--data", drawn_data, "--out", recipe.parent / "run"),
        *("--set", 'log_to=["paper"]'),
    )
    assert done.returncode == 2
    assert "log_to" in done.stderr
    assert "'wandb'" in done.stderr

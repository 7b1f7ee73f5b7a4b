"""Experiment trackers beside metrics.jsonl: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from carspotter.errors import MissingExtraError, UsageError
from carspotter.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from carspotter.train.run import RunFolder
    from carspotter.train.schedule import Schedule

Logger: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Takes a line of metrics.jsonl."""


def need_trackers(recipe: Schedule) -> None:
    """Look for the packages of what the recipe's `log_to` names, without importing them.

    Raises:
        MissingExtraError: one is not installed.
    """
    for name in recipe.log_to:
        found = importlib.util.find_spec(name)
        # A mere folder of that name, as trackers make them, is a package without a file to Python.
        if found is None or found.origin is None:
            raise MissingExtraError(f"log_to = ['{name}']", "track")


@contextlib.contextmanager
def loggers(recipe: Schedule, folder: RunFolder, done: int, console: Console) -> Iterator[Logger]:
    """What the recipe's `log_to` names, opened; a resumed run goes on in the same place.

    A tracker that fails later on ends no run: that is said, and training goes on.

    Args:
        recipe: names the trackers, and is logged itself.
        folder: of the run.
        done: epochs done.
        console: for messages.

    Raises:
        UsageError: a tracker cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        opened = {}
        for name in recipe.log_to:
            try:
                opened[name] = stack.enter_context(_OPENERS[name](recipe, folder, done))
            except Exception as error:  # of whatever kind the tracker's client raises
                raise UsageError(
                    f"log_to: {name} cannot be opened ({error}); see to it, or go on by --resume "
                    "with another log_to"
                ) from error

        def log(line: Mapping[str, Any]) -> None:
            for name, one in opened.items():
                try:
                    one(line)
                except Exception as error:  # as above
                    folder.log(f"{name}: epoch {line['epoch']} was not logged ({error})", console)

        yield log


def _figures(line: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in line.items() if key != "epoch"}


@contextlib.contextmanager
def _tensorboard(recipe: Schedule, folder: RunFolder, done: int) -> Iterator[Logger]:
    """In the run folder."""
    from torch.utils.tensorboard import SummaryWriter

    # purge_step: of an epoch that a killed run logged and a resumed one repeats, the later counts.
    with SummaryWriter(str(folder.path / "tensorboard"), purge_step=done + 1) as writer:
        if not done:
            writer.add_text("recipe", f"```\n{recipe.to_toml()}\n```")

        def log(line: Mapping[str, Any]) -> None:
            for key, value in _figures(line).items():
                writer.add_scalar(key, value, line["epoch"])
            writer.flush()

        yield log


@contextlib.contextmanager
def _mlflow(recipe: Schedule, folder: RunFolder, done: int) -> Iterator[Logger]:
    """Where `MLFLOW_TRACKING_URI` points to, by MLflow's own settings; else in the run folder."""
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table it makes
    is_set = bool(os.environ.get("MLFLOW_TRACKING_URI"))  # MLflow itself puts there what code sets
    if not is_set:
        mlflow.set_tracking_uri(f"sqlite:///{(folder.path / 'mlflow.db').resolve()}")
    try:
        mlflow.set_experiment("carspotter")
        known = folder.path / "mlflow-run"
        run_id = known.read_text(encoding="utf-8").strip() if known.is_file() else None
        with mlflow.start_run(run_id=run_id, run_name=None if run_id else folder.path.name) as run:
            if run_id is None:
                mlflow.log_params(recipe.model_dump())
                write_text(known, run.info.run_id + "\n")
            # Of what every task logs.
            history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train_loss")
            logged = {entry.step for entry in history}

            def log(line: Mapping[str, Any]) -> None:
                if line["epoch"] not in logged:  # a killed run got so far, and this one repeats it
                    mlflow.log_metrics(_figures(line), step=line["epoch"])

            yield log
    finally:
        if not is_set:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # as it was: unset


@contextlib.contextmanager
def _wandb(recipe: Schedule, folder: RunFolder, done: int) -> Iterator[Logger]:
    """By W&B's own settings; `WANDB_MODE=offline` keeps it in the run folder."""
    import wandb

    known = folder.path / "wandb-run"
    run_id = known.read_text(encoding="utf-8").strip() if known.is_file() else None
    with wandb.init(
        project="carspotter",
        name=folder.path.name,
        dir=str(folder.path),
        config=recipe.model_dump(),
        id=run_id,
        resume="allow",
        settings=wandb.Settings(silent=True, console="off"),
    ) as run:
        write_text(known, run.id + "\n")

        def log(line: Mapping[str, Any]) -> None:
            run.log(_figures(line), step=line["epoch"])

        yield log


_OPENERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}

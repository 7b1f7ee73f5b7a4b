"""One worker of a study: trains trials until the study has as many as are wanted."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from rich.console import Console

from carspotter.errors import UsageError
from carspotter.tune.folder import StudyFolder
from carspotter.tune.objective import Objective, TrialFailedError, TrialLostError, check
from carspotter.tune.results import write_results
from carspotter.tune.space import SearchSpace
from carspotter.tune.storage import (
    grace,
    open_storage,
    reason,
    requeue,
    without_password,
)
from carspotter.tune.study import Plan, Rescue, claim, need_storage, open_study
from carspotter.tune.trials import (
    FINISHED,
    Outcome,
    best_trial,
    count,
    curve,
    note,
    outcome,
    shown,
    value,
)


@dataclass(frozen=True)
class Tuned:
    """What a study has found.

    Attributes:
        study: its name.
        folder: its files.
        counts: of trials, by outcome.
        best: the best trial; None where none is complete.
    """

    study: str
    folder: StudyFolder
    counts: dict[str, int]
    best: FrozenTrial | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        best = None
        if self.best is not None:
            run = self.folder.run(self.best.number).path
            best = {
                "trial": self.best.number,
                "val_accuracy": value(self.best),
                "values": self.best.params,
                "recipe": str(self.folder.best),
                "run": str(run) if run.is_dir() else None,
            }
        return {"study": self.study, "trials": self.counts, "best": best}


def tune(
    space: SearchSpace,
    data_root: Path,
    out: Path,
    trials: int,
    *,
    storage: str | None = None,
    name: str | None = None,
    heartbeat: int = 60,
    console: Console,
) -> Tuned:
    """Work on a study until it has as many finished trials as are wanted.

    Args:
        space: the recipe, and what is searched.
        data_root: the data set.
        out: the study's folder.
        trials: complete, pruned and failed ones together, over all workers and sessions.
        storage: a URL, or a journal file; None: a SQLite file in `out`.
        name: of the study; None: the recipe's.
        heartbeat: seconds between a worker's signs of life.
        console: for a line for each trial.

    Raises:
        DataError: the data set cannot be used.
        RecipeError: the recipe's model or weights cannot be had.
        UsageError: the storage cannot be used, or it or `out` holds another study.
    """
    with _quiet_optuna():
        plan = Plan(space, check(space.base, data_root, console))
        with _made(out) as folder:
            need_storage(folder, storage)
            opened = open_storage(storage or folder.database_url(), heartbeat)
            study = open_study(opened, name or space.base.name, plan)
            claim(folder, study, without_password(storage) if storage else None)
        objective = Objective(plan, data_root, folder, opened, trials)
        worker = Worker(study, plan, objective, folder, trials, heartbeat, console)
        try:
            return worker.run()
        except StorageInternalError as error:
            shown = without_password(storage or str(folder.database))
            raise UsageError(f"the study's storage {shown} fails: {reason(error)}") from error


class Worker:
    """Trains trials of a study, one after the other, and looks after those of dead workers."""

    def __init__(
        self,
        study: Study,
        plan: Plan,
        objective: Objective,
        folder: StudyFolder,
        wanted: int,
        heartbeat: int,
        console: Console,
    ) -> None:
        self._study = study
        self._plan = plan
        self._objective = objective
        self._folder = folder
        self._wanted = wanted
        self._rescue = Rescue(study, grace(heartbeat))
        self._pause = min(5.0, heartbeat / 2)
        self._console = console

    def run(self) -> Tuned:
        """Work until the study is done; its files are up to date then, and after an error too."""
        done = count(self._trials(), *FINISHED)
        self._say(f"study {self._study.study_name}: {done} of {self._wanted} trials are done")
        is_waiting = False
        try:
            while (done := count(self._trials(), *FINISHED)) < self._wanted:
                self._rescue()
                others = count(self._trials(), Outcome.RUNNING)
                if done + others < self._wanted:
                    self._one_trial()
                    is_waiting = False
                    continue
                # Not over: who does the last trials may die over them.
                if not is_waiting:
                    self._say(f"waiting for {others} trials of other workers")
                is_waiting = True
                time.sleep(self._pause)
        finally:
            write_results(self._folder, self._study, self._plan, at_end=True)
        trials = self._trials()
        counts = {str(kind): number for kind in Outcome if (number := count(trials, kind))}
        return Tuned(self._study.study_name, self._folder, counts, best_trial(trials))

    def _one_trial(self) -> None:
        objective = self._objective
        objective.forget()
        try:
            self._study.optimize(
                objective,
                n_trials=1,
                catch=(TrialFailedError, TrialLostError),
                gc_after_trial=True,  # the processes of a run end with the last reference to it
            )
        except BaseException as error:
            # Optuna refuses to end a trial that others have given up: no reason to stop.
            is_refusal = isinstance(error, ValueError | UpdateFinishedTrialError)
            trial = self._last()
            is_lost = trial is not None and outcome(trial) is Outcome.LOST
            if not (is_refusal and is_lost and objective.stopped_by is None):
                if trial is not None and is_lost:
                    requeue(self._study, trial, limit=None)
                raise
        if (trial := self._last()) is not None:
            self._tell(trial)
        write_results(self._folder, self._study, self._plan, at_end=False)

    def _last(self) -> FrozenTrial | None:
        """The trial that was begun last, as the storage has it."""
        number = self._objective.number
        return next((t for t in self._trials() if t.number == number), None)

    def _tell(self, trial: FrozenTrial) -> None:
        drawn = ", ".join(f"{key} = {shown(x)}" for key, x in trial.params.items())
        done = count(self._trials(), *FINISHED)
        self._say(
            f"trial {trial.number}: {_verdict(trial)}; {drawn}; {done} of {self._wanted} done"
        )

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _verdict(trial: FrozenTrial) -> str:
    epochs = curve(trial)
    took = f"{trial.duration.total_seconds() / 60:.1f} minutes" if trial.duration else ""
    match outcome(trial):
        case Outcome.COMPLETE:
            return f"{100 * value(trial):.2f} % on validation after epoch {len(epochs)}, {took}"
        case Outcome.PRUNED:
            epoch, reached = epochs[-1]
            return f"pruned at {100 * reached:.2f} % after epoch {epoch}, {took}"
        case other:
            return f"{other}: {note(trial)}"


@contextlib.contextmanager
def _made(out: Path) -> Iterator[StudyFolder]:
    """The study's folder, locked; a new one is taken away again if the study cannot begin.

    Raises:
        UsageError: it cannot be made.
    """
    folder, is_new = StudyFolder(out), not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with folder.lock():
            yield folder
    except BaseException as error:
        if is_new:
            with contextlib.suppress(OSError):  # it is not there, or holds something by now
                folder.lock_file.unlink(missing_ok=True)
                out.rmdir()
        if isinstance(error, OSError):
            raise UsageError(f"--out {out}: no folder to write in ({error})") from error
        raise


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from writing a log and warnings beside what is said here."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Heartbeats, among others, are experimental to Optuna since its version 2.9.
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)

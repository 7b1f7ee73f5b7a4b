"""One trial: a training run with drawn values, stopped early where it lags behind."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from optuna import Trial, TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from carspotter.data import decoded_pictures, open_data_set, training_parts
from carspotter.data.index import fingerprint
from carspotter.errors import CarspotterError, RecipeError, UsageError
from carspotter.train import Recipe, checkpoint, load_recipe, train
from carspotter.train.model import CarClassifier
from carspotter.train.model_weights import read_weights
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder
from carspotter.train.schedule import differences
from carspotter.train.teachers import is_recipe
from carspotter.train.weights import MODEL_PREFIX, RECIPE_PREFIX, is_trained
from carspotter.tune.folder import StudyFolder
from carspotter.tune.storage import Journal
from carspotter.tune.study import Plan
from carspotter.tune.trials import ERROR, FINISHED, NOTE, WORKER, Outcome, count, curve

_TEXT = 1000
"""Characters that are kept of an error."""


class TrialFailedError(Exception):
    """A trial failed for a reason of its own: the study goes on."""


class TrialLostError(Exception):
    """A trial is no longer this worker's: the study goes on."""


def check(recipe: Recipe, data_root: Path, console: Console) -> str:
    """Find what would fail in every trial, before there is a study that could be left behind.

    Returns:
        Fingerprint of the pictures that are trained on and that validate.

    Raises:
        DataError: the data set cannot be used.
        RecipeError: the recipe's model or weights cannot be had, or each trial would train a
            teacher first.
    """
    if untrained := [teacher for teacher in recipe.teachers if is_recipe(teacher)]:
        raise RecipeError(
            f"teachers: {untrained[0]} would be trained again for every trial; train it once, and "
            "name its run by --set 'teachers=[\"RUN\"]'"
        )
    if recipe.weights.startswith(RECIPE_PREFIX):
        raise RecipeError(
            f"weights: {recipe.weights} would be trained again for every trial; train it once, "
            "export it, and name its file by --set weights=model:FILE"
        )
    data = open_data_set(data_root)
    part, validating = training_parts(data, recipe.val_fraction, recipe.split_seed, recipe.exclude)
    with counting("decoding", console) as progress:
        decoded = decoded_pictures(part, recipe.area(), recipe.cache_side, progress=progress)
    data.need_every_class(part[place].label for place in decoded.kept)
    if recipe.weights.startswith(MODEL_PREFIX):
        read_weights(recipe.weights.removeprefix(MODEL_PREFIX))
    CarClassifier(recipe, len(data.class_names), pretrained=not is_trained(recipe.weights))
    return fingerprint([*part, *validating])


class Objective:
    """Trains one trial after the other; what Optuna calls for each.

    Args:
        plan: what is searched.
        data_root: the data set.
        folder: where the runs go.
        storage: takes signs of life.
        wanted: trials that the whole study is to finish.

    Attributes:
        number: the trial that was begun last; None before the first.
        stopped_by: what went wrong in it and is no fault of its own.
    """

    def __init__(
        self,
        plan: Plan,
        data_root: Path,
        folder: StudyFolder,
        storage: RDBStorage | Journal,
        wanted: int,
    ) -> None:
        self._plan = plan
        self._data_root = data_root
        self._folder = folder
        self._storage = storage
        self._wanted = wanted
        self._reported: set[int] = set()
        self.number: int | None = None
        self.stopped_by: BaseException | None = None

    def forget(self) -> None:
        """Be as before the first trial."""
        self.number, self.stopped_by, self._reported = None, None, set()

    def __call__(self, trial: Trial) -> float:
        """Validation accuracy, 0 to 1, of the checkpoint that the run keeps.

        Raises:
            TrialPruned: it lags behind.
            TrialFailedError: it failed for a reason of its own.
            TrialLostError: it is one too many, or others have given it up.
            CarspotterError: what fails here fails in every trial.
        """
        self.forget()
        self.number = trial.number
        try:
            return self._run(trial)
        except (TrialPruned, TrialFailedError, TrialLostError):
            raise
        except BaseException as error:
            if isinstance(error, Exception) and not self._is_mine(trial):
                raise TrialLostError("others have given it up") from error
            self.stopped_by = cause = _interrupt_behind(error) or error
            said = _one_line(str(cause)) or type(cause).__name__
            with contextlib.suppress(UpdateFinishedTrialError):
                trial.set_user_attr(NOTE, f"stopped: {said}")
            if cause is error:
                raise
            raise cause from None

    def _run(self, trial: Trial) -> float:
        # At once: Optuna's own first heartbeat comes a moment later, from a thread.
        self._storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
        self._need_room(trial)
        run = self._folder.run(trial.number)
        try:
            return self._train(trial, self._plan.space.recipe(self._plan.space.suggest(trial)), run)
        except (CarspotterError, torch.OutOfMemoryError) as error:
            if not self._is_mine(trial):
                raise
            self._need_own_fault(trial, run, error)
            trial.set_user_attr(ERROR, _one_line(str(error)))
            raise TrialFailedError from error

    def _need_room(self, trial: Trial) -> None:
        """Stand back where workers began more trials at once than are left to do."""
        trials = trial.study.get_trials(deepcopy=False)
        before = count((t for t in trials if t.number < trial.number), Outcome.RUNNING)
        if count(trials, *FINISHED) + before >= self._wanted:
            trial.set_user_attr(NOTE, "one too many: other workers were faster")
            raise TrialLostError("one too many")

    def _train(self, trial: Trial, recipe: Recipe, run: RunFolder) -> float:
        resume = self._take_over(trial, recipe, run)

        def watch(line: Mapping[str, Any]) -> None:
            self._report(trial, line)
            # After its last epoch a trial costs nothing more, and complete it teaches more.
            if line["epoch"] < recipe.epochs and trial.should_prune():
                raise TrialPruned

        quiet = Console(quiet=True)
        try:
            train(recipe, self._data_root, run.path, resume=resume, console=quiet, watch=watch)
        except BaseException as error:
            # Lets go of the processes that load pictures, one by one and at once. The garbage
            # collector finds them in any order, and then waits five seconds for each.
            traceback.clear_frames(error.__traceback__)
            raise
        return float(checkpoint.load(run.best)["val_accuracy"])

    def _take_over(self, trial: Trial, recipe: Recipe, run: RunFolder) -> bool:
        """Whether there is a run to go on with: that of a worker that died over these values."""
        for number in reversed(_frozen(trial).system_attrs.get("retry_history", [])):
            old = self._folder.run(number)
            if old.last.is_file() and not differences(load_recipe(str(old.recipe)), recipe):
                old.path.rename(run.path)
                for line in run.read_metrics():
                    self._report(trial, line)
                return True
        return False

    def _report(self, trial: Trial, line: Mapping[str, Any]) -> None:
        # A run that was taken over may go through its last epoch again.
        if line["epoch"] not in self._reported:
            trial.report(line["val_accuracy"], line["epoch"])
            self._reported.add(line["epoch"])

    def _is_mine(self, trial: Trial) -> bool:
        return _frozen(trial).state is TrialState.RUNNING

    def _need_own_fault(self, trial: Trial, run: RunFolder, error: Exception) -> None:
        """Raise what is not the fault of this trial's values alone.

        The unchanged recipe is tried on the data again. And until one trial has come through an
        epoch, nothing says that any can: what keeps the first from beginning ends the study.
        """
        check(self._plan.space.base, self._data_root, Console(quiet=True))
        nothing_trained = not any(map(curve, trial.study.get_trials(deepcopy=False)))
        if isinstance(error, UsageError) or (nothing_trained and not run.recipe.is_file()):
            raise error


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C in whose wake an error came, if it did.

    A journal's lock that is interrupted while it is given back takes its file away once more, and
    fails on that.
    """
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_TEXT]


def _frozen(trial: Trial) -> FrozenTrial:
    """The trial as the storage has it now."""
    return next(t for t in trial.study.get_trials(deepcopy=False) if t.number == trial.number)

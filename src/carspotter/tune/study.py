"""A study: begun or joined, and its abandoned trials rescued."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from dataclasses import dataclass
from typing import Any

import optuna
from optuna import Study
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from carspotter.errors import UsageError
from carspotter.files import write_text
from carspotter.train.recipe import Recipe
from carspotter.train.schedule import differences
from carspotter.tune.folder import StudyFolder
from carspotter.tune.sampler import SeededTPE, make_pruner
from carspotter.tune.space import SearchSpace
from carspotter.tune.storage import requeue
from carspotter.tune.trials import WORKER

_ABOUT = "carspotter"
"""Attribute of a study: its identity and plan."""


@dataclass(frozen=True)
class Plan:
    """What a study searches, and on what; a study is continued by its own plan alone.

    Attributes:
        space: the recipe and its search space.
        data: fingerprint of the pictures that are trained on and that validate.
    """

    space: SearchSpace
    data: str

    def to_json(self) -> dict[str, Any]:
        """As it is kept with the study."""
        return {
            "format": 1,
            "recipe": self.space.base.model_dump(mode="json"),
            "data": self.data,
            "search": self.space.to_json(),
        }


def open_study(storage: BaseStorage, name: str, plan: Plan) -> Study:
    """Begin a study, or join the one of this name and plan.

    Raises:
        UsageError: the study there is of another recipe, data set or search space.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        sampler=SeededTPE(plan.space.base.seed),
        pruner=make_pruner(plan.space),
        load_if_exists=True,
    )
    if _ABOUT not in study.user_attrs:
        if study.trials or study.directions != [StudyDirection.MAXIMIZE]:
            raise UsageError(f"study {name!r} was not made by carspotter; say another --study")
        study.set_user_attr(_ABOUT, plan.to_json())
        # The recipe as it is goes first: what is found is never worse than what there was.
        if (own := plan.space.base_values()) is not None:
            study.enqueue_trial(own, skip_if_exists=True)
    _need_same(name, study.user_attrs[_ABOUT], plan)
    return study


def _need_same(name: str, there: dict[str, Any], plan: Plan) -> None:
    mine = plan.to_json()
    if there.get("format") != mine["format"]:
        raise UsageError(f"study {name!r} is of another version of carspotter; say another --study")
    other = [what for what in ("data", "search") if there[what] != mine[what]]
    keys = _differing_keys(there["recipe"], plan.space.base)
    reasons = {
        "data": "other data",
        "search": f"another search space ({', '.join(_changed(there['search'], mine['search']))})",
    }
    said = [f"another recipe (it differs in {', '.join(keys)})"] if keys else []
    said += [reasons[what] for what in other]
    if said:
        raise UsageError(
            f"study {name!r} has {' and '.join(said)}; go on with its own, or say another "
            "--study and --out"
        )


def _differing_keys(there: dict[str, Any], base: Recipe) -> list[str]:
    unknown = there.keys() - Recipe.model_fields.keys()
    if unknown:
        return sorted(unknown)
    return differences(Recipe.model_validate(there), base)


def _changed(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def claim(folder: StudyFolder, study: Study, storage: str | None) -> None:
    """Mark the folder as this study's, or find that it is.

    Args:
        folder: of a worker.
        study: its study.
        storage: where that is kept, as it may be shown; None: in the folder.

    Raises:
        UsageError: the folder holds another study.
    """
    about = json.dumps(study.user_attrs[_ABOUT], sort_keys=True)
    own = {
        "study": study.study_name,
        "storage": storage,
        "plan": hashlib.sha256(about.encode()).hexdigest(),
    }
    there = _identity(folder)
    if there is not None and any(there.get(key) != own[key] for key in ("study", "plan")):
        raise UsageError(
            f"{folder.path} holds another study, {there.get('study')!r}; say another --out"
        )
    waiting = (TrialState.WAITING,)
    if any(folder.runs.glob("*")) and len(study.get_trials(states=waiting)) == len(study.trials):
        raise UsageError(f"{folder.runs} holds runs of a study that is gone; say another --out")
    if there is None:
        write_text(folder.identity, json.dumps(own, indent=1) + "\n")


def need_storage(folder: StudyFolder, storage: str | None) -> None:
    """Refuse to begin a second study in a folder whose own is kept elsewhere.

    Raises:
        UsageError: no storage is named, and the folder's study has one.
    """
    there = _identity(folder)
    if storage is None and there is not None and there.get("storage"):
        raise UsageError(
            f"the study of {folder.path} is kept in {there['storage']}: name it by --storage"
        )


def _identity(folder: StudyFolder) -> dict[str, Any] | None:
    if not folder.identity.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(folder.identity.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{folder.identity}: not JSON ({error}); say another --out") from error
    return found


class Rescue:
    """Gives up trials whose worker is dead, and has them done again.

    Optuna does that for trials that once sent a heartbeat. A worker that dies in the moment before
    leaves a trial that would run for ever: it is found by its saying nothing at all.

    Args:
        study: whose trials.
        grace: seconds of silence that are a worker's death.
    """

    def __init__(self, study: Study, grace: float) -> None:
        self._study = study
        self._grace = grace
        self._silent_since: dict[int, float] = {}

    def __call__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        now = time.monotonic()
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        silent = [trial for trial in running if WORKER not in trial.user_attrs]
        self._silent_since = {t.number: self._silent_since.get(t.number, now) for t in silent}
        for trial in silent:
            if now - self._silent_since[trial.number] > self._grace:
                self._give_up(trial)

    def _give_up(self, trial: FrozenTrial) -> None:
        try:
            self._study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            return  # another worker was faster
        requeue(self._study, trial)

"""What came of the trials of a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from optuna.trial import FrozenTrial, TrialState

ERROR = "error"
"""Attribute of a trial that failed for a reason of its own: that reason."""

NOTE = "note"
"""Attribute of a trial that was given up: why."""

WORKER = "worker"
"""Attribute of every trial that was begun: machine and process."""


class Outcome(StrEnum):
    """What came of a trial. The first three count as finished."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    LOST = "lost"  # its worker died or was stopped: it says nothing about its values
    RUNNING = "running"
    WAITING = "waiting"


FINISHED = (Outcome.COMPLETE, Outcome.PRUNED, Outcome.FAILED)

_OUTCOMES = {
    TrialState.COMPLETE: Outcome.COMPLETE,
    TrialState.PRUNED: Outcome.PRUNED,
    TrialState.RUNNING: Outcome.RUNNING,
    TrialState.WAITING: Outcome.WAITING,
}


def outcome(trial: FrozenTrial) -> Outcome:
    """What came of a trial; to Optuna a lost one is as failed as one that has an error."""
    if trial.state is TrialState.FAIL:
        return Outcome.FAILED if ERROR in trial.user_attrs else Outcome.LOST
    return _OUTCOMES[trial.state]


def count(trials: Iterable[FrozenTrial], *outcomes: Outcome) -> int:
    """How many trials came to one of these outcomes."""
    return sum(outcome(trial) in outcomes for trial in trials)


def best_trial(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial of the highest validation accuracy; the first among equals."""
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return max(done, key=lambda trial: (value(trial), -trial.number), default=None)


def value(trial: FrozenTrial) -> float:
    """Validation accuracy of a complete trial, 0 to 1."""
    assert trial.value is not None
    return trial.value


def curve(trial: FrozenTrial) -> list[tuple[int, float]]:
    """Epoch, from 1, and validation accuracy, 0 to 1, in order."""
    return sorted(trial.intermediate_values.items())


def row(trial: FrozenTrial, keys: Sequence[str]) -> dict[str, Any]:
    """A trial as a line of a table.

    Args:
        trial: one that came to an end.
        keys: of the search space.

    Returns:
        Its figures by column; of a trial that is not complete, the accuracy of its best epoch.
    """
    epochs = curve(trial)
    accuracy = max((reached for _, reached in epochs), default=None)
    if trial.state is TrialState.COMPLETE:
        accuracy = value(trial)
    start, took = trial.datetime_start, trial.duration
    return {
        "trial": trial.number,
        "outcome": str(outcome(trial)),
        "val_accuracy": accuracy,
        "epochs": len(epochs),
        "started": None if start is None else start.isoformat(" ", "seconds"),
        "seconds": None if took is None else round(took.total_seconds(), 1),
        "worker": trial.user_attrs.get(WORKER),
        **{key: trial.params.get(key) for key in keys},
        "note": note(trial),
    }


def shown(x: Any) -> str:
    """A value as people read it."""
    if x is None:
        return ""
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def note(trial: FrozenTrial) -> str | None:
    """Why a trial failed or was given up."""
    said: str | None = trial.user_attrs.get(ERROR) or trial.user_attrs.get(NOTE)
    if said is None and outcome(trial) is Outcome.LOST:
        return "its worker did not answer any more"
    return said

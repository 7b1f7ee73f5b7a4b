"""Where a study is kept: a database by its URL, or a journal file."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import (
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)

# Optuna's machinery asks whether a storage is one of these, and gives the class no public name.
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from carspotter.errors import UsageError

_BEAT = "carspotter:beat"

_RETRIES = 2
"""A trial that took three workers down with it will do so again."""

_SQLITE_PATIENCE = 60
"""Seconds. Workers write a few rows a minute: a longer lock is no other worker's."""


_TRIES = 10
_MADE_BY_ANOTHER = ("already exists", "duplicate", "unique constraint")
"""What databases say when two workers make the same tables at once."""


def grace(heartbeat: int) -> int:
    """Seconds after its last heartbeat at which a worker is taken for dead."""
    return max(2 * heartbeat, heartbeat + 5)


def requeue(study: Study, trial: FrozenTrial, limit: int | None = _RETRIES) -> None:
    """Have a trial that never came to its end done again, with the same values.

    Args:
        study: the trial's.
        trial: as it was given up.
        limit: how often at most; None: whatever it takes.
    """
    again = copy.deepcopy(trial)
    again.user_attrs = {}  # what was said of the first try is not true of the next
    RetryHeartbeatStaleTrialCallback(max_retry=limit)(study, again)


class Journal(JournalStorage, BaseHeartbeat):
    """Optuna's journal, with the heartbeat that Optuna itself gives to databases alone.

    Machines that share a journal must agree on the time to within the grace period.
    """

    def __init__(self, file: Path, heartbeat: int) -> None:
        super().__init__(JournalFileBackend(str(file)))
        self._heartbeat = heartbeat

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            self.set_trial_system_attr(trial_id, _BEAT, time.time())
        except UpdateFinishedTrialError:
            return  # others have given this worker up; its next report tells it so

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        latest = time.time() - grace(self._heartbeat)
        return [t._trial_id for t in running if t.system_attrs.get(_BEAT, latest) < latest]

    def get_heartbeat_interval(self) -> int:
        return self._heartbeat

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None]:
        return requeue


def open_storage(place: str, heartbeat: int) -> RDBStorage | Journal:
    """Open or make a storage.

    Args:
        place: a URL that SQLAlchemy takes, or the path of a journal file.
        heartbeat: seconds between the signs of life of a worker.

    Raises:
        UsageError: it cannot be opened, or is something else.
    """
    shown = without_password(place)
    if ":memory:" in place or place.rstrip("/") == "sqlite:":
        raise UsageError(f"--storage {shown}: a study in memory cannot be resumed or shared")
    try:
        if "://" not in place:
            file = Path(place).expanduser()
            _need_journal(file)
            return Journal(file, heartbeat)
        return _database(place, heartbeat)
    except UsageError:
        raise
    except ImportError as error:
        missing = error.__cause__ or error
        raise UsageError(
            f"--storage {shown}: the database's driver is not installed ({missing})"
        ) from error
    except Exception as error:  # SQLAlchemy, its drivers and Optuna raise many kinds
        raise UsageError(f"--storage {shown}: cannot be opened: {reason(error)}") from error


def _database(url: str, heartbeat: int) -> RDBStorage:
    patience = {"connect_args": {"timeout": _SQLITE_PATIENCE}}
    for left in reversed(range(_TRIES)):
        try:
            return RDBStorage(
                url,
                engine_kwargs=patience if url.startswith("sqlite") else None,
                heartbeat_interval=heartbeat,
                grace_period=grace(heartbeat),
                heartbeat_stale_trial_callback=requeue,
            )
        except Exception as error:  # each driver has its own for a table that is there
            said = str(error).lower()
            if not left or not any(sign in said for sign in _MADE_BY_ANOTHER):
                raise
            time.sleep(0.5)
    raise AssertionError("the last try returns or raises")


def reason(error: Exception) -> str:
    """The first line of what a storage complains of."""
    said = str(error.__cause__ or error) or type(error).__name__
    return said.splitlines()[0]


def without_password(place: str) -> str:
    """A storage's URL as it may be shown."""
    try:
        password = urlsplit(place).password
    except ValueError:
        return place
    return place.replace(f":{password}@", ":***@") if password else place


def _need_journal(file: Path) -> None:
    """Refuse a file of another kind: Optuna would append to it."""
    if not file.exists():
        return
    with file.open("rb") as content:
        first = content.readline(1 << 16)
    try:
        is_journal = not first or "op_code" in json.loads(first)
    except (ValueError, TypeError):
        is_journal = False
    if not is_journal:
        raise UsageError(f"--storage {file}: there is a file which is no journal of Optuna's")

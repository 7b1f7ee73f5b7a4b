"""Pieces on Ray Data: a pool of actors, each with a recogniser of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Ray's own wheels report their use to their maker, unless this is set before it starts; carspotter
# speaks to nobody.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray 2.50 warns at each start that it will change what it does to the GPUs of workers without any.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.data
from ray.exceptions import RayError

from carspotter.errors import CarspotterError, UsageError
from carspotter.label.job import Recogniser
from carspotter.label.labeller import Labeller
from carspotter.label.work import Run, Work
from carspotter.machine import cores
from carspotter.results import ModelInfo

if TYPE_CHECKING:
    from carspotter.label.archive import Progress, Settings

_MOST_TASKS = 10_000
"""Pieces are dealt in so many blocks, at most: each costs Ray's driver some memory."""

_STORE_BYTES = 100 << 20
"""Of Ray's object store on this machine: only numbers pass through it."""

_KNOCK_SECONDS = 10
_STARTS = 3

_QUIET: Mapping[str, Any] = MappingProxyType(
    {"log_to_driver": False, "logging_level": logging.ERROR}
)


@dataclass(frozen=True)
class _Task:
    """What an actor needs to know.

    Attributes:
        recogniser: to be loaded.
        threads: to compute with.
        model: that it must be.
        work: the folder, which all nodes must see.
        base: the folder from which relative paths are meant.
        schema: of the parts.
    """

    recogniser: Recogniser
    threads: int
    model: ModelInfo
    work: Work
    base: str
    schema: pa.Schema


class _Actor:
    """Labels pieces. What is wrong comes back as a value: no try would make it better."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._refusal = ""
        self._labeller: Labeller | None = None
        try:
            spotter = task.recogniser.load(task.threads)
        except (CarspotterError, OSError) as error:
            self._refusal = f"{socket.gethostname()}: {error}"
            return
        if spotter.info != task.model:
            self._refusal = f"{socket.gethostname()}: its carspotter has another model; update it"
        self._labeller = Labeller(spotter, task.recogniser.crop, task.base, task.schema)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = [
            self._label(int(number), int(start))
            for number, start in zip(batch["number"], batch["start"], strict=True)
        ]
        return {
            "number": batch["number"],
            "photos": np.array([photos for photos, _ in done], np.int64),
            "refusal": np.array([refusal for _, refusal in done], object),
        }

    def _label(self, number: int, start: int) -> tuple[int, str]:
        if self._refusal or self._labeller is None:
            return 0, self._refusal
        part = self._task.work.part(number)
        with contextlib.suppress(OSError, ValueError):  # missing, or damaged
            return pq.read_metadata(part).num_rows, ""  # of an actor that died behind it
        try:
            piece = self._task.work.piece_at(start)
        except OSError as error:
            return 0, (
                f"{self._task.work.path}: not to be read on {socket.gethostname()} "
                f"({error.strerror}); put --out into a folder that all nodes share"
            )
        try:
            return self._labeller.label(piece, part), ""
        except OSError as error:
            return 0, str(error)


def run_on_ray(run: Run, model: ModelInfo, settings: Settings, progress: Progress) -> None:
    """Do what is missing of the work.

    An actor or a node that dies is replaced by Ray, and its pieces are done again; a part that is
    there is not. What Ray gives up is dealt anew, as long as there is progress.

    Args:
        run: the work.
        model: that every actor must have.
        settings: of the call.
        progress: called after each piece.

    Raises:
        OSError: parts cannot be written.
        UsageError: the cluster is not to be had, or has another model.
    """
    threads = settings.threads or 1
    with _cluster(settings, threads):
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        most = settings.actors or max(1, int(there.get("CPU", 1)) // threads)
        task = _Task(run.recogniser.from_anywhere(), threads, model, run.work, run.base, run.schema)
        finished, done = dict(run.finished), sum(run.finished.values())
        while left := [item for item in run.work.starts() if item["number"] not in finished]:
            before = len(finished)
            try:
                for number, photos in _dealt(left, task, most):
                    finished[number] = photos
                    done += photos
                    progress(done, run.plan.photos)
            except RayError:
                finished = run.work.finished()
                if len(finished) == before:
                    raise
                done = sum(finished.values())


def _dealt(left: list[dict[str, int]], task: _Task, most: int) -> Iterator[tuple[int, int]]:
    """Deal pieces to actors; gives number and photos of each as it is finished.

    Raises:
        OSError: an actor refuses a piece.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    blocks = min(len(left), _MOST_TASKS)
    dealt = ray.data.from_items(left, override_num_blocks=blocks).map_batches(
        _Actor,
        fn_constructor_args=(task,),
        batch_size=1,
        # From one on: where a node died, the rest must do, and Ray would wait for the full pool.
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=min(most, blocks),
            initial_size=min(most, blocks),
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=task.threads,
    )
    for batch in dealt.iter_batches(batch_size=None, prefetch_batches=0):
        for number, photos, refusal in zip(*batch.values(), strict=True):
            if refusal:
                raise OSError(str(refusal))
            yield int(number), int(photos)


@contextlib.contextmanager
def _cluster(settings: Settings, threads: int) -> Iterator[None]:
    """Join the cluster, or start a Ray on this machine that ends with the block.

    Raises:
        OSError: none can be started here.
        UsageError: there is no cluster at the address.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if settings.ray_address is not None:
        try:
            _knock(settings.ray_address)
            ray.init(address=settings.ray_address, **_QUIET)
        except Exception as error:  # Ray's are of many kinds
            raise UsageError(
                f"--ray-address {settings.ray_address}: no Ray there ({error})"
            ) from error
    else:
        _start(max(cores(), (settings.actors or 1) * threads))
    try:
        yield
    finally:
        ray.shutdown()


def _start(cpus: int) -> None:
    """Start a Ray on this machine. It gives itself half a minute, too little on a busy one.

    Raises:
        OSError: it does not start.
    """
    for tries_left in reversed(range(_STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=_STORE_BYTES,
                include_dashboard=False,
                **_QUIET,
            )
        except Exception as error:  # a plain one, where the time is over
            ray.shutdown()
            if not tries_left:
                raise OSError(f"Ray cannot be started on this machine ({error})") from error
        else:
            return


def _knock(address: str) -> None:
    """Ray tries for minutes where nobody answers.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()

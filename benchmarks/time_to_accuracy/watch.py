"""Runs a contender's process, notes its marks, and stops it at the target or at the cap."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.time_to_accuracy.contenders import LOG, Contender, ContenderError
from benchmarks.time_to_accuracy.marks import Ending, Mark, first_reaching


@dataclass(frozen=True)
class Limits:
    """When to stop a process.

    Attributes:
        target: accuracy on the test split, 0 to 1; of contenders that test themselves.
        cap_minutes: at most so long, testing left out.
        look_every: seconds between two looks at its files; marks are no more exact than that.
    """

    target: float
    cap_minutes: float
    look_every: float = 0.5


@dataclass(frozen=True)
class Watched:
    """What was seen of a process."""

    ending: Ending
    end: Mark
    marks: tuple[Mark, ...]


class Marker:
    """Turns looks at a process into marks, leaving out the time that it tests.

    Training of an epoch is over at the first look that shows it, testing at the first look that
    shows the accuracy; what lies between is testing.
    """

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self._testing = self._testing_cpu = 0.0

    def trained(self, epoch: int, seconds: float, cpu_seconds: float) -> None:
        """An epoch's training is done, so long after the process began."""
        self.marks.append(self.now(seconds, cpu_seconds, epoch))

    def tested(self, accuracy: float, seconds: float, cpu_seconds: float) -> None:
        """The last epoch's accuracy is there."""
        last = self.marks[-1]
        self._testing = seconds - last.seconds
        self._testing_cpu = cpu_seconds - last.cpu_seconds
        self.marks[-1] = replace(last, accuracy=accuracy, testing_seconds=self._testing)

    def now(self, seconds: float, cpu_seconds: float, epoch: int | None = None) -> Mark:
        """Where the process stands, testing so far left out."""
        done = epoch if epoch is not None else self.marks[-1].epoch if self.marks else 0
        return Mark(done, seconds - self._testing, cpu_seconds - self._testing_cpu, self._testing)


def watch(contender: Contender, folder: Path, limits: Limits) -> Watched:
    """Run a contender in a new folder until it ends, reaches the target or meets the cap.

    Raises:
        ContenderError: its process failed, or did no epoch within the cap.
        UsageError: it cannot be started.
    """
    command = contender.command(folder.resolve())
    if folder.is_dir():
        shutil.rmtree(folder)  # of a run that was cut short: it has no result
    folder.mkdir(parents=True)
    environment = {**os.environ, **contender.environment(folder.resolve())}
    with (folder / LOG).open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,  # so that its workers can be ended with it
        )
        try:
            found = _follow(contender, folder, process, began, limits)
            contender.keep(folder, None)
        finally:
            _end(process)
    if found.ending == "finished" and process.returncode:
        raise ContenderError(
            f"the process ended with {process.returncode}; the end of {folder / LOG}:\n"
            + (folder / LOG).read_text(encoding="utf-8", errors="replace")[-2000:]
        )
    if not found.marks:
        raise ContenderError(f"no epoch was done in {found.end.seconds / 60:.1f} minutes")
    return found


def _follow(
    contender: Contender,
    folder: Path,
    process: subprocess.Popen[bytes],
    began: float,
    limits: Limits,
) -> Watched:
    marker = Marker()
    tree = psutil.Process(process.pid)
    cpu = 0.0
    while True:
        is_over = process.poll() is not None
        seconds, cpu = time.monotonic() - began, max(cpu, cpu_seconds(tree))
        for seen in contender.seen(folder):
            marks = marker.marks
            if not marks or seen.epoch > marks[-1].epoch:
                marker.trained(seen.epoch, seconds, cpu)
                contender.keep(folder, seen.epoch)
            is_last = seen.epoch == marks[-1].epoch
            if is_last and seen.accuracy is not None and marks[-1].accuracy is None:
                marker.tested(seen.accuracy, seconds, cpu)
        end = marker.now(seconds, cpu)
        if is_over:
            return Watched("finished", end, tuple(marker.marks))
        if first_reaching(marker.marks, limits.target):
            return Watched("target", end, tuple(marker.marks))
        is_testing = bool(marker.marks) and marker.marks[-1].accuracy is None
        if end.seconds > 60 * limits.cap_minutes and not (
            is_testing and contender.rule == "first epoch"
        ):
            return Watched("cap", end, tuple(marker.marks))
        time.sleep(limits.look_every)


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process, its children, and those of them that have ended; 0 if over."""
    total = 0.0
    try:
        for each in (process, *process.children(recursive=True)):
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue  # its parent counts it from now on
            total += times.user + times.system + times.children_user + times.children_system
    except psutil.NoSuchProcess:
        pass
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its workers, politely first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue
    process.wait()

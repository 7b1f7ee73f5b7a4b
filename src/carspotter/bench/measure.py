"""The measurements, each in processes of their own, by turns: the machine's speed changes."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carspotter.bench.photos import write_photos
from carspotter.errors import CarspotterError
from carspotter.machine import cores

BARE = "import onnxruntime, PIL.Image"
"""What no recognition by onnxruntime can do without, as a program of its own."""

PHOTOS = 4
"""Of each size; the same files come again and again."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        megapixels: sizes of the photos.
        rounds: processes for each cold start; their median counts.
        singles: photos that are looked at one after the other.
        bulk: photos of `identify_many`.
    """

    megapixels: tuple[float, ...] = (0.3, 2.0, 12.0)
    rounds: int = 5
    singles: int = 100
    bulk: int = 400


@dataclass(frozen=True)
class Measured:
    """What was measured on photos of one size.

    Attributes:
        megapixels: of each photo.
        cold_seconds: `carspotter identify PHOTO --json` as a process of its own.
        bare_seconds: a process that only imports onnxruntime and Pillow.
        p50_ms: one photo after the other, warm, from the path to the result.
        p99_ms: likewise.
        photos_per_second: of `identify_many`.
        peak_mib: the most memory that the process of `identify_many` held; None: not known here.
    """

    megapixels: float
    cold_seconds: float
    bare_seconds: float
    p50_ms: float
    p99_ms: float
    photos_per_second: float
    peak_mib: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "cold_to_bare": self.cold_seconds / self.bare_seconds}


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {"processor": platform.processor() or platform.machine(), "cores": cores()}


def measure(
    sizes: Sizes,
    *,
    model: str | None,
    detector: str | None,
    threads: int | None,
    provider: str,
    step: Callable[[str], None] = lambda what: None,
) -> list[Measured]:
    """Measure; takes a minute or so.

    Args:
        sizes: how much.
        model: as for `load`.
        detector: as for `load`.
        threads: as for `load`.
        provider: as for `load`.
        step: hears what is measured next.

    Raises:
        CarspotterError: a process failed; the message has what it printed.
    """
    chosen = {"model": model, "detector": detector, "threads": threads, "provider": provider}
    flags = [word for key, value in chosen.items() if value for word in (f"--{key}", str(value))]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in sizes.megapixels:
            step(f"{megapixels:g} megapixels")
            photos = [str(p) for p in write_photos(Path(folder), megapixels, PHOTOS)]
            cold, bare = _cold_starts(photos[0], flags, sizes.rounds)
            task = {**chosen, "photos": photos}
            single = child({**task, "kind": "latency", "count": sizes.singles})["seconds"]
            bulk = child({**task, "kind": "bulk", "count": sizes.bulk})
            found.append(
                Measured(
                    megapixels=megapixels,
                    cold_seconds=cold,
                    bare_seconds=bare,
                    p50_ms=1000 * statistics.median(single),
                    p99_ms=1000 * p99(single),
                    photos_per_second=bulk["per_second"],
                    peak_mib=bulk["peak_mib"],
                )
            )
    return found


def p99(values: Sequence[float]) -> float:
    """Below which 99 of 100 lie."""
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _cold_starts(photo: str, flags: Sequence[str], rounds: int) -> tuple[float, float]:
    """Medians of seconds: of `identify` on one photo, and of the bare imports."""
    cold, bare = [], []
    for _ in range(rounds):
        bare.append(timed([sys.executable, "-c", BARE]))
        cold.append(
            timed([sys.executable, "-m", "carspotter", "identify", photo, "--json", *flags])
        )
    return statistics.median(cold), statistics.median(bare)


def timed(command: Sequence[str]) -> float:
    """Seconds that a process takes."""
    started = time.perf_counter()
    run_process(command)
    return time.perf_counter() - started


def child(task: dict[str, Any]) -> dict[str, Any]:
    """What a task gives, in a process of its own; see `child.run`."""
    command = [sys.executable, "-m", "carspotter.bench.child", json.dumps(task)]
    said: dict[str, Any] = json.loads(run_process(command))
    return said


def run_process(command: Sequence[str]) -> str:
    """What a process prints.

    Raises:
        CarspotterError: it failed; the message has the last line of what it said, or the signal
            that ended it.
    """
    # Nothing of the terminal's state may change what a process does, and modules are compiled once,
    # as they are where pip installs them, not in each process anew.
    env = {**os.environ, "NO_COLOR": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode < 0:
        raise CarspotterError(
            f"a measured process was ended by signal {-done.returncode}; 9 is often the system's, "
            "for want of memory"
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CarspotterError(f"a measured process failed: {said[-1] if said else command[1]}")
    return done.stdout

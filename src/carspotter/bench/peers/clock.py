"""The clock of every contender: plain Python, so that each environment can run it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_WARM_UP = 3

One = Callable[[str], Any]
"""Answers one photo."""

Many = Callable[[Sequence[str]], Iterable[Any]]
"""Answers photos, one item each."""


def latencies(one: One, photos: Sequence[str], repeats: int) -> list[float]:
    """Seconds that single photos take, from the path to the answer; it is warm before."""
    for number in range(_WARM_UP):
        one(photos[number % len(photos)])
    taken = []
    for number in range(repeats):
        started = time.perf_counter()
        one(photos[number % len(photos)])
        taken.append(time.perf_counter() - started)
    return taken


def rate(many: Many, photos: Sequence[str], count: int) -> float:
    """Photos per second in bulk; it is warm before.

    Raises:
        RuntimeError: not each photo got an answer.
    """
    for _ in many(photos):
        pass
    paths = [photos[number % len(photos)] for number in range(count)]
    started = time.perf_counter()
    done = sum(1 for _ in many(paths))
    taken = time.perf_counter() - started
    if done != count:
        raise RuntimeError(f"{done} answers for {count} photos")
    return count / taken


def peak_mib() -> float | None:
    """The most memory that this process has held, in MiB; None where no one counts it."""
    try:
        import resource  # there is none on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def timed(task: dict[str, Any], one: One, many: Many) -> dict[str, Any]:
    """Do one task: "cold" answers a photo, "latency" and "bulk" measure."""
    if task["kind"] == "cold":
        one(task["photos"][0])
        return {}
    if task["kind"] == "latency":
        return {"seconds": latencies(one, task["photos"], task["count"])}
    return {"per_second": rate(many, task["photos"], task["count"]), "peak_mib": peak_mib()}

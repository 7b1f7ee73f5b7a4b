"""One measurement, in a process of its own: `python -m carspotter.bench.child TASK`.

The task is JSON on the command line, what was measured is JSON on stdout.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from carspotter.loading import load
from carspotter.spotter import Spotter

_WARM_UP = 3


def latencies(spotter: Spotter, photos: list[str], repeats: int) -> list[float]:
    """Seconds that single photos take, from the path to the result."""
    for number in range(_WARM_UP):
        spotter.identify(photos[number % len(photos)])
    taken = []
    for number in range(repeats):
        started = time.perf_counter()
        spotter.identify(photos[number % len(photos)])
        taken.append(time.perf_counter() - started)
    return taken


def rate(spotter: Spotter, photos: list[str], count: int) -> float:
    """Photos per second of `identify_many`; it is warm before."""
    list(spotter.identify_many(photos))
    started = time.perf_counter()
    done = sum(1 for _ in spotter.identify_many(photos[n % len(photos)] for n in range(count)))
    return done / (time.perf_counter() - started)


def peak_mib() -> float | None:
    """The most memory that this process has held, in MiB; None where no one counts it."""
    try:
        import resource  # there is none on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def run(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do one task: "latency" or "bulk"."""
    spotter = load(task["model"], detector=task["detector"], threads=task["threads"])
    if task["kind"] == "latency":
        return {"seconds": latencies(spotter, task["photos"], task["count"])}
    return {
        "per_second": rate(spotter, task["photos"], task["count"]),
        "peak_mib": peak_mib(),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))

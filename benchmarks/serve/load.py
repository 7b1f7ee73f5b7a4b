"""Throughput beside `identify_many`, and what becomes of requests when there are too many."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.serve.client import Client, Outcome, quantile, request_of
from benchmarks.serve.service import Service, running

_PLAIN = """
import json, sys, time
import carspotter
model, threads, *files = sys.argv[1:]
photos = [open(file, "rb").read() for file in files]
spotter = carspotter.load(model or None, threads=int(threads) or None)
list(spotter.identify_many(photos[:16]))
began = time.perf_counter()
count = sum(1 for _ in spotter.identify_many(photos))
print(json.dumps(count / (time.perf_counter() - began)))
"""


def measure(
    photos: Sequence[Path],
    *,
    model: str | None,
    rounds: int,
    seconds: float,
    clients: int,
    seed: int,
    options: list[str],
    work: Path,
) -> dict[str, Any]:
    """Throughput and latencies on the same photos.

    `identify_many` and the service take turns, since the machine may be faster at one time than at
    another; then come half of the service's capacity and four times it, with requests at random
    moments that do not wait for each other (a Poisson process).
    """
    requests = [request_of(photo.read_bytes(), "image/jpeg") for photo in photos]
    flags = [*options, *(["--model", model] if model else []), "--log-level", "warning"]
    plain, served = [], []
    for _ in range(rounds):
        plain.append(_identify_many(photos, model))
        with running(flags, log=work / "load.log") as service:
            served.append(uvloop.run(_closed(service, requests, clients)))
    capacity = quantile(served, 0.5)
    report: dict[str, Any] = {
        "photos": len(photos),
        "identify_many_per_second": plain,
        "service_per_second": served,
        "share": quantile([s / p for s, p in zip(served, plain, strict=True)], 0.5),
    }
    with running(flags, log=work / "load.log") as service:
        for name, factor in (("half", 0.5), ("four_times", 4.0)):
            outcomes = uvloop.run(_open(service, requests, factor * capacity, seconds, seed))
            report[name] = _summary(outcomes, factor * capacity)
        report["ready_afterwards"] = service.is_ready()
        report["memory_mib"] = round(service.memory(), 1)
    report["p99_ratio"] = report["four_times"]["p99"] / report["half"]["p99"]
    return report


def _identify_many(photos: Sequence[Path], model: str | None) -> float:
    command = [sys.executable, "-c", _PLAIN, model or "", "0", *map(str, photos)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    rate: float = json.loads(done.stdout)
    return rate


async def _closed(service: Service, requests: Sequence[bytes], clients: int) -> float:
    """Photos per second, with so many clients that each wait for their answer."""
    client = Client(service.host, service.port)
    for request in requests[:16]:
        await client.send(request)
    left = iter(requests)
    failed = 0

    async def work() -> None:
        nonlocal failed
        for request in left:
            failed += (await client.send(request)).status != 200

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    rate = len(requests) / (time.perf_counter() - began)
    client.close()
    if failed:
        raise RuntimeError(f"{failed} of {len(requests)} requests failed: fewer clients")
    return rate


async def _open(
    service: Service, requests: Sequence[bytes], rate: float, seconds: float, seed: int
) -> list[Outcome]:
    """Outcomes of requests at random moments, so many a second on average."""
    client, draw = Client(service.host, service.port), random.Random(seed)
    sent: list[asyncio.Task[Outcome]] = []
    end = time.monotonic() + seconds
    moment = time.monotonic()
    for request in itertools.cycle(requests):
        moment += draw.expovariate(rate)
        if moment > end:
            break
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        sent.append(asyncio.create_task(client.send(request)))
    outcomes = await asyncio.gather(*sent)
    client.close()
    return list(outcomes)


def _summary(outcomes: Sequence[Outcome], rate: float) -> dict[str, Any]:
    taken = [outcome.seconds for outcome in outcomes if outcome.status == 200]
    statuses = Counter(outcome.status for outcome in outcomes)
    return {
        "asked_per_second": rate,
        "requests": len(outcomes),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "p50": quantile(taken, 0.5),
        "p99": quantile(taken, 0.99),
        "slowest": max((outcome.seconds for outcome in outcomes), default=float("nan")),
    }

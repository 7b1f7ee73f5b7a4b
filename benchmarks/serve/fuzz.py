"""Mutated pictures and bodies: nothing but answers that say what is wrong, and no memory lost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.serve.client import Client, request_of
from benchmarks.serve.material import Case, cases
from benchmarks.serve.service import Service, running

ALLOWED = frozenset({200, 400, 413, 415, 422, 503})
"""What a request of the fuzz may be answered with."""

_AT_ONCE = 4


def measure(count: int, *, seed: int, options: list[str], work: Path) -> dict[str, Any]:
    """Send so many requests; those that went wrong are kept in `work`."""
    made = cases(count, seed)
    flags = [*options, "--log-level", "warning"]
    with running(flags, log=work / "fuzz.log") as service:
        before = {process.pid for process in service.workers()}
        first = max(1, count // 5)
        statuses, wrong = Counter[str](), list[str]()
        # The allocator settles during the first part; what comes after must not add to it.
        asyncio.run(_send(service, _take(made, first), statuses, wrong, work))
        settled, handles = service.memory(), service.handles()
        asyncio.run(_send(service, made, statuses, wrong, work))
        return {
            "cases": count,
            "seed": seed,
            "statuses": dict(sorted(statuses.items())),
            "wrong": wrong,
            "memory_mib": [round(settled, 1), round(service.memory(), 1)],
            "handles": [handles, service.handles()],
            "same_processes": before == {process.pid for process in service.workers()},
            "ready_afterwards": service.is_ready(),
        }


async def _send(
    service: Service, made: Iterable[Case], statuses: Counter[str], wrong: list[str], work: Path
) -> None:
    client, left = Client(service.host, service.port), iter(made)

    async def ask() -> None:
        for case in left:
            found = await client.send(request_of(case.body, case.media_type))
            statuses[f"{case.kind} {found.status}"] += 1
            if found.status not in ALLOWED or not _is_sound(found.status, found.body):
                file = work / f"wrong-{len(wrong)}.body"
                file.write_bytes(case.body)
                wrong.append(f"{found.status} {case.media_type} {file}")

    await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
    client.close()


def _is_sound(status: int, body: bytes) -> bool:
    """Whether an answer is what its status promises."""
    try:
        said = json.loads(body)
    except ValueError:
        return False
    if status == 200:
        return all(
            (found["answer"] is None) != (found["error"] is None) for found in said["results"]
        )
    return bool(said["status"] == status and said["code"])


def _take(made: Iterable[Case], count: int) -> Iterable[Case]:
    iterator = iter(made)
    for _ in range(count):
        case = next(iterator, None)
        if case is None:
            return
        yield case

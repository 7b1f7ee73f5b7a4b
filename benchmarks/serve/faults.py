"""Things that break around the service, while others use it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.serve.client import Client, request_of
from benchmarks.serve.material import seeds
from benchmarks.serve.service import Service, running

_HEAD = "POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
_PROBES = 4
"""Clients that ask one thing after the other all the while."""

Fault: TypeAlias = Callable[[Service, float], Awaitable[dict[str, Any]]]


async def _killed(service: Service, seconds: float) -> dict[str, Any]:
    """One of two workers dies, two seconds after both serve, again and again."""
    kills, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        if service.starts() < kills + 2:
            await asyncio.sleep(0.1)
            continue
        await asyncio.sleep(2)
        oldest = min(service.workers(), key=lambda worker: worker.create_time())
        os.kill(oldest.pid, signal.SIGKILL)
        kills += 1
    return {"kills": kills}


async def _cut(service: Service, seconds: float) -> dict[str, Any]:
    """Clients break off in the middle of their upload, politely and by a reset."""
    cut, end = 0, time.monotonic() + seconds
    reset = struct.pack("ii", 1, 0)
    while time.monotonic() < end:
        for number in range(10):
            reader, writer = await asyncio.open_connection(service.host, service.port)
            writer.write(_HEAD.encode() + b"x" * 200_000)
            with contextlib.suppress(OSError):
                await writer.drain()
            if number % 2:
                own: socket.socket = writer.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            writer.close()
            del reader
            cut += 1
        await asyncio.sleep(0.05)
    return {"cut": cut}


async def _slow(service: Service, seconds: float) -> dict[str, Any]:
    """Two hundred clients send one byte a second, half of them not even a whole head."""
    statuses = Counter[str]()

    async def drip(head: bytes) -> None:
        reader, writer = await asyncio.open_connection(service.host, service.port)
        writer.write(head)
        end = time.monotonic() + seconds
        answer = asyncio.ensure_future(reader.read(12))
        while time.monotonic() < end and not answer.done():
            with contextlib.suppress(OSError):
                writer.write(b"x")
                await writer.drain()
            await asyncio.wait({answer}, timeout=1)
        if not answer.done():
            answer.cancel()
            statuses["still open"] += 1
        else:
            with contextlib.suppress(OSError):
                statuses[answer.result()[9:12].decode() or "closed"] += 1
        writer.close()

    heads = [_HEAD.encode(), b"POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nX: "] * 100
    await asyncio.gather(*(drip(head) for head in heads))
    return {"slow_clients": dict(statuses)}


async def _nothing_left(service: Service, seconds: float) -> dict[str, Any]:
    """The disk below the service's files and its log is full."""
    place = Path(os.environ["CARSPOTTER_SMALL_DISK"])
    filler = place / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
            file.flush()
    left = os.statvfs(place).f_bavail
    await asyncio.sleep(seconds)
    filler.unlink()
    return {"blocks_left": left}


FAULTS: Mapping[str, Fault] = {
    "kill": _killed,
    "cut": _cut,
    "slow": _slow,
    "disk": _nothing_left,
}


def measure(name: str, *, seconds: float, options: list[str], work: Path) -> dict[str, Any]:
    """What others notice of a fault, and what is left of it afterwards."""
    env, log = {}, work / f"{name}.log"
    if name == "disk":
        small = os.environ["CARSPOTTER_SMALL_DISK"]
        env, log = {"TMPDIR": small}, Path(small) / "serve.log"
    flags = ["--workers", "2", *options]
    with running(flags, log=log, env=env) as service:
        asyncio.run(_steady(service, 5))  # every worker has done each thing once
        before = service.memory(), service.handles()
        said, statuses = asyncio.run(_with_probes(service, FAULTS[name], seconds))
        time.sleep(8)  # beyond the keep-alive of idle connections
        return {
            "fault": name,
            **said,
            "others": {str(status): count for status, count in sorted(statuses.items())},
            "memory_mib": [round(before[0], 1), round(service.memory(), 1)],
            "handles": [before[1], service.handles()],
            "workers": len(service.workers()),
            "ready_afterwards": service.is_ready(),
        }


def measure_term(*, rounds: int, options: list[str], work: Path) -> dict[str, Any]:
    """SIGTERM under load: whether a request whose bytes were taken goes without an answer."""
    statuses, codes = Counter[int](), Counter[int]()
    for _ in range(rounds):
        with running(["--workers", "2", *options], log=work / "term.log") as service:
            asyncio.run(_terminated(service, statuses))
            codes[service.process.wait(90)] += 1
    return {
        "rounds": rounds,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "lost": statuses[0],
        "exit_codes": {str(code): count for code, count in codes.items()},
    }


async def _terminated(service: Service, statuses: Counter[int]) -> None:
    """Clients with connections of their own, that end where no further connection is taken."""
    request = request_of(seeds(0)[0], "image/jpeg")

    async def ask() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(service.host, service.port)
            except OSError:  # not taken: nothing is lost
                return
            try:
                writer.write(request)
                line = await asyncio.wait_for(reader.readline(), 60)
                statuses[int(line.split()[1]) if line else 0] += 1
            except (OSError, TimeoutError):
                statuses[0] += 1
            finally:
                writer.close()

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(2)
    service.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)


async def _with_probes(
    service: Service, fault: Fault, seconds: float
) -> tuple[dict[str, Any], Counter[int]]:
    async with _probed(service) as statuses:
        said = await fault(service, seconds)
        await asyncio.sleep(2)
    return said, statuses


async def _steady(service: Service, seconds: float) -> None:
    async with _probed(service):
        await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def _probed(service: Service) -> AsyncIterator[Counter[int]]:
    """Ask one thing after the other while the block lasts; statuses, 0 where no answer came."""
    statuses, client, done = Counter[int](), Client(service.host, service.port), False
    request = request_of(seeds(0)[0], "image/jpeg")

    async def ask() -> None:
        while not done:
            statuses[(await client.send(request)).status] += 1
            await asyncio.sleep(0.05)

    asking = [asyncio.create_task(ask()) for _ in range(_PROBES)]
    try:
        yield statuses
    finally:
        done = True
        await asyncio.gather(*asking)
        client.close()

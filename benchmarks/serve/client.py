"""A client that costs little: requests are bytes made beforehand, answers are read once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE = 120.0
"""Seconds after which no answer counts as none."""


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        status: of the answer; 0: none came.
        seconds: from its first byte to the answer's last one.
        body: the answer's.
    """

    status: int
    seconds: float
    body: bytes = b""


def request_of(body: bytes, media_type: str, path: str = "/v1/identify?top=5") -> bytes:
    """A POST, as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client:
    """Connections to one service, used again where the service keeps them.

    Args:
        host: of the service.
        port: of the service.
    """

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: bytes) -> Outcome:
        """Send a request, wait for its answer."""
        began = time.monotonic()
        while True:
            used = bool(self._idle)
            try:
                stream = self._idle.pop() if used else await asyncio.open_connection(*self._place)
            except OSError:
                return Outcome(0, time.monotonic() - began)
            try:
                async with asyncio.timeout(PATIENCE):
                    status, body, kept = await _exchange(*stream, request)
            except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
                stream[1].close()
                if used:  # the service may have closed it while it was idle
                    continue
                return Outcome(0, time.monotonic() - began)
            if kept:
                self._idle.append(stream)
            else:
                stream[1].close()
            return Outcome(status, time.monotonic() - began, body)

    def close(self) -> None:
        """Close what is idle."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection can be used again."""
    writer.write(request)
    sending = asyncio.ensure_future(writer.drain())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
    except StopIteration:
        raise ValueError("an answer without a length") from None
    finally:
        early = not sending.done()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    kept = not early and b"connection: close" not in lines
    return int(lines[0].split()[1]), body, kept


def quantile(seconds: Sequence[float], share: float) -> float:
    """Of values in any order; nan where there is none."""
    ordered = sorted(seconds)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

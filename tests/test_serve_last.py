"""Connections that the system has taken, but no worker yet, when the service shuts down."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from carspotter.serve.protocol import PatientProtocol


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_queued_connection_is_answered_at_the_shutdown() -> None:
    async def scenario() -> tuple[bytes, int]:
        config = uvicorn.Config(_hello, http=PatientProtocol, log_config=None)
        config.load()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            state = {"engine": SimpleNamespace(stopping=lambda: None), "listening": listening}
            # The system connects them; nobody accepts.
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            pair = socket.socketpair()  # a connection that is open
            _, other = await asyncio.open_connection(sock=pair[0])
            open_one = PatientProtocol(config, ServerState(), state)
            open_one.connection_made(other.transport)
            open_one.shutdown()
            async with asyncio.timeout(30):
                said = await reader.read()
            for end in (writer, other, pair[1]):
                end.close()
            return said, listening.fileno()

    said, left = asyncio.run(scenario())
    assert said.startswith(b"HTTP/1.1 200")
    assert said.endswith(b"hello")
    assert left == -1

"""uvicorn's HTTP protocol, with patience that ends.

uvicorn bounds how long a connection may idle between two requests, but not how long the head of a
request may take, nor an answer that its client does not read.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""From a connection's start, or the first byte of a further request, to the end of its head."""

WRITE_SECONDS = 30.0
"""For which a client may leave an answer unread."""

GRACE_SECONDS = 1.0
"""When the service shuts down, a connection without a request may still bring one for so long:
its client may have sent it already."""


class PatientProtocol(H11Protocol):
    """An HTTP/1.1 connection."""

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_idle:
            self._watch_head()
        else:
            self._unwatch_head()
            self.cycle.keep_alive &= not self._ending

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_head()
        self._unwatch_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwatch_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # Closing waits for the client to read what is left.
        if self.transport.get_write_buffer_size():
            self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def shutdown(self) -> None:
        engine: Any = self.app_state.get("engine")
        if engine is not None:
            engine.stopping()
            self._take_the_last(self.app_state["listening"])
        if self._is_idle:
            self._ending = True
            self.loop.call_later(GRACE_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _take_the_last(self, listening: socket.socket) -> None:
        """Take what the system has connected already, though uvicorn listens no more.

        Its clients believe that they are connected, and would see a reset. The connections share
        the worker's own copy of the listening socket; the first of them closes it.
        """
        while listening.fileno() >= 0:
            try:
                taken, _ = listening.accept()
            except OSError:  # nobody waits, or it does not listen
                listening.close()
                break
            taken.setblocking(False)
            task = self.loop.create_task(self._greet(taken))
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)

    async def _greet(self, taken: socket.socket) -> None:
        _, protocol = await self.loop.connect_accepted_socket(
            lambda: type(self)(self.config, self.server_state, self.app_state), taken
        )
        protocol.shutdown()

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._unwatch_head()
        if self._is_idle and not self.transport.is_closing():
            self.transport.abort()

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _unwatch_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

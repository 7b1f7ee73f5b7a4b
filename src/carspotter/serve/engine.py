"""Looking at photos off the event loop: a bounded queue, a deadline, and no work for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from carspotter.errors import CarspotterError
from carspotter.serve.metrics import Metrics
from carspotter.serve.problems import BusyError, GoneError, ProblemError
from carspotter.serve.settings import Settings
from carspotter.serve.spotters import Spotters
from carspotter.spotter import Spotter

_log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 5.0
"""Between two tries to load a model that could not be used."""


class Ticket:
    """The work of one request.

    Attributes:
        spotter: looks at its photos.
    """

    def __init__(self, spotter: Spotter, gone: threading.Event) -> None:
        self.spotter = spotter
        self._gone = gone

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it; look between two photos."""
        return not self._gone.is_set()


class Engine:
    """The photos of a worker: so many threads look at them, so many requests wait.

    Args:
        settings: of the service.
        metrics: counts what happens.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._pool = ThreadPoolExecutor(settings.runners, thread_name_prefix="look")
        self._room = settings.runners + settings.waiting
        self._taken = 0
        self._mean = 0.05  # seconds of a request's work; learnt as they come
        self._spotters: Spotters | None = None
        self._stopping = False
        self._trouble = False
        self._retries: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load and warm the model; where it cannot be used, try again now and then."""
        await self._load()
        if self._spotters is None:
            self._retries = asyncio.create_task(self._load_later())

    def stopping(self) -> None:
        """Say that no further connection will be taken; requests are still answered."""
        self._stopping = True

    async def stop(self) -> None:
        """End, with the work that is under way."""
        self.stopping()
        if self._retries is not None:
            self._retries.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._retries
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def check(self) -> None:
        """Refuse a request before its body is taken in, where there is no room for it.

        Raises:
            ProblemError: the model is not loaded, or the queue is full.
        """
        if self._spotters is None:
            raise self._not_ready()
        if self._taken >= self._room:
            waiting = self._mean * self._taken / self._settings.runners
            self._metrics.refused("queue_full")
            raise BusyError(
                "busy",
                "as many requests wait as may; try again later",
                seconds=max(1, math.ceil(waiting)),
            )

    def check_ready(self) -> None:
        """Refuse where new requests should go elsewhere.

        Raises:
            ProblemError: the model is not loaded, or the service is shutting down.
        """
        if self._stopping:
            raise BusyError("stopping", "the service is shutting down")
        if self._spotters is None:
            raise self._not_ready()

    async def run(self, request: Request, work: Callable[[Ticket], T]) -> T:
        """Do the work of a request in a thread, once there is one for it.

        Args:
            request: whose body was read; its client may go away meanwhile.
            work: gets a ticket.

        Returns:
            What the work gives.

        Raises:
            ProblemError: no room, or not done by the deadline.
            GoneError: the client went away.
        """
        self.check()
        gone = threading.Event()
        job = self._submit(work, gone)
        result = asyncio.wrap_future(job)
        watch = asyncio.ensure_future(_until_gone(request))
        try:
            waits: set[asyncio.Future[Any]] = {result, watch}
            await asyncio.wait(
                waits,
                timeout=self._settings.deadline,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if result.done():
                return result.result()
            if watch.done():
                raise GoneError
            self._metrics.refused("deadline")
            raise BusyError("deadline", f"not done within {self._settings.deadline:g} seconds")
        finally:
            gone.set()
            job.cancel()  # where it has not begun, it never will
            result.cancel()
            watch.cancel()

    def _submit(self, work: Callable[[Ticket], T], gone: threading.Event) -> Future[T]:
        loop, queued = asyncio.get_running_loop(), time.monotonic()
        spotters = self._spotters
        assert spotters is not None
        self._taken += 1
        self._metrics.queue.inc()

        def do() -> T:
            began = time.monotonic()
            self._metrics.waited.observe(began - queued)
            try:
                if gone.is_set():
                    raise GoneError
                return work(Ticket(spotters.now(), gone))
            finally:
                self._mean += 0.1 * (time.monotonic() - began - self._mean)

        def left(_: Future[T]) -> None:
            self._metrics.queue.dec()
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody counts any more
                loop.call_soon_threadsafe(self._left)

        job = self._pool.submit(do)
        job.add_done_callback(left)
        return job

    def _left(self) -> None:
        self._taken -= 1

    def now(self) -> tuple[Spotter, int | None]:
        """The spotter as it is now, and its taught cars; blocks while a garage is read.

        Raises:
            ProblemError: the model is not loaded.
        """
        if self._spotters is None:
            raise self._not_ready()
        return self._spotters.now(), self._spotters.cars

    def _not_ready(self) -> ProblemError:
        if self._trouble:
            detail = "the model file cannot be used; the log says why"
            return BusyError("model_unusable", detail, seconds=round(RETRY_SECONDS))
        return BusyError("starting", "the model is being loaded; try again in a moment")

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._spotters = await loop.run_in_executor(None, Spotters, self._settings)
        except (CarspotterError, OSError) as error:
            self._trouble = True
            _log.error("the model cannot be used: %s", error)
        else:
            self._trouble = False
            self._metrics.model(self._spotters.now().info)

    async def _load_later(self) -> None:
        while self._spotters is None:
            await asyncio.sleep(RETRY_SECONDS)
            await self._load()


async def _until_gone(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

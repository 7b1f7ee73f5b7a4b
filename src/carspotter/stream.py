"""Many photos in order, worked on side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from carspotter.errors import PhotoError
from carspotter.photo import PhotoSource, photo_name
from carspotter.results import Failure

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2
"""So many batches of each thread are begun or wait, before the first of them is taken."""


def read_and_finished(
    photos: Iterable[PhotoSource],
    *,
    read: Callable[[PhotoSource], T],
    finish: Callable[[list[tuple[str, T]]], list[R]],
    failed: Callable[[str, Failure], R],
    threads: int,
    at_once: int,
    size: int,
) -> Generator[R, None, None]:
    """Read photos, and finish those that could be read; both in threads.

    Args:
        photos: taken from the iterable as they are needed.
        read: reads one.
        finish: makes results of names and what was read, in order.
        failed: makes a result of a name, where `read` raised `PhotoError`.
        threads: how many read.
        at_once: so many of them finish at the same time, at most.
        size: of a batch that is read, then finished.

    Yields:
        The result of each photo, in order.
    """
    finishing = threading.Semaphore(at_once)

    def work(batch: list[PhotoSource]) -> list[R]:
        tried: list[tuple[str, T | Failure]] = []
        for photo in batch:
            try:
                tried.append((photo_name(photo), read(photo)))
            except PhotoError as error:
                tried.append((photo_name(photo), Failure(error.code, str(error))))
        ready = [(name, it) for name, it in tried if not isinstance(it, Failure)]
        with finishing:
            finished = iter(finish(ready))
        return [
            failed(name, it) if isinstance(it, Failure) else next(finished) for name, it in tried
        ]

    yield from in_batches(photos, work, threads=threads, size=size)


def in_batches(
    items: Iterable[S], work: Callable[[list[S]], list[R]], *, threads: int, size: int
) -> Generator[R, None, None]:
    """Work on items in threads, some at a time; what is held at once does not grow with them.

    Args:
        items: taken from the iterable as they are needed.
        work: runs in a thread; what it gives of a batch is passed on, one by one. What it raises
            ends it all.
        threads: how many batches are worked on at once.
        size: of a batch; the last one may be smaller.

    Yields:
        What `work` gave, in the order of the items.
    """
    waiting: deque[Future[list[R]]] = deque()
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while batch := list(islice(rest, size)):
                waiting.append(pool.submit(work, batch))
                if len(waiting) >= _AHEAD * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()

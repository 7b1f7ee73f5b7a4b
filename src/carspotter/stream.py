"""Many photos in order: reading them overlaps with what is done with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from carspotter.errors import PhotoError
from carspotter.photo import PhotoSource, photo_name
from carspotter.results import Failure

T = TypeVar("T")


def in_batches(
    photos: Iterable[PhotoSource], read: Callable[[PhotoSource], T], *, threads: int, size: int
) -> Generator[list[tuple[str, T | Failure]], None, None]:
    """Read photos in threads, ahead of their use; at most twice `size` are held at once.

    Args:
        photos: taken from the iterable as they are needed.
        read: runs in a thread; what it gives of a photo is passed on.
        threads: how many read.
        size: of a batch; the last one may be smaller.

    Yields:
        Name and what was read of each photo, in order; a failure where `read` raised `PhotoError`.
    """
    waiting: deque[tuple[str, Future[T]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for photo in photos:
                waiting.append((photo_name(photo), pool.submit(read, photo)))
                if len(waiting) >= 2 * size:
                    yield _taken(waiting, size)
            while waiting:
                yield _taken(waiting, size)
        finally:
            for _, job in waiting:
                job.cancel()


def _taken(waiting: deque[tuple[str, Future[T]]], size: int) -> list[tuple[str, T | Failure]]:
    batch: list[tuple[str, T | Failure]] = []
    for _ in range(min(size, len(waiting))):
        name, job = waiting.popleft()
        try:
            batch.append((name, job.result()))
        except PhotoError as error:
            batch.append((name, Failure(error.code, str(error))))
    return batch

"""Files by path or by address (s3://…, gs://…, memory://…): one way to open both."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any, cast

from carspotter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from carspotter.photo import PhotoSource


def is_address(text: str) -> bool:
    """Whether this is an address of a store, not a path."""
    return "://" in text


def store_of(address: str) -> tuple[Any, str]:
    """Fsspec's file system of an address, and the path in it.

    Raises:
        UsageError: there is no such kind of store, or the package that opens it is missing.
    """
    import fsspec  # not needed for what lies on this machine

    try:
        store, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{address}: cannot be opened ({error})") from error
    return store, path


def open_binary(place: str, base: str) -> IO[bytes]:
    """Open a file for reading.

    Args:
        place: a path, or an address.
        base: the folder from which a relative path is meant.

    Raises:
        OSError: it cannot be opened.
        UsageError: as for `store_of`.
    """
    if not is_address(place):
        return open(os.path.join(base, place), "rb")  # noqa: PTH123  # the caller closes it
    store, path = store_of(place)
    return cast("IO[bytes]", store.open(path, "rb"))


class StoredPhoto:
    """A photo that is read where it lies, when its turn has come. Looks like an open file.

    Args:
        name: how results and errors call it.
        opened: opens it; called once, when it is read.
    """

    def __init__(self, name: str, opened: Callable[[], IO[bytes]]) -> None:
        self.name = name
        self._opened = opened
        self._file: IO[bytes] | None = None

    def read(self, size: int) -> bytes:
        """Its next bytes; none at its end, where it is closed.

        Raises:
            OSError: they cannot be read, whatever the store raised.
        """
        try:
            if self._file is None:
                self._file = self._opened()
            part = self._file.read(size)
            if not part:
                self._file.close()
        except OSError:
            raise
        except Exception as error:  # stores and archives have exceptions of their own
            raise OSError(f"{type(error).__name__}: {error}") from error
        return part


def photo_at(place: str, base: str) -> PhotoSource:
    """A photo by path or address."""
    return cast("PhotoSource", StoredPhoto(place, lambda: open_binary(place, base)))

"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
"""What a lock that is not waited for fails with; other failures never end."""


def cache_folder() -> Path:
    """`CARSPOTTER_CACHE`, else `carspotter` below the user's cache folder (XDG)."""
    own = os.environ.get("CARSPOTTER_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "carspotter"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it to `path` when the block ends well.

    Until then `path` keeps what it held, and who may read and write it stays as it was. If the
    block raises, the temporary file is removed.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(path.stat().st_mode & 0o777 if path.exists() else by_umask(0o666))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def by_umask(mode: int) -> int:
    """A mode less what the user's umask takes away: what `tempfile` makes is private instead."""
    umask = os.umask(0)
    os.umask(umask)
    return mode & ~umask


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8), whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can say so."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, *, busy: Exception | None = None) -> Iterator[None]:
    """Hold the lock of a file that is about to be read and replaced; wait while another has it.

    The lock is the operating system's, on a hidden file beside `path`, and ends with the process
    that holds it: there is none that is left over.

    Args:
        path: the file.
        busy: what to raise, instead of waiting, while another has it.

    Raises:
        OSError: the folder cannot be written, or the lock was not to be had.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            mode = msvcrt.LK_LOCK if busy is None else msvcrt.LK_NBLCK
            take = functools.partial(msvcrt.locking, file.fileno(), mode, 1)
        else:
            import fcntl

            how = fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB
            take = functools.partial(fcntl.flock, file, how)
        try:
            take()
        except OSError as error:
            if busy is not None and error.errno in _HELD_BY_ANOTHER:
                raise busy from None
            raise OSError(
                f"{path.parent}: files cannot be locked there ({error.strerror}); take a folder on "
                "a disk of this machine, or mount it with locks"
            ) from error
        yield

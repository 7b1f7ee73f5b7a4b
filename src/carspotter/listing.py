"""From the arguments of a command to the photos that they stand for."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from carspotter.errors import UsageError
from carspotter.photo import PHOTO_ENDINGS

if TYPE_CHECKING:
    from carspotter.photo import PhotoSource

HEAT_MAP_ENDING = ".explain.jpg"
"""Of the pictures that --explain writes, which are no photos."""


def expand(photos: Iterable[str]) -> Iterator[PhotoSource]:
    """The photos that arguments stand for, folders in order of name, as they are needed.

    What leads to no photo is passed on as it is: reading it says what is wrong.

    Raises:
        UsageError: stdin is meant, and closed.
    """
    for argument in photos:
        if argument == "-":
            if sys.stdin is None:
                raise UsageError("- stands for a photo on stdin, but stdin is closed")
            yield sys.stdin.buffer
        elif os.path.isdir(argument):
            yield from _or_itself(in_folder(argument), argument)
        elif os.path.lexists(argument):
            yield argument
        else:
            yield from _or_itself(_matched(argument), argument)


def _matched(pattern: str) -> Iterator[str]:
    """The files that a glob matches, and the photos in folders that it matches, each once."""
    searched: set[Path] = set()
    for match in sorted(glob.glob(pattern, recursive=True)):
        if not searched.isdisjoint(Path(match).parents):
            continue  # "**" matches a folder, and then all that is in it
        if os.path.isdir(match):
            searched.add(Path(match))
            yield from in_folder(match)
        elif os.path.isfile(match):
            yield match


def in_folder(folder: str) -> Iterator[str]:
    """The photos in a folder and the folders in it, in order of name; hidden ones are left out.

    A folder in it that cannot be read is passed on as it is.
    """
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        unreadable.append(str(error.filename))

    for place, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            os.path.join(place, name)
            for name in sorted(files)
            if Path(name).suffix.lower() in PHOTO_ENDINGS
            and not name.startswith(".")
            and not name.endswith(HEAT_MAP_ENDING)  # what --explain wrote is no photo
            and not _is_special(os.path.join(place, name))
        )
    yield from unreadable


def _is_special(path: str) -> bool:
    """Whether a name is a pipe's, a socket's or a device's, which may give nothing for ever."""
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False  # a link to nothing and the like: reading it says what is wrong


def _or_itself(found: Iterator[str], argument: str) -> Iterator[str]:
    first = next(found, argument)
    yield first
    yield from found

"""What SOURCE holds: photos, and files that hold photos."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TextIO, TypeAlias

from carspotter.errors import DataError
from carspotter.label.storage import is_address, open_binary, store_of
from carspotter.listing import HEAT_MAP_ENDING, in_folder
from carspotter.photo import PHOTO_ENDINGS

Kind: TypeAlias = Literal["photo", "parquet", "tar", "zip", "list", "table"]

_ENDINGS: tuple[tuple[str, Kind], ...] = (
    (".parquet", "parquet"),
    (".tar", "tar"),
    (".tar.gz", "tar"),
    (".tgz", "tar"),
    (".tar.bz2", "tar"),
    (".tar.xz", "tar"),
    (".zip", "zip"),
    (".txt", "list"),
    (".lst", "list"),
    (".csv", "table"),
    (".tsv", "table"),
)

HOLDERS = frozenset({"parquet", "tar", "zip"})
"""What is looked for in a folder that has no photos of its own."""

COLUMNS = (
    *("photo", "path", "file", "filename", "filepath", "fname"),
    *("image", "imagepath", "imagename", "picture", "url"),
)
"""What a table's column of photos may be called, without case, blanks, `_` and `-`."""


class Entry(NamedTuple):
    """A photo, or a file that holds photos.

    Attributes:
        kind: what it is.
        place: its path, as SOURCE gave it, or its address.
    """

    kind: Kind
    place: str


def kind_of(name: str) -> Kind:
    """What a file is, by its ending; what has none of those of holders or lists is a photo."""
    lower = name.lower()
    return next((kind for ending, kind in _ENDINGS if lower.endswith(ending)), "photo")


def is_photo_name(name: str) -> bool:
    """Whether a file inside a folder or an archive is taken for a photo."""
    path = PurePosixPath(name)
    return (
        path.suffix.lower() in PHOTO_ENDINGS
        and not path.name.startswith(".")
        and not name.endswith(HEAT_MAP_ENDING)
    )


def entries(sources: Iterable[str], base: str, column: str | None) -> Iterator[Entry]:
    """All that sources stand for, in a fixed order, as it is needed.

    Args:
        sources: files, folders, globs and addresses.
        base: the folder from which relative paths are meant.
        column: of the photos in a table; None: one of `COLUMNS`.

    Raises:
        DataError: a source does not exist, holds no photos, or a list cannot be read.
        UsageError: an address that nothing here can open.
    """
    for source in sources:
        found = _stored(source) if is_address(source) else _local(source, base)
        for entry in found:
            if entry.kind in ("list", "table"):
                yield from _listed(entry, base, column)
            else:
                yield entry


def _local(source: str, base: str) -> Iterator[Entry]:
    path = os.path.join(base, source)

    def as_given(found: str) -> str:
        return found if Path(source).is_absolute() else os.path.relpath(found, base)

    if os.path.isdir(path):
        photos = (Entry("photo", as_given(found)) for found in in_folder(path))
        holders = (Entry(kind_of(found), as_given(found)) for found in _holders(path))
        yield from _first_of(photos, holders, source)
    elif os.path.lexists(path):
        yield Entry(kind_of(source), source)
    else:
        files = (p for p in sorted(glob.glob(path, recursive=True)) if os.path.isfile(p))
        given = (Entry(kind_of(found), as_given(found)) for found in files)
        yield from _first_of(given, iter(()), source)


def _holders(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            os.path.join(place, name)
            for name in sorted(files)
            if kind_of(name) in HOLDERS and not name.startswith(".")
        )


def _stored(address: str) -> Iterator[Entry]:
    store, path = store_of(address)
    try:
        if any(sign in path for sign in "*?["):
            found = sorted(store.glob(path))
        elif store.isdir(path):
            found = sorted(store.find(path))
            photos = [name for name in found if is_photo_name(name)]
            found = photos or [name for name in found if kind_of(name) in HOLDERS]
        else:
            found = [path] if store.exists(path) else []
    except Exception as error:  # each store has exceptions of its own
        raise DataError(f"{address}: cannot be listed ({error})") from error
    each = (Entry(kind_of(name), store.unstrip_protocol(name)) for name in found)
    yield from _first_of(each, iter(()), address)


def _first_of(found: Iterator[Entry], otherwise: Iterator[Entry], source: str) -> Iterator[Entry]:
    """Those found; where there are none, the others.

    Raises:
        DataError: there are none of either.
    """
    for candidates in (found, otherwise):
        first = next(candidates, None)
        if first is not None:
            yield first
            yield from candidates
            return
    raise DataError(f"{source}: no such file or folder, or one without photos")


def _listed(entry: Entry, base: str, column: str | None) -> Iterator[Entry]:
    """The photos that a list names; relative paths are meant from the list's own folder."""
    folder = entry.place.rpartition("/")[0] if is_address(entry.place) else None
    try:
        # A file name need not be UTF-8.
        with io.TextIOWrapper(
            open_binary(entry.place, base), "utf-8-sig", errors="surrogateescape", newline=""
        ) as text:
            lines = _rows(text, entry, column) if entry.kind == "table" else _lines(text)
            for line in lines:
                if is_address(line) or Path(line).is_absolute():
                    yield Entry("photo", line)
                elif folder is not None:
                    yield Entry("photo", f"{folder}/{line}")
                else:
                    yield Entry("photo", str(Path(entry.place).parent / line))
    except (OSError, csv.Error) as error:
        raise DataError(f"{entry.place}: cannot be read ({error})") from error


def _lines(text: TextIO) -> Iterator[str]:
    return (name for line in text if (name := line.rstrip("\r\n")))


def _rows(text: TextIO, entry: Entry, column: str | None) -> Iterator[str]:
    delimiter = "\t" if entry.place.lower().endswith(".tsv") else ","
    rows = csv.reader(text, delimiter=delimiter)
    header = next(rows, [])
    if column is not None:
        place = header.index(column) if column in header else None
    else:
        spelt = [re.sub(r"[\s_-]", "", name).lower() for name in header]
        place = next((spelt.index(name) for name in COLUMNS if name in spelt), None)
    if place is None:
        wanted = column or f"photos ({', '.join(COLUMNS)})"
        raise DataError(
            f"{entry.place}: has no column {wanted}, only: {', '.join(header) or 'none'}; "
            "say which by --column"
        )
    for row in rows:
        if len(row) > place and row[place]:
            yield row[place]

"""From a piece of an archive to its photos."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, cast

import pyarrow.parquet as pq

from carspotter.label.pieces import Piece
from carspotter.label.sources import is_photo_name
from carspotter.label.storage import StoredPhoto, is_address, open_binary, photo_at
from carspotter.photo import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from carspotter.photo import PhotoSource

_ROWS = 16
"""Of a parquet file, taken at a time: their photos are held in memory."""


def photos_of(piece: Piece, base: str, held: ExitStack) -> Iterator[PhotoSource]:
    """The photos of a piece, in order; each is read when its turn has come, or fails then.

    Where the piece knows how many there are, so many come, whatever has become of the file.

    Args:
        piece: of the archive.
        base: the folder from which relative paths are meant.
        held: closed by the caller, when the last photo has been read: what they are read from.
    """
    if piece.kind == "photos":
        return (photo_at(name, base) for name in piece.names)
    if piece.kind == "tar":
        return _members(piece, base)
    if piece.kind == "zip":
        return _zipped(piece, base, held)
    if piece.kind == "parquet":
        return _rows(piece, base)
    if piece.kind == "stream":
        return _streamed(piece.place, base)
    return iter((_failing(piece.place, piece.message),))


def is_remote(piece: Piece) -> bool:
    """Whether its photos come one by one from afar, so that many should be on the way."""
    return piece.kind == "photos" and any(map(is_address, piece.names))


def _failing(name: str, message: str) -> PhotoSource:
    def opened() -> IO[bytes]:
        raise OSError(message)

    return cast("PhotoSource", StoredPhoto(name, opened))


def _held(name: str, data: bytes) -> PhotoSource:
    return cast("PhotoSource", StoredPhoto(name, lambda: io.BytesIO(data)))


def _members(piece: Piece, base: str) -> Iterator[PhotoSource]:
    def opener(first: int, length: int) -> Callable[[], IO[bytes]]:
        def opened() -> IO[bytes]:
            with open_binary(piece.place, base) as file:
                file.seek(first)
                return io.BytesIO(file.read(min(MAX_BYTES + 1, length)))

        return opened

    for name, (first, length) in zip(piece.names, piece.spans, strict=True):
        yield cast("PhotoSource", StoredPhoto(f"{piece.place}::{name}", opener(first, length)))


def _zipped(piece: Piece, base: str, held: ExitStack) -> Iterator[PhotoSource]:
    try:
        file = held.enter_context(open_binary(piece.place, base))
        archive = held.enter_context(zipfile.ZipFile(file))
    except Exception as error:  # it was there when the work was planned; broken ones raise anything
        for name in piece.names:
            yield _failing(f"{piece.place}::{name}", f"{piece.place}: {error}")
        return

    def opener(name: str) -> Callable[[], IO[bytes]]:
        return lambda: archive.open(name)

    for name in piece.names:
        yield cast("PhotoSource", StoredPhoto(f"{piece.place}::{name}", opener(name)))


def _rows(piece: Piece, base: str) -> Iterator[PhotoSource]:
    assert piece.count is not None
    row, end = piece.first_row, piece.first_row + piece.count
    columns = [name for name in (piece.column, piece.path_column) if name]
    reason = f"{piece.place}: has fewer rows than when the work was planned"
    try:
        with open_binary(piece.place, base) as file, pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_ROWS, list(range(*piece.groups)), columns):
                images = _cells(batch, piece.column)
                paths = _cells(batch, piece.path_column) if piece.path_column else images
                for image, path in zip(images, paths, strict=True):
                    if row == end:  # it has more rows than when the work was planned
                        return
                    named = path.as_py() if piece.path_column else None
                    data = image.as_py() or b""
                    yield _held(f"{piece.place}::{named or row}", data)
                    row += 1
    except Exception as error:  # it was there when the work was planned; broken ones raise anything
        reason = f"{piece.place}: {' '.join(str(error).split())}"
    for number in range(row, end):
        yield _failing(f"{piece.place}::{number}", reason)


def _cells(batch: pq.RecordBatch, column: str) -> pq.Array:
    name, _, child = column.partition(".")
    cells = batch.column(name)
    return cells.field(child) if child else cells


def _streamed(place: str, base: str) -> Iterator[PhotoSource]:
    try:
        with open_binary(place, base) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all
                if member.isreg() and is_photo_name(member.name):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield _held(f"{place}::{member.name}", content.read(MAX_BYTES + 1))
    except Exception as error:  # what came before it is good; broken archives raise anything
        yield _failing(place, f"cannot be read to its end ({' '.join(str(error).split())})")

"""Pieces of an archive: what is labelled at a time, and written whole or not at all."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from carspotter.errors import UsageError
from carspotter.label.sources import Entry, is_photo_name
from carspotter.label.storage import is_address, open_binary

PieceKind: TypeAlias = Literal["photos", "parquet", "tar", "stream", "zip", "broken"]

_PATH_COLUMNS = ("path", "file", "filename", "file_name", "photo", "name", "key", "__key__")
"""What a column may be called that names the photos of a parquet file."""


@dataclass(frozen=True)
class Piece:
    """So many photos that lie together.

    Attributes:
        kind: what holds them: `photos` are files of their own, `tar` members of a file that can be
            read from anywhere, `stream` a whole one that cannot; `broken` says why a file that
            should hold photos does not.
        place: the file that holds them; empty for `photos`.
        count: how many; None where that is known at its end alone.
        names: paths or addresses of `photos`, members of `tar` and `zip`.
        spans: of `tar`: first byte and length of each member.
        groups: of `parquet`: the first row group and the one behind the last.
        first_row: of `parquet`.
        column: of `parquet`, of the images; with a dot where they are in a struct.
        path_column: of `parquet`, of the photos' names; empty where there is none.
        message: of `broken`.
    """

    kind: PieceKind
    place: str = ""
    count: int | None = None
    names: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    groups: tuple[int, int] = (0, 0)
    first_row: int = 0
    column: str = ""
    path_column: str = ""
    message: str = ""

    def to_json(self) -> str:
        """One line; what is as by default is left out."""
        default = asdict(Piece("photos"))
        values = {key: value for key, value in asdict(self).items() if value != default[key]}
        return json.dumps({"kind": self.kind, **values})

    @classmethod
    def from_json(cls, text: str) -> Piece:
        """Read back what `to_json` gave."""
        values: dict[str, Any] = json.loads(text)
        for key in ("names", "groups"):
            if key in values:
                values[key] = tuple(values[key])
        if "spans" in values:
            values["spans"] = tuple((first, size) for first, size in values["spans"])
        return cls(**values)


def pieces(found: Iterable[Entry], base: str, column: str | None, size: int) -> Iterator[Piece]:
    """Cut an archive into pieces, in its order.

    Args:
        found: what it holds.
        base: the folder from which relative paths are meant.
        column: of the images in parquet files; None: the one that holds images.
        size: photos of a piece; more where they cannot be read apart.
    """
    names: list[str] = []
    for entry in found:
        if entry.kind == "photo":
            names.append(entry.place)
            if len(names) == size:
                yield Piece("photos", count=size, names=tuple(names))
                names = []
            continue
        if names:
            yield Piece("photos", count=len(names), names=tuple(names))
            names = []
        yield from _held(entry, base, column, size)
    if names:
        yield Piece("photos", count=len(names), names=tuple(names))


def _held(entry: Entry, base: str, column: str | None, size: int) -> Iterator[Piece]:
    """The pieces of a file that holds photos; a broken one says why its photos are missing."""
    place = entry.place
    try:
        if entry.kind == "parquet":
            yield from _of_parquet(place, base, column, size)
        elif entry.kind == "zip":
            yield from _of_zip(place, base, size)
        elif is_address(place) or not place.lower().endswith(".tar"):
            # Its headers lie between the photos: from afar, or compressed, all would be read twice.
            yield Piece("stream", place)
        else:
            with open_binary(place, base) as file:
                yield from _of_tar(place, file, size)
    except UsageError:
        raise
    except Exception as error:  # broken archives raise nearly anything
        reason = " ".join(str(error).split())
        yield Piece(
            "broken", place, 1, message=f"{place}: cannot be read as {entry.kind} ({reason})"
        )


def _of_parquet(place: str, base: str, column: str | None, size: int) -> Iterator[Piece]:
    with open_binary(place, base) as file, pq.ParquetFile(file) as table:
        images, paths = _columns(table.schema_arrow, column)
        first = row = start = 0
        groups = table.metadata.num_row_groups
        for group in range(groups):
            row += table.metadata.row_group(group).num_rows
            if row - first >= size or group == groups - 1:
                yield Piece(
                    "parquet",
                    place,
                    row - first,
                    groups=(start, group + 1),
                    first_row=first,
                    column=images,
                    path_column=paths,
                )
                first, start = row, group + 1


def _columns(schema: pa.Schema, column: str | None) -> tuple[str, str]:
    """Columns of the images and of their names, with a dot where they are in a struct."""
    images = {field.name: place for field in schema if (place := _images_in(field))}
    wanted = column if column is not None else "image" if "image" in images else None
    if wanted is None and len(images) == 1:
        wanted = next(iter(images))
    if wanted is None or wanted not in images:
        there = ", ".join(images) or f"none, only {', '.join(schema.names)}"
        raise ValueError(
            f"which column holds the images? Of bytes, or of a struct with bytes, there are: "
            f"{there}; say which by --column"
        )
    field = schema.field(wanted)
    if pa.types.is_struct(field.type):
        kinds = {child.name: child.type for child in field.type}
        named = "path" in kinds and pa.types.is_string(kinds["path"])
        return images[wanted], f"{wanted}.path" if named else ""
    texts = [
        f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    return wanted, next((name for name in _PATH_COLUMNS if name in texts), "")


def _images_in(field: pa.Field) -> str:
    """The column that holds the bytes of photos, if this one does; else nothing."""
    if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type):
        children = {child.name: child for child in field.type}
        if "bytes" in children and _images_in(children["bytes"]):
            return f"{field.name}.bytes"
    return ""


def _of_zip(place: str, base: str, size: int) -> Iterator[Piece]:
    with open_binary(place, base) as file, zipfile.ZipFile(file) as archive:
        photos = (entry for entry in archive.infolist() if not entry.is_dir())
        names = [entry.filename for entry in photos if is_photo_name(entry.filename)]
    for start in range(0, len(names), size):
        part = tuple(names[start : start + size])
        yield Piece("zip", place, len(part), names=part)


def _of_tar(place: str, file: IO[bytes], size: int) -> Iterator[Piece]:
    names: list[str] = []
    spans: list[tuple[int, int]] = []
    damage: tarfile.TarError | None = None
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while True:
            try:
                member = archive.next()
            except tarfile.TarError as error:  # what was found before it is good
                damage, member = error, None
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
            if member is not None and member.isreg() and is_photo_name(member.name):
                names.append(member.name)
                spans.append((member.offset_data, member.size))
            if names and (member is None or len(names) == size):
                yield Piece("tar", place, len(names), names=tuple(names), spans=tuple(spans))
                names, spans = [], []
            if member is None:
                break
    if damage is not None:
        raise damage

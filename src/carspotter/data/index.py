"""What a data set holds: pictures with their label, split, box, and where they lie."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from carspotter.errors import DataError, PhotoError
from carspotter.photo import read_photo
from carspotter.preprocess import Box, crop_to_box

if TYPE_CHECKING:
    from carspotter.photo import Pixels


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """A picture's place in a parquet file: the row counts from the file's start, from 0."""

    file: Path
    row: int


PictureSource: TypeAlias = Path | ParquetCell


@dataclass(frozen=True, slots=True)
class Picture:
    """One labelled picture.

    Attributes:
        key: split and file name ("train/00001.jpg"), with the class folder between them where file
            names repeat. Unique in its data set, wherever that lies, and equal in every layout
            that keeps the file names. The split is part of it: train and test share file names.
        split: "train", "val" or "test".
        label: class name.
        box: where the car is, in pixels of the upright picture; None where the data has no boxes.
        source: where the picture lies; not part of its identity.
    """

    key: str
    split: str
    label: str
    source: PictureSource = field(compare=False)
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Crop:
    """Which part of a picture is taken: all of it, or its box plus a margin.

    Attributes:
        to_box: whether to cut the box out.
        margin: pixels of the picture added on each side of the box.
    """

    to_box: bool = False
    margin: int = 16


@dataclass(frozen=True)
class DataSet:
    """The index of a data set.

    Attributes:
        root: the folder that was opened.
        layout: which layout was found there ("huggingface", "torchvision", "archive",
            "class-folders" or "table").
        class_names: every class, in the data set's own order.
        pictures: all splits.
        notes: what lies there and was left out, and why, for people.
    """

    root: Path
    layout: str
    class_names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Picture, ...]:
        """The pictures of a split.

        Raises:
            DataError: the data set has no such split.
        """
        found = tuple(p for p in self.pictures if p.split == name)
        if not found:
            there = ", ".join(sorted({p.split for p in self.pictures}))
            raise DataError(f"{self.root} has no split {name!r}; it has: {there}")
        return found

    def need_every_class(self, labels: Iterable[str]) -> None:
        """Check the labels of the training pictures that could be read.

        Raises:
            DataError: a class is not among them.
        """
        missing = sorted(set(self.class_names).difference(labels))
        if missing:
            raise DataError(
                f"{self.root}: {len(missing)} of {len(self.class_names)} classes have no training "
                f"picture that can be read, {missing[0]!r} first"
            )


def fingerprint(pictures: Sequence[Picture]) -> str:
    """SHA-256 over sorted keys and labels: equal for the same data in whatever layout."""
    rows = sorted((p.key, p.label) for p in pictures)
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def checked_box(corners: tuple[int, int, int, int], *, where: str, first: int = 0) -> Box:
    """A box from what a file says.

    Args:
        corners: x1, y1, x2, y2 in pixels.
        where: what names the box in an error.
        first: what the file calls the first pixel. From 0, x2 and y2 lie just outside of the box;
            from 1, as in the devkit of Stanford Cars, they are its last pixels.

    Raises:
        DataError: the box is empty, or lies left of or above the picture.
    """
    box = (corners[0] - first, corners[1] - first, corners[2], corners[3])
    if box[0] >= box[2] or box[1] >= box[3] or box[2] <= 0 or box[3] <= 0:
        raise DataError(
            f"{where}: the box {corners} makes no sense; it must be x1,y1,x2,y2 in pixels, "
            "x1 left of x2 and y1 above y2"
        )
    return box


class PictureReader:
    """Reads the bytes of pictures, from any thread.

    The last parquet row groups are kept: reading in the order of the data set is fast.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # pyarrow's reader is not made for several threads at once
        self._file = functools.lru_cache(maxsize=16)(_open_parquet)
        self._group = functools.lru_cache(maxsize=2)(self._read_group)

    def read(self, picture: Picture) -> bytes:
        """The bytes of the picture's file.

        Raises:
            PhotoError: it is missing or cannot be read.
        """
        source = picture.source
        if isinstance(source, Path):
            try:
                return source.read_bytes()
            except FileNotFoundError:
                raise PhotoError("not_found", f"{source}: no such file") from None
            except OSError as error:
                raise PhotoError("unreadable", f"{source}: cannot be read ({error})") from error
        try:
            with self._lock:
                return self._read_cell(picture, source)
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise PhotoError(
                "unreadable", f"{picture.key}: cannot be read from {source.file} ({reason})"
            ) from error

    def _read_cell(self, picture: Picture, source: ParquetCell) -> bytes:
        parquet = self._file(source.file)
        first = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if source.row < first + rows:
                value = self._group(source.file, group)[source.row - first].as_py()
                if not value:
                    raise PhotoError("empty", f"{picture.key}: no picture in {source.file}")
                return bytes(value)
            first += rows
        raise PhotoError("not_found", f"{source.file}: no row {source.row}")

    def _read_group(self, file: Path, group: int) -> pa.ChunkedArray:
        table = self._file(file).read_row_group(group, columns=["image.bytes"])
        return table.flatten().column("image.bytes")


def _open_parquet(file: Path) -> pq.ParquetFile:
    return pq.ParquetFile(file, memory_map=True)


def read_pixels(picture: Picture, reader: PictureReader, crop: Crop) -> Pixels:
    """Decode a picture, cut to its box where that is asked for and known.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        PhotoError: the picture cannot be read or decoded.
        DataError: the box is asked for, and missing or outside of the picture.
    """
    pixels = read_photo(reader.read(picture), name=picture.key)
    if not crop.to_box:
        return pixels
    if picture.box is None:
        raise DataError(f"{picture.key} has no box; take the whole picture (crop = 'whole')")
    try:
        return crop_to_box(pixels, picture.box, crop.margin)
    except ValueError as error:
        raise DataError(
            f"{picture.key}: {error}; are these pictures crops already? (crop = 'whole')"
        ) from error

"""Scenes: street frames with a box around each vehicle, and pictures without a car.

Both lie in parquet files with `image{bytes,path}`. Frames have `boxes`, a list of `label`, `x1`,
`y1`, `x2`, `y2` in pixels, and may have `split`. Other pictures need no more; those whose
`may_show_a_car` is set are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from carspotter.data.index import ParquetCell, Picture
from carspotter.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

VEHICLES = frozenset({"car", "van", "bus", "truck"})
"""Labels of the boxes that are vehicles."""

IGNORED = "ignore"
"""Label of a region in which nobody has looked for vehicles."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a street.

    Attributes:
        picture: where it lies.
        vehicles: (N, 4) left, top, right, bottom of each vehicle, in pixels.
        ignored: (M, 4) regions that are not labelled.
    """

    picture: Picture
    vehicles: NDArray[np.float32]
    ignored: NDArray[np.float32]


def part_of(picture: Picture) -> str:
    """Which part a picture without a split belongs to: "train", "val" or "test" (7, 1 and 2 of 10).

    It follows from the key alone: what one training has kept out, every other keeps out too.
    """
    tenth = hashlib.blake2b(picture.key.encode(), digest_size=8).digest()[0] % 10
    return "train" if tenth < 7 else "val" if tenth < 8 else "test"


def read_frames(file: Path, split: str | None = None) -> tuple[Frame, ...]:
    """Index the frames of a parquet file; no picture is decoded.

    Args:
        file: the parquet file.
        split: which split to take; None: all frames.

    Raises:
        DataError: no such file, not one of frames, a box that is turned around, or no such split.
    """
    found = []
    for picture, row in _rows(file, "boxes", optional=("split",)):
        if split is not None and row.get("split") != split:
            continue
        boxes = [_checked(box, file, picture.key) for box in row["boxes"] or ()]
        found.append(
            Frame(
                picture,
                _array(corners for label, corners in boxes if label in VEHICLES),
                _array(corners for label, corners in boxes if label == IGNORED),
            )
        )
    if not found:
        raise DataError(f"{file}: has no frame" + (f" of split {split!r}" if split else ""))
    return tuple(found)


def read_backgrounds(file: Path) -> tuple[Picture, ...]:
    """Index the pictures without a car of a parquet file; no picture is decoded.

    Raises:
        DataError: no such file, not one of pictures, or none without a car.
    """
    rows = _rows(file, optional=("may_show_a_car",))
    found = tuple(picture for picture, row in rows if not row.get("may_show_a_car"))
    if not found:
        raise DataError(f"{file}: has no picture without a car")
    return found


def _rows(
    file: Path, *needed: str, optional: Sequence[str] = ()
) -> Iterator[tuple[Picture, Mapping[str, Any]]]:
    """Each row's picture and its other columns."""
    if not file.is_file():
        raise DataError(f"{file}: no such parquet file")
    try:
        parquet = pq.ParquetFile(file)
        there = [name for name in optional if name in parquet.schema_arrow.names]
        rows = parquet.read(columns=["image.path", *needed, *there]).to_pylist()
        names = [row["image"]["path"] for row in rows]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        columns = ", ".join(("image", *needed))
        raise DataError(f"{file}: not a parquet file with {columns} ({error})") from error
    if missing := [name for row in rows[:1] for name in needed if name not in row]:
        raise DataError(f"{file}: has no column {missing[0]!r}")
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        key = f"{number:06d}" if not name else Path(name).name
        yield Picture(f"{file.stem}/{key}", "", "", ParquetCell(file, number)), row


def _checked(
    box: Mapping[str, Any], file: Path, key: str
) -> tuple[str, tuple[float, float, float, float]]:
    try:
        left, top, right, bottom = (float(box[corner]) for corner in ("x1", "y1", "x2", "y2"))
        label = str(box["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}, {key}: a box needs label, x1, y1, x2 and y2 ({error})") from error
    if not (left < right and top < bottom):
        raise DataError(f"{file}, {key}: the box {left, top, right, bottom} is turned around")
    return label, (left, top, right, bottom)


def _array(boxes: Iterator[tuple[float, float, float, float]]) -> NDArray[np.float32]:
    return np.array(list(boxes), np.float32).reshape(-1, 4)

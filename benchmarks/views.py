"""Copies of a data set with other labels, or fewer pictures, for benchmarks that train on them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from carspotter.data import Picture, PictureReader, open_data_set
from carspotter.errors import UsageError
from carspotter.files import replacing, write_text


def write_view(pictures: Iterable[tuple[Picture, str]], folder: Path) -> None:
    """Write pictures, each with a label, as files with a table, which comes last.

    The files are numbered in the order of the pictures: `file_name` says how. A folder that has its
    table already stays as it is.
    """
    table = folder / "labels.csv"
    if table.is_file():
        return
    reader = PictureReader()
    every = list(pictures)
    boxed = any(picture.box for picture, _ in every)
    with (
        replacing(table) as part,
        part.open("w", newline="", encoding="utf-8") as lines,
    ):
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["file", "label", "split", *(("x1", "y1", "x2", "y2") if boxed else ())])
        for number, (picture, label) in enumerate(every):
            name = file_name(number, picture)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(reader.read(picture))
            box = (picture.box or ("",) * 4) if boxed else ()
            writer.writerow([name, label, picture.split, *box])
    open_data_set(folder)  # whatever is wrong with it is said now


def file_name(number: int, picture: Picture) -> str:
    """The place of a picture in a view. Folders called like splits would be another layout."""
    return f"pictures/{number:06}{Path(picture.key).suffix or '.jpg'}"


def claim(file: Path, about: Mapping[str, object]) -> None:
    """Make a work folder one for these settings and data, or check that it is.

    Raises:
        UsageError: it is of others.
    """
    if not file.is_file():
        write_text(file, json.dumps(about, indent=1) + "\n")
    elif json.loads(file.read_text(encoding="utf-8")) != about:
        raise UsageError(f"{file.parent} is of other settings or other data; take another --work")

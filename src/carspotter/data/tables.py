"""A folder of pictures with a table (.csv, .tsv) of their labels."""

from __future__ import annotations

import contextlib
import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TextIO

from carspotter.data.classes import check_spelling, class_order, official_names, split_called
from carspotter.data.index import DataSet, Picture, checked_box
from carspotter.errors import DataError
from carspotter.preprocess import Box

_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "file": (
            *("file", "filename", "fname", "filepath", "path"),
            *("image", "imagename", "imagepath", "photo", "picture"),
        ),
        "label": ("label", "class", "classname", "name", "car"),
        "make": ("make",),
        "model": ("model",),
        "body": ("body", "bodystyle"),
        "year": ("year",),
        "split": ("split", "subset"),
        "x1": ("x1",),
        "y1": ("y1",),
        "x2": ("x2",),
        "y2": ("y2",),
    }
)
"""What a column may be called, without case, blanks, `_` and `-`."""

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class _Table:
    """A table of pictures.

    Attributes:
        file: where it lies.
        delimiter: what stands between its cells.
        header: its columns.
        columns: the columns that are understood, by what they mean.
    """

    file: Path
    delimiter: str
    header: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Row:
    """What a row says of a picture.

    Attributes:
        where: names the row in errors.
        split: "train", "val" or "test".
        name: the picture's file, from the data set's folder or that of the split.
        path: the same; None where there is no such file.
        label: as the row has it.
        box: None where the row has none.
    """

    where: str
    split: str
    name: str
    path: Path | None
    label: str
    box: Box | None


def read_tables(root: Path) -> DataSet | None:
    """Index the pictures that tables in the folder name; None where no table names pictures.

    Raises:
        DataError: a table cannot be read, contradicts itself, or names files that are not there.
    """
    tables = [table for file in _files(root) if "file" in (table := _open(file)).columns]
    if not tables:
        return None
    if len(tables) > 1 and not all(split_called(table.file.stem) for table in tables):
        names = ", ".join(table.file.name for table in tables)
        raise DataError(
            f"{root}: which table has the labels is not clear ({names}); keep one, or call them "
            "train.csv, val.csv and test.csv"
        )
    folders = _split_folders(root)
    rows = [row for table in tables for row in _rows(root, folders, table)]
    paths = _check_files(rows)
    official = official_names({row.label for row in rows})
    labels = set(official.values())
    check_spelling(labels, tables[0].file)
    pictures = tuple(
        Picture(f"{row.split}/{row.name}", row.split, official[row.label], path, row.box)
        for row, path in zip(rows, paths, strict=True)
    )
    return DataSet(root, "table", class_order(labels), pictures)


def why_no_table(root: Path) -> str:
    """What the tables of a folder lack, for the end of an error; empty where there is no table."""
    for file in _files(root):
        header = ", ".join(_open(file).header) or "none"
        return f"; {file.name} has no column for the file ({_called('file')}), only: {header}"
    return ""


def _files(root: Path) -> list[Path]:
    with os.scandir(root) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith((".csv", ".tsv"))
            and not entry.name.startswith(".")
            and entry.is_file()
        )
    return [root / name for name in names]


def _split_folders(root: Path) -> dict[str, Path]:
    """Folders that hold the pictures of one split."""
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir())
    return {split: root / name for name in folders if (split := split_called(name))}


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[TextIO]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            yield lines
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text; save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise DataError(f"{file}: not a table that can be read ({error})") from error


def _open(file: Path) -> _Table:
    """Read the header of a table."""
    with _reading(file) as lines:
        first = lines.readline()
        try:
            # The header alone: an apostrophe in a name below would be taken for a quote.
            delimiter = csv.Sniffer().sniff(first, delimiters=",;\t|").delimiter
        except csv.Error:  # one column
            delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
        header = tuple(next(csv.reader([first], delimiter=delimiter), ()))
    columns: dict[str, tuple[str, ...]] = {}
    for column in header:
        plain = re.sub(r"[\s_\-]", "", column.casefold())
        for meaning, names in _NAMES.items():
            if plain in names:
                columns[meaning] = (*columns.get(meaning, ()), column)
    return _Table(file, delimiter, header, columns)


def _called(meaning: str) -> str:
    return ", ".join(_NAMES[meaning])


def _check_columns(table: _Table) -> None:
    for meaning, columns in table.columns.items():
        if len(columns) > 1:
            raise DataError(
                f"{table.file}: the columns {' and '.join(map(repr, columns))} may both be the "
                f"{meaning}; rename one"
            )
    if "label" not in table.columns and not {"make", "model"} <= table.columns.keys():
        raise DataError(
            f"{table.file}: no column for the label ({_called('label')}, or make and model), only: "
            f"{', '.join(table.header)}"
        )
    lacking = [corner for corner in _CORNERS if corner not in table.columns]
    if 0 < len(lacking) < len(_CORNERS):
        raise DataError(f"{table.file}: a box needs x1, y1, x2, y2; without {', '.join(lacking)}")


def _rows(root: Path, folders: Mapping[str, Path], table: _Table) -> Iterator[_Row]:
    """The rows of a table, those without any content left out."""
    _check_columns(table)
    of_file = split_called(table.file.stem) or "train"
    with _reading(table.file) as lines:
        reader = csv.DictReader(lines, delimiter=table.delimiter, restval="")
        for cells in reader:
            where = f"{table.file}, line {reader.line_num}"
            if None in cells:
                raise DataError(
                    f"{where}: more cells than columns; put quotes around what holds a "
                    f"{table.delimiter!r}"
                )
            said = {meaning: cells[column].strip() for meaning, (column,) in table.columns.items()}
            if not any(said.values()):
                continue
            split = split_called(said.get("split", of_file))
            if split is None:
                raise DataError(f"{where}: the split is {said['split']!r}, not train, val or test")
            name = _name(said["file"], where)
            places = (place / name for place in (root, folders.get(split, root)))
            path = next((path for path in places if os.path.isfile(path)), None)
            yield _Row(where, split, name, path, _label(said, where), _box(said, where))


def _name(cell: str, where: str) -> str:
    """The file of a row, relative to the data set."""
    name = PurePosixPath(cell.replace("\\", "/"))
    if not name.name:
        raise DataError(f"{where}: no file")
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise DataError(
            f"{where}: {cell} must lie in the folder of the table, and be named from there"
        )
    return str(name)


def _label(said: Mapping[str, str], where: str) -> str:
    if "label" in said:
        label = said["label"]
    elif said["make"] and said["model"]:
        year = said.get("year", "").removesuffix(".0")  # as pandas writes it beside empty cells
        label = " ".join(filter(None, (said["make"], said["model"], said.get("body"), year)))
    else:
        label = ""
    if not label:
        raise DataError(f"{where}: {said['file']} has no label")
    return label


def _box(said: Mapping[str, str], where: str) -> Box | None:
    cells = [said.get(corner, "") for corner in _CORNERS]
    if not any(cells):
        return None
    try:
        # A table that a spreadsheet or pandas wrote has 12.0 for 12.
        left, top, right, bottom = (round(float(cell)) for cell in cells)
    except (ValueError, OverflowError):
        raise DataError(
            f"{where}: the box {','.join(cells)} is not x1,y1,x2,y2 in pixels; leave all four "
            "empty where there is none"
        ) from None
    return checked_box((left, top, right, bottom), where=where)


def _check_files(rows: Sequence[_Row]) -> list[Path]:
    """The file of each row, once all are known to be there and named once."""
    missing = [row for row in rows if row.path is None]
    if missing:
        more = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0].where}: {missing[0].name} is not there{more}; name files from the "
            "folder of the table, with their ending"
        )
    paths = [row.path for row in rows if row.path is not None]
    seen: dict[Path, _Row] = {}
    for row, path in zip(rows, paths, strict=True):
        other = seen.setdefault(path, row)
        if other is not row:
            raise DataError(
                f"{row.where}: {row.name} is there twice, in {other.where} first; a picture has "
                "one car and one split"
            )
    return paths

"""Pictures that are left out of training: a CSV file with the header `picture,reason`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from carspotter.data.index import DataSet
from carspotter.errors import DataError
from carspotter.files import replacing

HEADER = ("picture", "reason")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A picture that is to be left out.

    Attributes:
        picture: its key.
        reason: for people.
    """

    picture: str
    reason: str


def write_exclusions(file: Path, exclusions: Iterable[Exclusion]) -> None:
    """Write a file of exclusions, whole or not at all."""
    with replacing(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((one.picture, one.reason) for one in exclusions)


def read_exclusions(file: Path, data: DataSet) -> frozenset[str]:
    """The keys that a file of exclusions names; what else its rows say is for people.

    Raises:
        DataError: it cannot be read, has no column `picture`, or names a picture that the data
            set does not have.
    """
    known = {picture.key for picture in data.pictures}
    found = set()
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for line, key in _keys(file, lines):
                if key not in known:
                    raise DataError(
                        f"{file}, line {line}: {data.root} has no picture {key!r}; the list is of "
                        "other data (make one by `carspotter data check --fix`)"
                    )
                found.add(key)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: a list of exclusions that cannot be read ({error})") from error
    return frozenset(found)


def is_exclusions(file: Path) -> bool:
    """Whether a file is a list of exclusions, by its first line."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return tuple(next(csv.reader(lines), ())) == HEADER
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def _keys(file: Path, lines: TextIO) -> Iterator[tuple[int, str]]:
    """Each row's line and key; empty lines do not count."""
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    if HEADER[0] not in header:
        raise DataError(
            f"{file}, line 1: a list of exclusions begins with the line `{','.join(HEADER)}`"
        )
    column = header.index(HEADER[0])
    for row in reader:
        if not row:
            continue
        key = row[column].strip() if column < len(row) else ""
        if not key:
            raise DataError(f"{file}, line {reader.line_num}: no picture in this row")
        yield reader.line_num, key

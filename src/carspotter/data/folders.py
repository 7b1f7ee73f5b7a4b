"""Class folders: the folder in which a picture lies names its class.

`train/CLASS/*.jpg` with `test/` or `val/`, or `CLASS/*.jpg` alone. The boxes that Kaggle's copy of
Stanford Cars has beside the folders are read too.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carspotter.data.classes import (
    check_spelling,
    class_order,
    official_names,
    plain,
    split_called,
)
from carspotter.data.index import DataSet, Picture, checked_box
from carspotter.errors import DataError
from carspotter.photo import PHOTO_ENDINGS
from carspotter.preprocess import Box

_NO_CLASSES = frozenset({"__MACOSX", "@eaDir", "lost+found"})
"""Folders that archives, network drives and file systems add."""

_KAGGLE = "car_data"


@dataclass(frozen=True, slots=True)
class _Found:
    """A picture in a class folder."""

    split: str
    folder: Path
    name: str


def read_split_folders(root: Path) -> DataSet | None:
    """Index `train/CLASS/*.jpg` and the like; None where no class folder lies below a split's.

    Raises:
        DataError: a class has no pictures, or the classes are not clear.
    """
    for base in (root, root / _KAGGLE, root / _KAGGLE / _KAGGLE):
        splits = _split_folders(base)
        if any(_listing(folder)[0] for folder in splits.values()):
            return _read(root, base, splits)
    return None


def read_class_folders(root: Path) -> DataSet | None:
    """Index `CLASS/*.jpg`, all of it as training pictures; None where no folder holds pictures.

    Raises:
        DataError: a class has no pictures, or the classes are not clear.
    """
    folders, _ = _listing(root)
    if _split_folders(root) or not any(_listing(root / name)[1] for name in folders):
        return None
    return _read(root, root, {"train": root})


def _split_folders(base: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in _listing(base)[0] if base.is_dir() else ():
        if split := split_called(name):
            if split in found:
                raise DataError(f"{base}: {found[split].name} and {name} are one split; keep one")
            found[split] = base / name
    return found


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of the pictures in a folder, sorted.

    Hidden ones and files of other kinds do not count. A link that leads nowhere does: reading it
    tells what is wrong.
    """
    folders: list[str] = []
    pictures: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _NO_CLASSES:
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif Path(entry.name).suffix.lower() in PHOTO_ENDINGS:
                pictures.append(entry.name)
    return sorted(folders), sorted(pictures)


def _read(root: Path, base: Path, splits: Mapping[str, Path]) -> DataSet:
    found: list[_Found] = []
    empty: list[Path] = []
    notes: list[str] = []
    for split, folder in splits.items():
        classes, loose = _listing(folder)
        if loose:
            notes.append(
                f"{folder}: {len(loose)} pictures left out, {loose[0]} first: they lie beside the "
                "class folders, not in one"
            )
        for name in classes:
            pictures = _pictures_of_class(folder / name)
            found += [_Found(split, folder / name, picture) for picture in pictures]
            if not pictures:
                empty.append(folder / name)
    official = official_names({f.folder.name for f in found} | {path.name for path in empty})
    labels = {official[f.folder.name] for f in found}
    for path in empty:
        if official[path.name] not in labels:
            raise DataError(
                f"{path}: a class folder without pictures ({', '.join(sorted(PHOTO_ENDINGS))}); "
                "put some in, or remove the folder"
            )
    check_spelling(labels, root)
    boxes = _kaggle_boxes(base, found, official)
    # By their names alone, Stanford's pictures have the keys that they have in other layouts.
    repeated = max(Counter((f.split, f.name) for f in found).values(), default=1) > 1
    rows = tuple(
        Picture(
            f"{f.split}/{f.folder.name}/{f.name}" if repeated else f"{f.split}/{f.name}",
            f.split,
            official[f.folder.name],
            f.folder / f.name,
            boxes.get((f.split, f.name)),
        )
        for f in found
    )
    return DataSet(root, "class-folders", class_order(labels), rows, tuple(notes))


def _pictures_of_class(folder: Path) -> list[str]:
    inner, pictures = _listing(folder)
    for name in inner:
        if any(_listing(Path(place))[1] for place, _, _ in os.walk(folder / name)):
            raise DataError(
                f"{folder / name}: pictures in a folder below a class folder; put them into "
                f"{folder.name}, or make a class of them beside it"
            )
    return pictures


# --- the boxes of Kaggle's copy: anno_train.csv, anno_test.csv, names.csv -----------------------


def _kaggle_boxes(
    base: Path, found: Sequence[_Found], official: Mapping[str, str]
) -> dict[tuple[str, str], Box]:
    """Boxes by split and file name, from the tables above `car_data/car_data/`.

    Raises:
        DataError: a table is damaged, or contradicts the folders.
    """
    boxes: dict[tuple[str, str], Box] = {}
    names = _beside(base, "names.csv")
    class_names = [] if names is None else [row[0].strip() for _, row in _rows(names, 1)]
    for split in ("train", "test"):
        file = _beside(base, f"anno_{split}.csv")
        if file is None:
            continue
        folders: dict[str, str] = {}
        for f in found:
            if f.split == split and folders.setdefault(f.name, f.folder.name) != f.folder.name:
                raise DataError(
                    f"{file}: which {f.name} it means is not clear, since {f.folder.name} and "
                    f"{folders[f.name]} have one each; rename one, or remove the table"
                )
        for line, row in _rows(file, 6):
            where = f"{file}, line {line}"
            try:
                left, top, right, bottom, number = (int(cell) for cell in row[1:])
            except ValueError:
                raise DataError(
                    f"{where}: must be file,x1,y1,x2,y2,class in whole numbers"
                ) from None
            name = row[0].strip()
            if name not in folders:
                continue
            boxes[split, name] = checked_box((left, top, right, bottom), where=where, first=1)
            if class_names:
                _check_class(where, name, number, class_names, official[folders[name]])
    return boxes


def _check_class(
    where: str, name: str, number: int, class_names: Sequence[str], label: str
) -> None:
    said = class_names[number - 1] if 1 <= number <= len(class_names) else f"no. {number}"
    if plain(said) != plain(label):
        raise DataError(f"{where}: {name} is a {said!r}, but lies in the folder of {label!r}")


def _beside(base: Path, name: str) -> Path | None:
    """A file in the folder of the splits, or above as many `car_data` as it lies in."""
    places = [base]
    while places[-1].absolute().name == _KAGGLE and len(places) < 3:
        places.append(places[-1].absolute().parent)
    return next((place / name for place in places if (place / name).is_file()), None)


def _rows(file: Path, cells: int) -> list[tuple[int, list[str]]]:
    """The rows of a table without a header, with the number of their line."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            rows = [(reader.line_num, row) for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a table that can be read ({error})") from error
    for line, row in rows:
        if len(row) != cells:
            raise DataError(f"{file}, line {line}: {len(row)} cells instead of {cells}")
    return rows

"""Hugging Face parquet: `data/train-00000-of-00003.parquet` and so on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from carspotter.data.classes import official_names, split_called
from carspotter.data.index import DataSet, ParquetCell, Picture
from carspotter.errors import DataError


def read_parquet(root: Path) -> DataSet | None:
    """Index Hugging Face parquet files below `data/` or in the folder itself; None without any.

    Raises:
        DataError: a file is damaged, or holds something else than labelled pictures.
    """
    class_names: tuple[str, ...] = ()
    pictures: list[Picture] = []
    files = _parquet_files(root)
    for split, parts in files.items():
        for file in parts:
            names = _class_names(file)
            if class_names and names != class_names:
                raise DataError(f"{file}: its class names differ from those of the other files")
            class_names = names
            pictures += _parquet_pictures(file, split, names)
    return DataSet(root, "huggingface", class_names, tuple(pictures)) if files else None


def _parquet_files(root: Path) -> dict[str, list[Path]]:
    """Parquet files by split, in order."""
    found: dict[str, list[Path]] = {}
    for folder in (root / "data", root):
        for file in sorted(folder.glob("*.parquet")):
            prefix = re.split(r"[-.]", file.name, maxsplit=1)[0]
            if split := split_called(prefix):
                found.setdefault(split, []).append(file)
        if found:
            return found
    return found


def _class_names(file: Path) -> tuple[str, ...]:
    """The class names that the `datasets` library keeps in a parquet file's schema."""
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise DataError(f"{file}: not a parquet file that can be read ({error})") from error
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = [str(name) for name in features["label"]["names"]]
    except (KeyError, ValueError, TypeError):
        raise DataError(
            f"{file}: no class names in its schema (the 'huggingface' metadata of 'label')"
        ) from None
    official = official_names(names)
    return tuple(official[name] for name in names)


def _parquet_pictures(file: Path, split: str, names: tuple[str, ...]) -> Iterator[Picture]:
    try:
        table = pq.ParquetFile(file).read(columns=["image.path", "label"]).flatten()
        paths, labels = table["image.path"].to_pylist(), table["label"].to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file}: not a parquet file of image and label ({error})") from error
    for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
        if label is None or not 0 <= label < len(names):
            raise DataError(f"{file}, row {row}: label {label} is not among {len(names)} classes")
        cell = ParquetCell(file, row)
        name = Path(path).name if path else _name_of(cell)
        yield Picture(f"{split}/{name}", split, names[label], cell)


def is_nameless(picture: Picture) -> bool:
    """Whether a picture is called by its row, since its parquet file keeps no file names."""
    cell = picture.source
    return isinstance(cell, ParquetCell) and picture.key == f"{picture.split}/{_name_of(cell)}"


def _name_of(cell: ParquetCell) -> str:
    return f"{cell.file.stem}-{cell.row:06d}"

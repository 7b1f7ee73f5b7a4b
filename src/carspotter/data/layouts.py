"""A data set is told by what lies there: the first layout that fits is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from carspotter.data.folders import read_class_folders, read_split_folders
from carspotter.data.index import DataSet
from carspotter.data.parquet import read_parquet
from carspotter.data.stanford import read_archive, read_devkit
from carspotter.data.tables import read_tables, why_no_table
from carspotter.errors import DataError


def open_data_set(root: Path) -> DataSet:
    """Index a data set, whichever of the known layouts it has; no picture is decoded.

    Pictures are joined to labels by split and file name, never by position.

    Raises:
        DataError: the folder is missing, has no known layout, or contradicts itself.
    """
    if root.is_file():
        raise DataError(f"{root}: a file; unpack it and give the folder")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    try:
        for read in _READERS:
            data = read(root)
            if data is not None:
                return _checked(data)
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error})") from error
    raise DataError(
        f"{root}: no known layout of a data set; looked for data/train-*.parquet (Hugging Face), "
        "cars_train/ with devkit/*.mat (torchvision, Kaggle), car_ims/ with cars_annos.mat (the "
        "original archive), train/CLASS/*.jpg or CLASS/*.jpg (class folders), and a .csv or .tsv "
        f"with a file and a label in each row{why_no_table(root)}"
    )


def _checked(data: DataSet) -> DataSet:
    if not data.pictures:
        raise DataError(f"{data.root}: the data set holds no picture")
    if len(data.class_names) < 2:
        why = why_no_table(data.root) if data.layout == "class-folders" else ""
        raise DataError(
            f"{data.root}: a data set needs two classes, this has {data.class_names}{why}"
        )
    seen: set[str] = set()
    for picture in data.pictures:
        if picture.key in seen:
            raise DataError(f"{data.root}: {picture.key} is there twice")
        seen.add(picture.key)
    return data


# Class folders below train/ cannot be mistaken, and go before a table beside them. Folders in a
# data set's root may be anything, and a table that names pictures goes before them.
_READERS: tuple[Callable[[Path], DataSet | None], ...] = (
    read_parquet,
    read_devkit,
    read_archive,
    read_split_folders,
    read_tables,
    read_class_folders,
)

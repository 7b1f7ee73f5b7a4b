"""Readers for the layouts in which car data sets come, told apart by what lies there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from carspotter.data.index import DataSet, ParquetCell, Picture
from carspotter.errors import DataError

_SPLIT_NAMES = {"train": "train", "test": "test", "validation": "val", "valid": "val", "val": "val"}

_MAT_FILES = {
    "train": ("devkit/cars_train_annos.mat",),
    # torchvision and Kaggle keep the test labels at the root, others beside the rest of the devkit.
    "test": ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat"),
}


def open_data_set(root: Path) -> DataSet:
    """Index a data set, whichever of the known layouts it has.

    Pictures are joined to labels by split and file name, never by position.

    Raises:
        DataError: the folder is missing, has no known layout, or contradicts itself.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    for fits, read in _LAYOUTS:
        if fits(root):
            return _checked(read(root))
    raise DataError(
        f"{root}: no known layout of a data set; looked for data/train-*.parquet (Hugging Face) "
        "and devkit/cars_meta.mat with cars_train/ (torchvision, Kaggle)"
    )


def _checked(data: DataSet) -> DataSet:
    if not data.pictures:
        raise DataError(f"{data.root}: the data set holds no picture")
    if len(data.class_names) < 2:
        raise DataError(f"{data.root}: a data set needs two classes, this has {data.class_names}")
    seen: set[str] = set()
    for picture in data.pictures:
        if picture.key in seen:
            raise DataError(f"{data.root}: {picture.key} is there twice")
        seen.add(picture.key)
    return data


# --- Hugging Face: data/train-00000-of-00003.parquet, … ---------------------------------------


def _parquet_files(root: Path) -> dict[str, list[Path]]:
    """Parquet files by split, in order, below `data/` or in the folder itself."""
    found: dict[str, list[Path]] = {}
    for folder in (root / "data", root):
        for file in sorted(folder.glob("*.parquet")):
            prefix = re.split(r"[-.]", file.name, maxsplit=1)[0]
            if prefix in _SPLIT_NAMES:
                found.setdefault(_SPLIT_NAMES[prefix], []).append(file)
        if found:
            return found
    return found


def _read_huggingface(root: Path) -> DataSet:
    files = _parquet_files(root)
    class_names: tuple[str, ...] = ()
    pictures: list[Picture] = []
    for split, parts in files.items():
        for file in parts:
            names = _class_names(file)
            if class_names and names != class_names:
                raise DataError(f"{file}: its class names differ from those of the other files")
            class_names = names
            pictures += _parquet_pictures(file, split, names)
    return DataSet(root, "huggingface", class_names, tuple(pictures))


def _class_names(file: Path) -> tuple[str, ...]:
    """The class names that the `datasets` library keeps in a parquet file's schema."""
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise DataError(f"{file}: not a parquet file that can be read ({error})") from error
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(features["label"]["names"])
    except (KeyError, ValueError, TypeError):
        raise DataError(
            f"{file}: no class names in its schema (the 'huggingface' metadata of 'label')"
        ) from None


def _parquet_pictures(file: Path, split: str, names: tuple[str, ...]) -> Iterator[Picture]:
    try:
        table = pq.ParquetFile(file).read(columns=["image.path", "label"]).flatten()
        paths, labels = table["image.path"].to_pylist(), table["label"].to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file}: not a parquet file of image and label ({error})") from error
    for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
        if label is None or not 0 <= label < len(names):
            raise DataError(f"{file}, row {row}: label {label} is not among {len(names)} classes")
        name = Path(path).name if path else f"{file.stem}-{row:06d}"
        yield Picture(f"{split}/{name}", split, names[label], ParquetCell(file, row))


# --- torchvision, Kaggle: cars_train/, cars_test/, devkit/*.mat --------------------------------


def _torchvision_root(root: Path) -> Path | None:
    """Torchvision keeps all in a folder `stanford_cars` below the one that it is given."""
    for folder in (root, root / "stanford_cars"):
        if (folder / "devkit" / "cars_meta.mat").is_file() and any(
            (folder / name).is_dir() for name in ("cars_train", "cars_test")
        ):
            return folder
    return None


def _read_torchvision(root: Path) -> DataSet:
    base = _torchvision_root(root)
    assert base is not None
    meta = _load_mat(base / "devkit" / "cars_meta.mat", "class_names")
    class_names = tuple(str(name) for name in np.atleast_1d(meta))
    pictures: list[Picture] = []
    for split, candidates in _MAT_FILES.items():
        folder = base / f"cars_{split}"
        if not folder.is_dir():
            continue
        file = next((base / name for name in candidates if (base / name).is_file()), None)
        if file is None:
            raise DataError(f"{folder} is there, but its labels are not: {candidates[0]}")
        pictures += _mat_pictures(file, folder, split, class_names)
    return DataSet(root, "torchvision", class_names, tuple(pictures))


def _mat_pictures(
    file: Path, folder: Path, split: str, class_names: tuple[str, ...]
) -> Iterator[Picture]:
    rows = np.atleast_1d(_load_mat(file, "annotations"))
    lacking = {"fname", "class", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"} - set(
        rows.dtype.names or ()
    )
    if lacking:
        raise DataError(f"{file}: its annotations lack {', '.join(sorted(lacking))}")
    for row in rows:
        name, number = str(row["fname"]), int(row["class"])
        if not 1 <= number <= len(class_names):
            raise DataError(f"{file}: {name} has class {number} of 1 to {len(class_names)}")
        # The devkit counts pixels from 1 and takes the last one in.
        left, top, right, bottom = (int(row[f"bbox_{k}"]) for k in ("x1", "y1", "x2", "y2"))
        yield Picture(
            f"{split}/{name}",
            split,
            class_names[number - 1],
            folder / name,
            (left - 1, top - 1, right, bottom),
        )


def _load_mat(file: Path, variable: str) -> Any:
    from scipy.io import loadmat  # only this layout needs it, and it is slow to import

    try:
        return loadmat(file, squeeze_me=True)[variable]
    except KeyError:
        raise DataError(f"{file}: holds no {variable!r}") from None
    except Exception as error:  # scipy's reader raises many kinds on a damaged file
        raise DataError(f"{file}: not a MATLAB file that can be read ({error})") from error


_LAYOUTS: tuple[tuple[Callable[[Path], object], Callable[[Path], DataSet]], ...] = (
    (_parquet_files, _read_huggingface),
    (_torchvision_root, _read_torchvision),
)

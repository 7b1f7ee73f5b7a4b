"""Stanford Cars as it was published: pictures beside MATLAB files.

The devkit (`cars_train/`, `cars_test/`, `devkit/*.mat`) and the archive (`car_ims/`,
`cars_annos.mat`) hold the same photos under different names and in another order. No file maps one
to the other. What both know of a photo is its split, class and box.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from carspotter.data.index import DataSet, Picture, checked_box
from carspotter.errors import DataError
from carspotter.preprocess import Box

_CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")

# torchvision and Kaggle keep the test labels at the root, others beside the rest of the devkit; a
# copy on Kaggle has the name that a browser gives to a second download.
_LABELLED = {
    "train": ("cars_train_annos.mat",),
    "test": ("cars_test_annos_withlabels.mat", "cars_test_annos_withlabels (1).mat"),
}
_DEVKIT = ("", "devkit", "car_devkit/devkit")


# --- cars_train/, cars_test/ and the devkit ----------------------------------------------------


def read_devkit(root: Path) -> DataSet | None:
    """Index `cars_train/` and `cars_test/` by the devkit; None where neither folder is there.

    Raises:
        DataError: the labels are missing or damaged.
    """
    base = next((b for b in (root, root / "stanford_cars") if _folders(b)), None)
    if base is None:
        return None
    meta = _find(base, "cars_meta.mat")
    if meta is None:
        raise _without_labels(base, base, "cars_meta.mat")
    class_names = _class_names(meta)
    pictures: list[Picture] = []
    notes: list[str] = []
    for split, folder in _folders(base).items():
        file = _find(base, *_LABELLED[split])
        if file is None:
            labelled, unclear = _by_box(base, split, folder)
            pictures += labelled
            if unclear:
                notes.append(
                    f"{folder}: {len(unclear)} pictures left out, {unclear[0]} first: by their "
                    f"boxes they may be either of two cars; {_LABELLED[split][0]} would tell"
                )
        else:
            rows = _rows(file, "fname", "class")
            pictures += _pictures(file, rows, "fname", split, folder, class_names)
    return DataSet(root, "torchvision", class_names, tuple(pictures), tuple(notes))


def _folders(base: Path) -> dict[str, Path]:
    """Where the pictures of each split lie."""
    found = {split: _unnested(base / f"cars_{split}") for split in _LABELLED}
    return {split: folder for split, folder in found.items() if folder.is_dir()}


def _unnested(folder: Path) -> Path:
    """Kaggle unpacks `cars_train/cars_train/`."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def _find(base: Path, *names: str) -> Path | None:
    files = (base / folder / name for name in names for folder in _DEVKIT)
    return next((file for file in files if file.is_file()), None)


def _without_labels(base: Path, folder: Path, file: str) -> DataError:
    """What to say where pictures have no labels."""
    hint = "put the devkit there, or take `carspotter data download stanford-cars`"
    if _find(base, "cars_annos.mat") is not None:
        hint = f"cars_annos.mat cannot tell: it has other file names, in another order; {hint}"
    return DataError(f"{folder} has pictures, but not their labels, {file}; {hint}")


def _by_box(base: Path, split: str, folder: Path) -> tuple[list[Picture], list[str]]:
    """Labels from `cars_annos.mat`, where the devkit has only boxes, as its own test file has.

    A join by file name would succeed, and be wrong in silence: the archive counts otherwise.

    Returns:
        The pictures, and the names of those that share their box with one of another class:
        copies of one photo under contradictory labels.
    """
    archive, boxes = _find(base, "cars_annos.mat"), _find(base, f"cars_{split}_annos.mat")
    if archive is None or boxes is None:
        raise _without_labels(base, folder, _LABELLED[split][0])
    numbers: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for row in _rows(archive, "class", "test"):
        if bool(row["test"]) == (split == "test"):
            numbers[_corners(row)].add(int(row["class"]))
    rows: list[dict[str, Any]] = []
    unclear: list[str] = []
    for row in _rows(boxes, "fname"):
        found = numbers.get(_corners(row), set())
        if not found:
            raise DataError(f"{archive}: no {split} picture has the box of {row['fname']}")
        if len(found) > 1:
            unclear.append(str(row["fname"]))
        else:
            rows.append({name: row[name] for name in (*_CORNERS, "fname")} | {"class": min(found)})
    return list(_pictures(archive, rows, "fname", split, folder, _class_names(archive))), unclear


# --- car_ims/ and cars_annos.mat ---------------------------------------------------------------


def read_archive(root: Path) -> DataSet | None:
    """Index `car_ims/` by `cars_annos.mat`; None where `car_ims/` is not there.

    Raises:
        DataError: the labels are missing or damaged.
    """
    folder = _unnested(root / "car_ims")
    if not folder.is_dir():
        return None
    file = _find(root, "cars_annos.mat")
    if file is None:
        raise DataError(f"{folder} has pictures, but not their labels: put cars_annos.mat there")
    class_names = _class_names(file)
    rows = _rows(file, "relative_im_path", "class", "test")
    pictures = [
        picture
        for split in ("train", "test")
        for picture in _pictures(
            file,
            (row for row in rows if bool(row["test"]) == (split == "test")),
            "relative_im_path",
            split,
            folder,
            class_names,
        )
    ]
    return DataSet(root, "archive", class_names, tuple(pictures))


# --- crops of the pictures -----------------------------------------------------------------------


def original_boxes(root: Path, split: str) -> dict[str, Box]:
    """The devkit's boxes by picture key, in pixels of the photos as they were published.

    They tell what crops of the photos have lost: how wide a car was beside its height. Empty where
    there is no devkit.

    Raises:
        DataError: a file of the devkit is damaged.
    """
    file = _find(root, f"cars_{split}_annos.mat")
    if file is None:
        return {}
    return {
        f"{split}/{row['fname']}": checked_box(_corners(row), where=str(file), first=1)
        for row in _rows(file, "fname")
    }


# --- both --------------------------------------------------------------------------------------


def _pictures(
    file: Path,
    rows: Iterable[Any],
    name_field: str,
    split: str,
    folder: Path,
    class_names: Sequence[str],
) -> Iterator[Picture]:
    for row in rows:
        name, number = str(row[name_field]).rpartition("/")[2], int(row["class"])
        if not 1 <= number <= len(class_names):
            raise DataError(f"{file}: {name} has class {number} of 1 to {len(class_names)}")
        # The devkit counts pixels from 1 and takes the last one in.
        box = checked_box(_corners(row), where=f"{file}, {name}", first=1)
        yield Picture(f"{split}/{name}", split, class_names[number - 1], folder / name, box)


def _corners(row: Any) -> tuple[int, int, int, int]:
    left, top, right, bottom = (int(row[corner]) for corner in _CORNERS)
    return left, top, right, bottom


def _class_names(file: Path) -> tuple[str, ...]:
    return tuple(str(name) for name in np.atleast_1d(_load_mat(file, "class_names")))


def _rows(file: Path, *fields: str) -> Any:
    """The annotations of a file, which have these fields beside a box."""
    rows = np.atleast_1d(_load_mat(file, "annotations"))
    lacking = {*fields, *_CORNERS} - set(rows.dtype.names or ())
    if lacking:
        raise DataError(f"{file}: its annotations lack {', '.join(sorted(lacking))}")
    return rows


def _load_mat(file: Path, variable: str) -> Any:
    from scipy.io import loadmat  # only these layouts need it, and it is slow to import

    try:
        return loadmat(file, squeeze_me=True, variable_names=[variable])[variable]
    except KeyError:
        raise DataError(f"{file}: holds no {variable!r}") from None
    except Exception as error:  # scipy's reader raises many kinds on a damaged file
        raise DataError(f"{file}: not a MATLAB file that can be read ({error})") from error

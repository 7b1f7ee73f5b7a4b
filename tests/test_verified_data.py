"""What a data set that was fetched must hold, and which differences are seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CLASSES, draw_car, encoded, write_parquet
from test_download import NAME, source_of
from test_layouts import ROOT_TEST_MAT, TRAIN_MAT

from carspotter.data import open_data_set
from carspotter.data.download import SOURCES, verify
from carspotter.errors import DataError


def write_rows(root: Path, change: Callable[[int, int], int], *, names: bool = True) -> Path:
    """The drawn data's labels, changed, beside pictures that are all the same."""
    picture = encoded(draw_car(0))
    for split, count in (("train", 72), ("test", 24)):
        rows = [
            (f"{i:05d}.jpg" if names else None, picture, change(i, i % 3)) for i in range(count)
        ]
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", rows)
    return root


def test_the_same_labels_are_verified(drawn_data: Path, tmp_path: Path) -> None:
    verify(open_data_set(write_rows(tmp_path, lambda i, label: label)), source_of(drawn_data))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda i, label: label if i else 1, id="one more of a class"),
        pytest.param(lambda i, label: {0: 1, 1: 0}.get(i, label), id="two exchanged"),
    ],
)
def test_other_labels_are_refused(
    drawn_data: Path, tmp_path: Path, change: Callable[[int, int], int]
) -> None:
    data = open_data_set(write_rows(tmp_path, change))
    with pytest.raises(DataError, match="other labels than in stanford-cars"):
        verify(data, source_of(drawn_data))


def test_another_number_of_classes_is_refused(drawn_data: Path, tmp_path: Path) -> None:
    data = open_data_set(write_rows(tmp_path, lambda i, label: label % 2))
    with pytest.raises(DataError, match="2 classes instead of 3"):
        verify(data, source_of(drawn_data))


def test_without_file_names_the_sizes_of_the_classes_count(
    drawn_data: Path, tmp_path: Path
) -> None:
    source = source_of(drawn_data)
    same = open_data_set(write_rows(tmp_path / "a", lambda i, label: label, names=False))
    assert {p.label for p in same.pictures} == set(CLASSES)
    verify(same, source)
    other = write_rows(tmp_path / "b", lambda i, label: label if i else 1, names=False)
    with pytest.raises(DataError, match="other labels"):
        verify(open_data_set(other), source)


def test_real_data_set_is_verified(stanford: Path) -> None:
    verify(open_data_set(stanford), SOURCES[NAME])


def test_real_labels_of_kaggles_copy_are_verified(stanford: Path, tmp_path: Path) -> None:
    (tmp_path / "devkit").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"cars_{split}").mkdir()
    for file in ("devkit/cars_meta.mat", TRAIN_MAT, ROOT_TEST_MAT):
        (tmp_path / file).symlink_to(stanford / file)
    verify(open_data_set(tmp_path), SOURCES[NAME])

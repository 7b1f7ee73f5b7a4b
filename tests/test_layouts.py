"""Data-set layouts: what is found in them, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, draw_car, encoded, write_parquet
from PIL import Image
from scipy.io import loadmat, savemat

from carspotter.data import Crop, Picture, PictureReader, open_data_set, read_pixels
from carspotter.data.index import fingerprint
from carspotter.errors import DataError
from carspotter.names import stanford_names
from carspotter.photo import read_photo

TRAIN_MAT = "devkit/cars_train_annos.mat"
ROOT_TEST_MAT = "cars_test_annos_withlabels.mat"
DEVKIT_TEST_MAT = "devkit/cars_test_annos_withlabels.mat"

Row = tuple[str, int, tuple[int, int, int, int]]
"""File name, class from 1, and x1, y1, x2, y2 from 1, the last included: as the devkit has them."""


def write_meta(root: Path, classes: Sequence[str] = CLASSES) -> None:
    (root / "devkit").mkdir(parents=True, exist_ok=True)
    names = np.empty((1, len(classes)), object)
    names[0] = list(classes)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})


def write_annotations(file: Path, rows: Sequence[Row]) -> None:
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    table = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for place, (fname, number, box) in enumerate(rows):
        table[0, place] = (*box, number, fname)
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {"annotations": table})


def write_torchvision(root: Path, *, test_mat: str = ROOT_TEST_MAT) -> Path:
    """Six pictures to train on and three to test on, under the same file names."""
    write_meta(root)
    for split, count, mat in (("train", 6, TRAIN_MAT), ("test", 3, test_mat)):
        (root / f"cars_{split}").mkdir(parents=True)
        rows: list[Row] = []
        # Against the order of the names: only the name may join a picture to its label.
        for i in reversed(range(count)):
            name = f"{i:05d}.jpg"
            (root / f"cars_{split}" / name).write_bytes(encoded(draw_car(i, i % 3)))
            rows.append((name, (i + (split == "test")) % 3 + 1, (5, 6, 90, 70)))
        write_annotations(root / mat, rows)
    return root


def labels(pictures: Sequence[Picture]) -> dict[str, str]:
    return {picture.key: picture.label for picture in pictures}


def rows_of(count: int, label: int | None = None) -> list[tuple[str, bytes, int]]:
    data = encoded(draw_car(0))
    return [(f"{i:05d}.jpg", data, i % 3 if label is None else label) for i in range(count)]


# --- Hugging Face parquet ----------------------------------------------------------------------


def test_parquet_index(drawn_data: Path) -> None:
    data = open_data_set(drawn_data)
    assert data.layout == "huggingface"
    assert data.class_names == CLASSES
    expected = {f"train/{i:05d}.jpg": CLASSES[i % 3] for i in range(72)}
    expected |= {f"test/{i:05d}.jpg": CLASSES[i % 3] for i in range(24)}
    assert labels(data.pictures) == expected
    assert len(data.pictures) == 96
    assert all(p.key.partition("/")[0] == p.split for p in data.pictures)
    assert all(p.box is None for p in data.pictures)


def test_parquet_pictures_are_those_of_their_rows(drawn_data: Path) -> None:
    data, reader = open_data_set(drawn_data), PictureReader()
    # Backwards, and across files and row groups: nothing may depend on the order of reading.
    for number, picture in reversed(list(enumerate(data.split("train")))):
        assert reader.read(picture) == encoded(draw_car(number, number % 3)), picture.key


def test_parquet_beside_no_data_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", rows_of(3))
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", rows_of(3))
    data = open_data_set(tmp_path)
    assert {p.split for p in data.pictures} == {"train", "val"}


def test_unknown_split_names_those_that_are_there(drawn_data: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'val'.*test, train"):
        open_data_set(drawn_data).split("val")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_data_set(tmp_path / "nowhere")


def test_unknown_layout(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="no known layout"):
        open_data_set(tmp_path)


def test_schema_without_class_names(tmp_path: Path) -> None:
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_parquet(file, rows_of(3))
    pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: no class names"):
        open_data_set(tmp_path)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range(tmp_path: Path, label: int) -> None:
    rows = [*rows_of(3), ("00003.jpg", encoded(draw_car(0)), label)]
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    with pytest.raises(DataError, match=f"row 3: label {label} .* 3 classes"):
        open_data_set(tmp_path)


def test_files_with_different_class_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows_of(3))
    other = tuple(reversed(CLASSES))
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows_of(3), other)
    with pytest.raises(DataError, match="class names differ"):
        open_data_set(tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_parquet(file, rows_of(3, label=0), CLASSES[:1])
    with pytest.raises(DataError, match=r"needs two classes.*Red Roadster"):
        open_data_set(tmp_path)


def test_no_picture(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [])
    with pytest.raises(DataError, match="holds no picture"):
        open_data_set(tmp_path)


def test_the_same_picture_in_two_files(tmp_path: Path) -> None:
    for part in range(2):
        write_parquet(tmp_path / "data" / f"train-{part:05d}-of-00002.parquet", rows_of(3))
    with pytest.raises(DataError, match=r"train/00000\.jpg is there twice"):
        open_data_set(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no parquet file, but long enough to look for one"])
def test_damaged_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet"):
        open_data_set(tmp_path)


# --- torchvision, Kaggle -----------------------------------------------------------------------


@pytest.mark.parametrize("below", [".", "stanford_cars"])
@pytest.mark.parametrize("test_mat", [ROOT_TEST_MAT, DEVKIT_TEST_MAT])
def test_torchvision_index(tmp_path: Path, test_mat: str, below: str) -> None:
    base = write_torchvision(tmp_path / below, test_mat=test_mat)
    data = open_data_set(tmp_path)
    assert data.layout == "torchvision"
    assert data.class_names == CLASSES
    expected = {f"train/{i:05d}.jpg": CLASSES[i % 3] for i in range(6)}
    # Train and test share file names; the labels of the same name differ.
    expected |= {f"test/{i:05d}.jpg": CLASSES[(i + 1) % 3] for i in range(3)}
    assert labels(data.pictures) == expected
    for picture in data.pictures:
        split, name = picture.key.split("/")
        assert picture.source == base / f"cars_{split}" / name
        assert PictureReader().read(picture) == encoded(draw_car(int(name[:5]), int(name[:5]) % 3))


def test_root_labels_go_before_those_of_the_devkit(tmp_path: Path) -> None:
    write_torchvision(tmp_path)
    write_annotations(tmp_path / DEVKIT_TEST_MAT, [("00000.jpg", 1, (1, 1, 9, 9))])
    assert len(open_data_set(tmp_path).split("test")) == 3


def test_training_pictures_alone(tmp_path: Path) -> None:
    write_torchvision(tmp_path)
    for file in (tmp_path / "cars_test").iterdir():
        file.unlink()
    (tmp_path / "cars_test").rmdir()
    assert {p.split for p in open_data_set(tmp_path).pictures} == {"train"}


def test_test_pictures_without_labels(tmp_path: Path) -> None:
    write_torchvision(tmp_path)
    (tmp_path / ROOT_TEST_MAT).unlink()
    with pytest.raises(DataError, match=f"cars_test.*{ROOT_TEST_MAT}"):
        open_data_set(tmp_path)


@pytest.mark.parametrize("number", [0, 4])
def test_class_number_out_of_range(tmp_path: Path, number: int) -> None:
    write_torchvision(tmp_path)
    write_annotations(tmp_path / TRAIN_MAT, [("00004.jpg", number, (1, 1, 9, 9))])
    with pytest.raises(DataError, match=rf"00004\.jpg has class {number} of 1 to 3"):
        open_data_set(tmp_path)


@pytest.mark.parametrize("what", ["empty", "garbage", "cut short", "without labels"])
def test_damaged_mat_file(tmp_path: Path, what: str) -> None:
    file = write_torchvision(tmp_path) / TRAIN_MAT
    if what == "without labels":  # as the devkit's own cars_test_annos.mat
        nameless = np.empty((1, 1), dtype=[("bbox_x1", object), ("fname", object)])
        nameless[0, 0] = (1, "00001.jpg")
        savemat(file, {"annotations": nameless})
    else:
        whole = file.read_bytes()
        content = {"empty": b"", "garbage": b"\x93garbage" * 99, "cut short": whole[:-200]}
        file.write_bytes(content[what])
    with pytest.raises(DataError, match=r"cars_train_annos\.mat"):
        open_data_set(tmp_path)


def test_missing_picture_is_told_when_it_is_read(tmp_path: Path) -> None:
    write_torchvision(tmp_path)
    (tmp_path / "cars_train" / "00002.jpg").unlink()
    picture = next(p for p in open_data_set(tmp_path).pictures if p.key == "train/00002.jpg")
    with pytest.raises(Exception, match="no such file") as caught:
        PictureReader().read(picture)
    assert getattr(caught.value, "code", None) == "not_found"


# --- boxes -------------------------------------------------------------------------------------


def boxed(root: Path, box: tuple[int, int, int, int]) -> tuple[Picture, np.ndarray]:
    """A data set of two pictures of 60x40 random pixels, kept without loss; the first of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    write_meta(root)
    (root / "cars_train").mkdir()
    names = ("00001.jpg", "00002.jpg")
    for name in names:
        (root / "cars_train" / name).write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    write_annotations(root / TRAIN_MAT, [(name, 1, box) for name in names])
    return open_data_set(root).pictures[0], pixels


def test_boxes_count_from_zero_and_leave_the_end_out(tmp_path: Path) -> None:
    picture, pixels = boxed(tmp_path, (11, 6, 30, 25))
    assert picture.box == (10, 5, 30, 25)
    found = read_pixels(picture, PictureReader(), Crop(to_box=True, margin=0))
    assert np.array_equal(found, pixels[5:25, 10:30])


def test_crop_adds_the_margin_and_stays_inside(tmp_path: Path) -> None:
    picture, pixels = boxed(tmp_path, (11, 6, 30, 25))
    near = read_pixels(picture, PictureReader(), Crop(to_box=True, margin=3))
    assert np.array_equal(near, pixels[2:28, 7:33])
    default = read_pixels(picture, PictureReader(), Crop(to_box=True))  # 16, past the left and top
    assert np.array_equal(default, pixels[0:40, 0:46])


def test_whole_pictures_ignore_the_box(tmp_path: Path) -> None:
    picture, pixels = boxed(tmp_path, (11, 6, 30, 25))
    assert np.array_equal(read_pixels(picture, PictureReader(), Crop()), pixels)


def test_box_outside_of_the_picture(tmp_path: Path) -> None:
    picture, _ = boxed(tmp_path, (211, 106, 330, 225))
    with pytest.raises(DataError, match=r"train/00001\.jpg.*outside.*crop = 'whole'"):
        read_pixels(picture, PictureReader(), Crop(to_box=True))


def test_box_wanted_and_missing(drawn_data: Path) -> None:
    picture = open_data_set(drawn_data).split("train")[0]
    with pytest.raises(DataError, match=r"train/00000\.jpg has no box"):
        read_pixels(picture, PictureReader(), Crop(to_box=True))


# --- the real data set -------------------------------------------------------------------------


def test_real_index(stanford: Path) -> None:
    data = open_data_set(stanford)
    assert len(data.split("train")) == 8144
    assert len(data.split("test")) == 8041
    assert len({p.label for p in data.split("train")}) == 196


def test_real_class_order_is_that_of_the_devkit(stanford: Path) -> None:
    meta = loadmat(stanford / "devkit" / "cars_meta.mat", squeeze_me=True)
    official = tuple(str(name) for name in meta["class_names"])
    assert open_data_set(stanford).class_names == official
    assert tuple(stanford_names()) == official


def test_real_labels_agree_with_the_mat_files(stanford: Path) -> None:
    names = open_data_set(stanford).class_names
    official: dict[str, str] = {}
    for split, mat in (("train", TRAIN_MAT), ("test", ROOT_TEST_MAT)):
        for row in loadmat(stanford / mat, squeeze_me=True)["annotations"]:
            official[f"{split}/{row['fname']}"] = names[int(row["class"]) - 1]
    assert len(official) == 16_185
    assert labels(open_data_set(stanford).pictures) == official


def test_real_pictures_in_both_layouts(stanford: Path, tmp_path: Path) -> None:
    whole, reader = open_data_set(stanford), PictureReader()
    (tmp_path / "devkit").mkdir()
    meta = stanford / "devkit" / "cars_meta.mat"
    (tmp_path / "devkit" / "cars_meta.mat").write_bytes(meta.read_bytes())
    chosen: list[Picture] = []
    for split, mat in (("train", TRAIN_MAT), ("test", ROOT_TEST_MAT)):
        part = whole.split(split)[::40]
        chosen += part
        (tmp_path / f"cars_{split}").mkdir()
        for picture in part:
            name = picture.key.partition("/")[2]
            (tmp_path / f"cars_{split}" / name).write_bytes(reader.read(picture))
        names = {picture.key.partition("/")[2] for picture in part}
        table = loadmat(stanford / mat)["annotations"]
        kept = [i for i in range(table.shape[1]) if str(table[0, i]["fname"].item()) in names]
        savemat(tmp_path / mat, {"annotations": table[:, kept]})
    data = open_data_set(tmp_path)
    assert data.layout == "torchvision"
    assert data.class_names == whole.class_names
    index = {(p.key, p.split, p.label) for p in data.pictures}
    assert index == {(p.key, p.split, p.label) for p in chosen}
    assert len(data.pictures) == len(chosen) == 204 + 202
    assert fingerprint(data.pictures) == fingerprint(chosen)
    by_key = {p.key: p for p in data.pictures}
    for picture in chosen[::20]:
        found = read_pixels(by_key[picture.key], PictureReader(), Crop())
        assert np.array_equal(found, read_photo(io.BytesIO(reader.read(picture)))), picture.key

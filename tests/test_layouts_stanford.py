"""The layouts in which Stanford Cars goes round: the same pictures have the same labels in each."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, draw_car, encoded
from scipy.io import loadmat, savemat
from test_layouts import ROOT_TEST_MAT, TRAIN_MAT, write_annotations, write_meta

from carspotter.data import DataSet, PictureReader, open_data_set
from carspotter.data.index import fingerprint
from carspotter.errors import DataError
from carspotter.names import stanford_names

BARE_TEST_MAT = "devkit/cars_test_annos.mat"
SECOND_COPY = "cars_test_annos_withlabels (1).mat"

RAM = "Ram C/V Cargo Van Minivan 2012"
SPELLINGS = ("Ram C-V", "Ram C_V", "Ram CV")


@dataclass(frozen=True)
class Car:
    """A picture with all that the official files say of it.

    `corners` count from 1 and take the last pixel in; `number` is its class, from 1.
    """

    split: str
    name: str
    number: int
    label: str
    corners: tuple[int, int, int, int]
    content: bytes

    @property
    def row(self) -> tuple[str, int, tuple[int, int, int, int]]:
        return self.name, self.number, self.corners


@dataclass(frozen=True)
class Cars:
    classes: tuple[str, ...]
    cars: tuple[Car, ...]

    def split(self, name: str) -> list[Car]:
        return [car for car in self.cars if car.split == name]

    def archived(self) -> list[Car]:
        """In the order of the archive: by class, train and test mixed."""
        return sorted(self.cars, key=lambda car: (car.number, hashlib.md5(car.content).digest()))


@pytest.fixture(scope="module")
def drawn() -> Cars:
    """Drawn cars under Stanford's names, one of them the one that no folder can be called."""
    classes = (RAM, "AM General Hummer SUV 2000", "BMW M3 Coupe 2012")
    return Cars(classes, tuple(_drawn(classes)))


def _drawn(classes: Sequence[str]) -> list[Car]:
    found = []
    for split, count, start in (("train", 9, 0), ("test", 7, 100)):
        for i in reversed(range(count)):
            number = (2 * i + start) % 3
            corners = (5 + i, 6, 90, 70 - i)
            content = encoded(draw_car(start + i, number))
            name = f"{i + 1:05d}.jpg"
            found.append(Car(split, name, number + 1, classes[number], corners, content))
    return found


# --- writers -----------------------------------------------------------------------------------


def write_pictures(root: Path, cars: Cars, *, nested: bool) -> None:
    for car in cars.cars:
        folder = root / f"cars_{car.split}"
        file = (folder / folder.name if nested else folder) / car.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(car.content)


def write_devkit(root: Path, cars: Cars, *, test_mat: str = ROOT_TEST_MAT) -> None:
    write_meta(root, cars.classes)
    write_annotations(root / TRAIN_MAT, [car.row for car in cars.split("train")])
    write_annotations(root / test_mat, [car.row for car in cars.split("test")])


def write_bare_test_mat(root: Path, cars: Cars) -> None:
    """The devkit's own file of the test pictures: boxes, no labels."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "fname")
    test = cars.split("test")
    table = np.empty((1, len(test)), dtype=[(name, object) for name in fields])
    for place, car in enumerate(test):
        table[0, place] = (*car.corners, car.name)
    savemat(root / BARE_TEST_MAT, {"annotations": table})


def write_archive_mat(root: Path, cars: Cars) -> None:
    fields = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    archived = cars.archived()
    table = np.empty((1, len(archived)), dtype=[(name, object) for name in fields])
    for place, car in enumerate(archived):
        path = f"car_ims/{place + 1:06d}.jpg"
        table[0, place] = (path, *car.corners, car.number, int(car.split == "test"))
    names = np.empty((1, len(cars.classes)), object)
    names[0] = list(cars.classes)
    savemat(root / "cars_annos.mat", {"annotations": table, "class_names": names})


def write_archive(root: Path, cars: Cars) -> None:
    (root / "car_ims").mkdir(parents=True)
    for place, car in enumerate(cars.archived()):
        (root / "car_ims" / f"{place + 1:06d}.jpg").write_bytes(car.content)
    write_archive_mat(root, cars)


def write_class_folders(
    base: Path, cars: Cars, ram: str = "Ram C-V", *, numbering: str = "devkit"
) -> None:
    for place, car in enumerate(cars.archived()):
        folder = base / car.split / car.label.replace("Ram C/V", ram)
        folder.mkdir(parents=True, exist_ok=True)
        name = car.name if numbering == "devkit" else f"{place + 1:06d}.jpg"
        (folder / name).write_bytes(car.content)


def write_car_data(root: Path, cars: Cars) -> None:
    """Class folders with tables of boxes above them."""
    write_class_folders(root / "car_data" / "car_data", cars)
    (root / "names.csv").write_text("\n".join(cars.classes) + "\n")
    for split in ("train", "test"):
        with (root / f"anno_{split}.csv").open("w", newline="") as file:
            rows = [(car.name, *car.corners, car.number) for car in cars.split(split)]
            csv.writer(file).writerows(rows)


# --- what must be found ------------------------------------------------------------------------


def found(data: DataSet) -> list[tuple[str, str, str]]:
    """Split, content and label of each picture."""
    reader = PictureReader()
    rows = ((p.split, reader.read(p), p.label) for p in data.pictures)
    return sorted(
        (split, hashlib.sha256(content).hexdigest(), name) for split, content, name in rows
    )


def expected(cars: Sequence[Car]) -> list[tuple[str, str, str]]:
    return sorted((c.split, hashlib.sha256(c.content).hexdigest(), c.label) for c in cars)


def check(
    data: DataSet, cars: Cars, layout: str, *, names: bool = True, boxes: bool = True
) -> None:
    assert data.layout == layout
    assert data.notes == ()
    assert found(data) == expected(cars.cars)
    if names:
        keys = {(p.key, p.label) for p in data.pictures}
        assert keys == {(f"{c.split}/{c.name}", c.label) for c in cars.cars}
    corners = {(c.split, c.content): c.corners for c in cars.cars}
    for picture in data.pictures if boxes else ():
        left, top, right, bottom = corners[picture.split, PictureReader().read(picture)]
        assert picture.box == (left - 1, top - 1, right, bottom), picture.key
    if not boxes:
        assert {p.box for p in data.pictures} == {None}


@pytest.fixture(params=["drawn", "real"])
def cars(request: pytest.FixtureRequest) -> Cars:
    """Drawn ones first; then a sample of the real data set, where there is one."""
    sample = request.getfixturevalue(request.param)
    assert isinstance(sample, Cars)
    return sample


@pytest.fixture(scope="module")
def real(stanford: Path) -> Cars:
    """Every 60th picture, all those of the Ram, and those of which the test split has copies."""
    reader, data = PictureReader(), open_data_set(stanford)
    copies = {"test/00288.jpg", "test/06136.jpg", "test/07308.jpg", "test/07703.jpg"}
    wanted = {p.key for p in data.pictures[::60]} | copies
    by_key = {p.key: p for p in data.pictures if p.key in wanted or p.label == RAM}
    cars: list[Car] = []
    for split, mat in (("train", TRAIN_MAT), ("test", ROOT_TEST_MAT)):
        for row in loadmat(stanford / mat, squeeze_me=True)["annotations"]:
            name = str(row["fname"])
            if picture := by_key.get(f"{split}/{name}"):
                left, top, right, bottom = (int(row[f"bbox_{c}"]) for c in ("x1", "y1", "x2", "y2"))
                corners, content = (left, top, right, bottom), reader.read(picture)
                cars.append(Car(split, name, int(row["class"]), picture.label, corners, content))
    assert len(cars) == len(by_key)
    return Cars(data.class_names, tuple(cars))


# --- the devkit --------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [".", "stanford_cars"])
def test_nested_folders_with_the_devkit(cars: Cars, tmp_path: Path, below: str) -> None:
    base = tmp_path / below
    write_pictures(base, cars, nested=True)
    write_devkit(base, cars)
    write_archive_mat(base, cars)  # its file names must not count
    data = open_data_set(tmp_path)
    check(data, cars, "torchvision")
    assert data.class_names == cars.classes


def test_devkit_as_another_copy_on_kaggle_has_it(cars: Cars, tmp_path: Path) -> None:
    write_pictures(tmp_path, cars, nested=True)
    write_devkit(tmp_path / "car_devkit", cars, test_mat=f"../{SECOND_COPY}")
    check(open_data_set(tmp_path), cars, "torchvision")


def test_test_labels_from_the_archive_by_box(cars: Cars, tmp_path: Path) -> None:
    write_pictures(tmp_path, cars, nested=True)
    write_devkit(tmp_path, cars)
    (tmp_path / ROOT_TEST_MAT).unlink()
    write_bare_test_mat(tmp_path, cars)
    write_archive_mat(tmp_path, cars)
    data = open_data_set(tmp_path)
    labels: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for car in cars.split("test"):
        labels[car.corners].add(car.label)
    # Copies of one photo under two labels: no file at hand says which is which.
    unclear = [car for car in cars.split("test") if len(labels[car.corners]) > 1]
    assert found(data) == expected([car for car in cars.cars if car not in unclear])
    assert len(data.notes) == bool(unclear) == (cars.classes[0] != RAM)
    for note in data.notes:
        assert f"{len(unclear)} pictures left out, 00288.jpg first" in note
        assert ROOT_TEST_MAT in note


def test_a_box_that_the_archive_does_not_know(drawn: Cars, tmp_path: Path) -> None:
    write_pictures(tmp_path, drawn, nested=True)
    write_devkit(tmp_path, drawn)
    (tmp_path / ROOT_TEST_MAT).unlink()
    write_bare_test_mat(tmp_path, drawn)
    write_archive_mat(tmp_path, Cars(drawn.classes, drawn.cars[:-1]))
    with pytest.raises(DataError, match=r"cars_annos\.mat: no test picture has the box of 00001"):
        open_data_set(tmp_path)


def test_the_archives_labels_alone_are_refused(drawn: Cars, tmp_path: Path) -> None:
    # Under equal numbers lie other cars: a join by name would be wrong in silence.
    write_pictures(tmp_path, drawn, nested=True)
    write_archive_mat(tmp_path, drawn)
    with pytest.raises(DataError, match=r"cars_meta\.mat; cars_annos\.mat cannot tell") as caught:
        open_data_set(tmp_path)
    assert "data download stanford-cars" in str(caught.value)


def test_pictures_without_any_labels(drawn: Cars, tmp_path: Path) -> None:
    write_pictures(tmp_path, drawn, nested=False)
    with pytest.raises(DataError, match=r"cars_meta\.mat; put the devkit there"):
        open_data_set(tmp_path)


def test_box_without_an_inside(drawn: Cars, tmp_path: Path) -> None:
    write_pictures(tmp_path, drawn, nested=False)
    write_devkit(tmp_path, drawn)
    write_annotations(tmp_path / TRAIN_MAT, [("00001.jpg", 1, (50, 6, 49, 70))])
    with pytest.raises(DataError, match=r"annos\.mat, 00001\.jpg: the box \(50, 6, 49, 70\)"):
        open_data_set(tmp_path)


# --- the archive -------------------------------------------------------------------------------


def test_archive(cars: Cars, tmp_path: Path) -> None:
    write_archive(tmp_path, cars)
    data = open_data_set(tmp_path)
    check(data, cars, "archive", names=False)
    assert data.class_names == cars.classes
    assert all(p.key == f"{p.split}/{Path(str(p.source)).name}" for p in data.pictures)


def test_archive_without_labels(drawn: Cars, tmp_path: Path) -> None:
    write_archive(tmp_path, drawn)
    (tmp_path / "cars_annos.mat").unlink()
    with pytest.raises(DataError, match=r"car_ims has pictures.*put cars_annos\.mat there"):
        open_data_set(tmp_path)


# --- class folders -----------------------------------------------------------------------------


@pytest.mark.parametrize("ram", SPELLINGS)
def test_class_folders_numbered_as_the_archive(cars: Cars, tmp_path: Path, ram: str) -> None:
    write_class_folders(tmp_path, cars, ram, numbering="archive")
    data = open_data_set(tmp_path)
    check(data, cars, "class-folders", names=False, boxes=False)
    there = {car.label for car in cars.cars}
    assert data.class_names == tuple(name for name in stanford_names() if name in there)
    assert all(p.key == f"{p.split}/{Path(str(p.source)).name}" for p in data.pictures)


@pytest.mark.parametrize("root", [".", "car_data", "car_data/car_data"])
def test_class_folders_with_tables_of_boxes(cars: Cars, tmp_path: Path, root: str) -> None:
    write_car_data(tmp_path, cars)
    data = open_data_set(tmp_path / root)
    check(data, cars, "class-folders")


def test_one_split_of_the_class_folders(cars: Cars, tmp_path: Path) -> None:
    write_car_data(tmp_path, cars)
    data = open_data_set(tmp_path / "car_data" / "car_data" / "train")
    check(data, Cars(cars.classes, tuple(cars.split("train"))), "class-folders", boxes=False)


def test_the_same_data_has_one_fingerprint(cars: Cars, tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", cars, nested=False)
    write_devkit(tmp_path / "a", cars)
    write_car_data(tmp_path / "b", cars)
    first, second = (open_data_set(tmp_path / name) for name in ("a", "b"))
    assert fingerprint(first.pictures) == fingerprint(second.pictures)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (",1,1,9,9,2", r"line 17: 00001\.jpg is a 'AM General.*folder of 'Ram C/V"),
        (",1,1,9,9,4", r"line 17: 00001\.jpg is a 'no\. 4'"),
        (",9,1,9,9", r"line 17: 5 cells instead of 6"),
        (",9,1,8,9,1", r"line 17: the box \(9, 1, 8, 9\)"),
        (",x1,y1,x2,y2,1", r"line 17: must be file,x1,y1,x2,y2,class"),
    ],
)
def test_table_of_boxes_that_is_wrong(drawn: Cars, tmp_path: Path, change: str, said: str) -> None:
    write_car_data(tmp_path, drawn)
    table = tmp_path / "anno_train.csv"
    # Rows of pictures that are not there do not matter.
    table.write_text(table.read_text() + "9.jpg,1,1,9,9,1\n" * 7 + f"00001.jpg{change}\n")
    with pytest.raises(DataError, match=rf"anno_train\.csv, {said}"):
        open_data_set(tmp_path)


def test_table_of_boxes_for_names_that_repeat(drawn: Cars, tmp_path: Path) -> None:
    write_car_data(tmp_path, drawn)
    folder = tmp_path / "car_data" / "car_data" / "train" / "BMW M3 Coupe 2012"
    (folder / "00001.jpg").write_bytes(encoded(draw_car(0)))
    with pytest.raises(DataError, match=r"anno_train\.csv: which 00001\.jpg it means"):
        open_data_set(tmp_path)


def test_unofficial_names_are_not_bent(tmp_path: Path) -> None:
    # One class that is not Stanford's, and folders keep their names and are sorted.
    for name in ("Ram C-V Cargo Van Minivan 2012", *CLASSES[:2]):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "a.jpg").write_bytes(encoded(draw_car(0)))
    expected = (CLASSES[1], "Ram C-V Cargo Van Minivan 2012", CLASSES[0])
    assert open_data_set(tmp_path).class_names == expected

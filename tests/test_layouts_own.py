"""Data sets of one's own, in class folders or with a table: what is found, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import CLASSES, Carspotter, draw_car, encoded

from carspotter.data import Crop, DataSet, PictureReader, decoded_pictures, open_data_set
from carspotter.data.index import fingerprint
from carspotter.errors import DataError, PhotoError

RED, GREEN, BLUE = CLASSES


@pytest.fixture(scope="module")
def picture() -> bytes:
    return encoded(draw_car(0))


@pytest.fixture
def own(tmp_path: Path, picture: bytes) -> Path:
    """Class folders as a camera fills them: the same file names in each."""
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for name in CLASSES:
            put(tmp_path, (f"{split}/{name}/IMG_{i}.jpg" for i in range(count)), picture)
    return tmp_path


def put(root: Path, names: Iterable[str], content: bytes = b"") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def labels(data: DataSet) -> dict[str, str]:
    return {picture.key: picture.label for picture in data.pictures}


# --- class folders -----------------------------------------------------------------------------


def test_class_folders(own: Path) -> None:
    data = open_data_set(own)
    assert data.layout == "class-folders"
    assert data.class_names == (BLUE, GREEN, RED)
    expected = {
        f"{split}/{name}/IMG_{i}.jpg": name
        for split, count in (("train", 3), ("val", 1), ("test", 2))
        for name in CLASSES
        for i in range(count)
    }
    assert labels(data) == expected
    assert len(data.pictures) == 18
    for found in data.pictures:
        assert found.split == found.key.partition("/")[0]
        assert found.source == own / found.key
        assert found.box is None


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_every_name_of_the_validation_part(own: Path, name: str) -> None:
    (own / "val").rename(own / name)
    data = open_data_set(own)
    assert {p.key for p in data.split("val")} == {f"val/{c}/IMG_0.jpg" for c in CLASSES}


def test_class_folders_without_a_split(tmp_path: Path, picture: bytes) -> None:
    put(tmp_path, (f"{CLASSES[i % 3]}/{i}.jpg" for i in range(7)), picture)
    data = open_data_set(tmp_path)
    assert labels(data) == {f"train/{i}.jpg": CLASSES[i % 3] for i in range(7)}
    assert {p.split for p in data.pictures} == {"train"}


def test_keys_do_not_depend_on_where_the_data_lies(own: Path, tmp_path_factory) -> None:
    before = open_data_set(own)
    moved = tmp_path_factory.mktemp("elsewhere") / "test"
    shutil.copytree(own, moved)
    after = open_data_set(moved)
    assert [p.key for p in after.pictures] == [p.key for p in before.pictures]
    assert fingerprint(after.pictures) == fingerprint(before.pictures)


def test_endings_and_other_files(tmp_path: Path, picture: bytes) -> None:
    kept = ["a.jpg", "b.JPG", "c.JpEg", "d.PNG", "e.webp", "f.HEIC"]
    ignored = [".DS_Store", "._a.jpg", "Thumbs.db", "notes.txt", "a.jpg.part", "jpg"]
    put(tmp_path, (f"train/{c}/{name}" for c in CLASSES for name in [*kept, *ignored]), picture)
    put(tmp_path, ["train/.cache/x.jpg", "train/__MACOSX/y.jpg", "train/readme.txt"], picture)
    data = open_data_set(tmp_path)
    assert labels(data) == {f"train/{c}/{name}": c for c in CLASSES for name in kept}
    assert data.notes == ()


def test_pictures_beside_the_class_folders_are_noted(own: Path, picture: bytes) -> None:
    put(own, ["test/stray.jpg", "test/other.jpg"], picture)
    data = open_data_set(own)
    assert len(data.pictures) == 18
    assert len(data.notes) == 1
    assert f"{own / 'test'}: 2 pictures left out, other.jpg first" in data.notes[0]


def test_broken_pictures_do_not_stop_the_index(
    own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = {"IMG_0.jpg": b"", "IMG_1.jpg": b"\xff\xd8\xff no picture"}
    for name, content in broken.items():
        (own / "train" / RED / name).write_bytes(content)
    (own / "train" / RED / "gone.jpg").symlink_to(own / "nowhere.jpg")
    data = open_data_set(own)
    assert len(data.split("train")) == 10
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path_factory.mktemp("cache")))
    decoded = decoded_pictures(data.split("train"), Crop(), 64)
    assert set(decoded.broken) == {f"train/{RED}/{name}" for name in [*broken, "gone.jpg"]}
    assert len(decoded) == 7


@pytest.mark.parametrize("inside", [[], ["notes.txt", ".hidden.jpg"]])
def test_class_folder_without_pictures(own: Path, inside: list[str]) -> None:
    folder = own / "train" / "White Whale Van 1999"
    folder.mkdir()
    put(folder, inside)
    with pytest.raises(DataError, match=r"White Whale Van 1999: a class folder without pictures"):
        open_data_set(own)


def test_class_that_one_split_lacks(own: Path) -> None:
    shutil.rmtree(own / "val" / RED)
    (own / "test" / RED / "IMG_0.jpg").unlink()
    (own / "test" / RED / "IMG_1.jpg").unlink()  # its folder stays, empty
    data = open_data_set(own)
    assert data.class_names == (BLUE, GREEN, RED)
    assert {p.split for p in data.pictures if p.label == RED} == {"train"}


def test_one_class(tmp_path: Path, picture: bytes) -> None:
    put(tmp_path, [f"train/{RED}/a.jpg"], picture)
    with pytest.raises(DataError, match=r"needs two classes.*Red Roadster"):
        open_data_set(tmp_path)


def test_one_class_spelt_in_two_ways(own: Path) -> None:
    (own / "test" / RED).rename(own / "test" / "red_roadster-coupe 2001")
    with pytest.raises(DataError, match=r"'Red Roadster Coupe 2001' and 'red_roadster.*spelling"):
        open_data_set(own)


def test_folders_below_class_folders(own: Path, picture: bytes) -> None:
    put(own, [f"train/{RED}/front/a.jpg"], picture)
    with pytest.raises(DataError, match=rf"{RED}/front: pictures in a folder below"):
        open_data_set(own)


def test_one_split_under_two_names(own: Path, picture: bytes) -> None:
    put(own, [f"validation/{RED}/a.jpg"], picture)
    with pytest.raises(DataError, match="are one split; keep one"):
        open_data_set(own)


def test_nothing_readable(tmp_path: Path) -> None:
    put(tmp_path, [f"{name}/notes.txt" for name in CLASSES])
    with pytest.raises(DataError, match="no known layout") as caught:
        open_data_set(tmp_path)
    for what in ("train-*.parquet", "cars_train/", "car_ims/", "CLASS/*.jpg", ".csv or .tsv"):
        assert what in str(caught.value)


def test_pictures_without_classes(tmp_path: Path, picture: bytes) -> None:
    put(tmp_path, ["train/a.jpg", "test/b.jpg"], picture)
    with pytest.raises(DataError, match="no known layout"):
        open_data_set(tmp_path)


def test_packed_data_set(tmp_path: Path) -> None:
    (tmp_path / "cars.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"cars\.zip: a file; unpack it"):
        open_data_set(tmp_path / "cars.zip")


def test_sixteen_thousand_pictures_are_indexed_at_once(tmp_path: Path) -> None:
    for c in range(196):
        folder = tmp_path / "train" / f"class {c}"
        folder.mkdir(parents=True)
        for i in range(83):
            os.close(os.open(folder / f"{c}-{i}.jpg", os.O_CREAT))
    start = time.process_time()  # not the clock: other work on the machine does not count
    data = open_data_set(tmp_path)
    assert time.process_time() - start < 2
    assert len(data.pictures) == 196 * 83


TINY = """
name = "own"
backbone = "test_efficientnet"
weights = "none"
freeze_stages = 0
val_fraction = 0.25
epochs = 1
sizes = [48]
eval_size = 48
batch_size = 8
lr = 1e-2
mix_probability = 0
precision = "fp32"
"""


def test_training_and_evaluation_on_class_folders(carspotter: Carspotter, tmp_path: Path) -> None:
    root, recipe, run = tmp_path / "cars", tmp_path / "tiny.toml", tmp_path / "run"
    for split, count in (("train", 24), ("test", 6)):
        for i in range(count):
            put(root, [f"{split}/{CLASSES[i % 3]}/{i}.jpg"], encoded(draw_car(i, i % 3)))
    recipe.write_text(TINY)
    env = {"OMP_NUM_THREADS": "1"}
    done = carspotter("train", recipe, "--data", root, "--out", run, "--quiet", env=env)
    assert done.returncode == 0, done.stderr
    split = (run / "split.csv").read_text().splitlines()[1:]
    assert sorted(line.split(",")[0] for line in split) == sorted(
        f"train/{i}.jpg" for i in range(24)
    )
    done = carspotter("evaluate", run, "--data", root, "--json", "--quiet", env=env)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)["data"]
    assert (about["layout"], about["split"], about["pictures"]) == ("class-folders", "test", 6)


# --- a folder with a table ---------------------------------------------------------------------


def write_table(root: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    (root / name).write_bytes(text.encode(encoding))
    return root


@pytest.fixture
def flat(tmp_path: Path, picture: bytes) -> Path:
    put(tmp_path, (f"{i}.jpg" for i in range(4)), picture)
    return tmp_path


ROWS = f"0.jpg,{RED}\n1.jpg,{BLUE}\n2.jpg,{RED}\n"


def test_table(flat: Path) -> None:
    data = open_data_set(write_table(flat, "file,label\n" + ROWS))
    assert data.layout == "table"
    assert data.class_names == (BLUE, RED)
    assert labels(data) == {"train/0.jpg": RED, "train/1.jpg": BLUE, "train/2.jpg": RED}
    assert [p.source for p in data.pictures] == [flat / f"{i}.jpg" for i in range(3)]


@pytest.mark.parametrize(
    "header",
    ["file,label", "File Name,Class", "path,name", "IMAGE,car", "photo,label", "fname,class_name"],
)
def test_names_of_columns(flat: Path, header: str) -> None:
    text = f"number,{header}\n{ROWS}".replace("\n", "\n7,").removesuffix("7,")
    assert len(open_data_set(write_table(flat, text)).pictures) == 3


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "a.csv"), ("\t", "a.csv"), ("\t", "A.TSV"), ("|", "a.csv")]
)
def test_delimiters(flat: Path, delimiter: str, name: str) -> None:
    text = ("file,label\n" + ROWS).replace(",", delimiter).replace(BLUE, "Kia Cee'd, blue")
    data = open_data_set(write_table(flat, text, name))
    assert data.class_names == ("Kia Cee'd, blue", RED)


def test_table_as_a_spreadsheet_writes_it(flat: Path) -> None:
    text = f'file,label\r\n 0.jpg ,"{RED}"\r\n1.jpg,"Škoda, blue"\r\n,\r\n'
    data = open_data_set(write_table(flat, text, encoding="utf-8-sig"))
    assert labels(data) == {"train/0.jpg": RED, "train/1.jpg": "Škoda, blue"}


def test_labels_in_parts(flat: Path) -> None:
    text = "photo,make,model,body,year\n0.jpg,BMW,M3,Coupe,2012.0\n1.jpg,Tesla,Model 3,,\n"
    data = open_data_set(write_table(flat, text))
    assert labels(data) == {"train/0.jpg": "BMW M3 Coupe 2012", "train/1.jpg": "Tesla Model 3"}


def test_official_names_in_a_table(flat: Path) -> None:
    text = "file,label\n0.jpg,bmw m3 coupe 2012\n1.jpg,Ram C-V Cargo Van Minivan 2012\n"
    data = open_data_set(write_table(flat, f"{text}2.jpg,AM General Hummer SUV 2000\n"))
    official = ("BMW M3 Coupe 2012", "Ram C/V Cargo Van Minivan 2012")
    assert data.class_names == ("AM General Hummer SUV 2000", *official)


def test_splits_and_boxes(flat: Path) -> None:
    rows = f"0.jpg,{RED},train,1,2,30,40\n1.jpg,{BLUE},Valid,1.0,2.0,30.4,40\n2.jpg,{RED},test,,,,"
    data = open_data_set(write_table(flat, f"file,label,split,x1,y1,x2,y2\n{rows}\n"))
    assert {p.key: p.box for p in data.pictures} == {
        "train/0.jpg": (1, 2, 30, 40),
        "val/1.jpg": (1, 2, 30, 40),
        "test/2.jpg": None,
    }


@pytest.mark.parametrize("below", ["", "train/"])
def test_a_table_for_each_split(tmp_path: Path, picture: bytes, below: str) -> None:
    put(tmp_path, [f"{below}0.jpg", f"{below}1.jpg", "test/0.jpg", "sub/2.jpg"], picture)
    write_table(tmp_path, f"file,label\n0.jpg,{RED}\n1.jpg,{BLUE}\n", "train.csv")
    write_table(tmp_path, f"file,label\ntest/0.jpg,{BLUE}\nsub\\2.jpg,{RED}\n", "Test.csv")
    data = open_data_set(tmp_path)
    train = {"train/0.jpg": RED, "train/1.jpg": BLUE}
    assert labels(data) == train | {"test/test/0.jpg": BLUE, "test/sub/2.jpg": RED}
    for found in data.pictures:
        assert PictureReader().read(found) == picture


def test_class_folders_go_before_a_table(own: Path) -> None:
    write_table(own, "file,label\nnowhere.jpg,nothing\n")
    assert open_data_set(own).layout == "class-folders"


def test_a_table_goes_before_folders(tmp_path: Path, picture: bytes) -> None:
    put(tmp_path, ["a/0.jpg", "b/1.jpg"], picture)
    data = open_data_set(write_table(tmp_path, f"file,label\na/0.jpg,{RED}\nb/1.jpg,{BLUE}\n"))
    assert data.class_names == (BLUE, RED)


def test_a_table_of_other_things_does_not_count(tmp_path: Path, picture: bytes) -> None:
    put(tmp_path, (f"{name}/0.jpg" for name in CLASSES), picture)
    assert open_data_set(write_table(tmp_path, "name,price\nBMW,1\n")).layout == "class-folders"


BOXED = "file,label,x1,y1,x2,y2\n0.jpg,a,1,1,9,9\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"file,label\n{ROWS}8.jpg,a\n9.jpg,a\n", r"line 5: 8\.jpg is not there, nor are 1 more"),
        (f"file,label\n{ROWS}3.jpg, \n", r"line 5: 3\.jpg has no label"),
        (f"file,label\n{ROWS}3.jpg\n", r"line 5: 3\.jpg has no label"),
        (f"file,label\n{ROWS},{RED}\n", r"line 5: no file"),
        (f"file,label\n{ROWS}0.jpg,{RED}\n", r"line 5: 0\.jpg is there twice, in .* line 2"),
        (f"file,label\n{ROWS}3.jpg,a, b\n", r"line 5: more cells than columns"),
        (f"file,label\n{ROWS}../3.jpg,a\n", r"line 5: \.\./3\.jpg must lie in the folder"),
        (f"file,label\n{ROWS}/tmp/3.jpg,a\n", r"line 5: /tmp/3\.jpg must lie in the folder"),
        (f"file,label\n{ROWS}C:\\3.jpg,a\n", r"line 5: C:\\3\.jpg must lie in the folder"),
        (f"file,label\n{ROWS}3.jpg,red roadster coupe 2001\n", "differ only in spelling"),
        ("file,label,split\n0.jpg,a,all\n", "line 2: the split is 'all', not train, val or test"),
        ("file,year\n0.jpg,2012\n", r"no column for the label .* only: file, year"),
        ("file,make,model\n0.jpg,BMW,\n", r"line 2: 0\.jpg has no label"),
        ("file,path,label\n0.jpg,0.jpg,a\n", "'file' and 'path' may both be the file"),
        ("file,label,x1,y1\n0.jpg,a,1,1\n", "a box needs x1, y1, x2, y2; without x2, y2"),
        (BOXED + "1.jpg,b,9,1,9,9\n", r"line 3: the box \(9, 1, 9, 9\) makes no sense"),
        (BOXED + "1.jpg,b,-9,1,-1,9\n", r"line 3: the box .* makes no sense"),
        (BOXED + "1.jpg,b,1,1,9,\n", r"line 3: the box 1,1,9, is not x1,y1,x2,y2"),
        (BOXED + "1.jpg,b,1,1,9,nan\n", r"line 3: the box 1,1,9,nan is not"),
        ("file,label\n0.jpg,a\n1.jpg,a\n", "needs two classes"),
        ("file,label\n", "holds no picture"),
    ],
)
def test_tables_that_are_wrong(flat: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        open_data_set(write_table(flat, text))
    assert str(flat) in str(caught.value)


def test_table_in_another_encoding(flat: Path) -> None:
    write_table(flat, f"file,label\n0.jpg,{RED}\n1.jpg,Citroën\n", encoding="cp1252")
    with pytest.raises(DataError, match=r"labels\.csv: not UTF-8 text; save it as"):
        open_data_set(flat)


def test_two_tables(flat: Path) -> None:
    for name in ("old.csv", "new.csv"):
        write_table(flat, "file,label\n" + ROWS, name)
    with pytest.raises(DataError, match=r"not clear \(new\.csv, old\.csv\)"):
        open_data_set(flat)


def test_table_without_a_column_of_files(flat: Path) -> None:
    write_table(flat, "picture no,label\n1,a\n")
    with pytest.raises(DataError, match=r"labels\.csv has no column for the file .*picture no"):
        open_data_set(flat)


def test_removed_picture_is_told_when_it_is_read(flat: Path) -> None:
    data = open_data_set(write_table(flat, "file,label\n" + ROWS))
    (flat / "0.jpg").unlink()
    with pytest.raises(PhotoError, match="no such file"):
        PictureReader().read(data.pictures[0])

"""The list of exclusions in training: what is left out, and lists that cannot be used."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Carspotter
from tiny_study import RECIPE
from training import run

from carspotter.card_text import card_text
from carspotter.data import (
    Exclusion,
    open_data_set,
    read_exclusions,
    training_parts,
    write_exclusions,
)
from carspotter.errors import DataError
from carspotter.export import export_run
from carspotter.export.original import of_file
from carspotter.loading import load

# From Python 3.12 on, forking a loader's worker warns wherever another thread runs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARSPOTTER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def listed(file: Path, *keys: str) -> str:
    write_exclusions(file, [Exclusion(key, "a reason, with a comma") for key in keys])
    return str(file)


def test_pictures_are_left_out_and_the_others_stay_where_they_are(
    drawn_data: Path, tmp_path: Path
) -> None:
    data = open_data_set(drawn_data)
    before = training_parts(data, 0.25, 0)
    out = {before[0][3].key, before[0][10].key, before[1][2].key}
    after = training_parts(data, 0.25, 0, listed(tmp_path / "out.csv", *out))
    for old, new in zip(before, after, strict=True):
        assert new == tuple(picture for picture in old if picture.key not in out)


def test_a_run_does_not_know_them(drawn_data: Path, tmp_path: Path) -> None:
    out = ("train/00004.jpg", "train/00031.jpg")
    file = listed(tmp_path / "out.csv", *out)
    folder = run(drawn_data, tmp_path / "run", exclude=file)
    with (folder.path / "split.csv").open(newline="") as lines:
        keys = {row["key"] for row in csv.DictReader(lines)}
    assert len(keys) == 72 - len(out)
    assert keys.isdisjoint(out)
    assert f'exclude = "{file}"' in folder.recipe.read_text()


def test_a_file_of_such_a_run_knows_its_pictures(drawn_data: Path, tmp_path: Path) -> None:
    file = listed(tmp_path / "out.csv", "train/00004.jpg", "train/00031.jpg", "test/00001.jpg")
    folder = run(drawn_data, tmp_path / "run", exclude=file)
    (tmp_path / "out.csv").unlink()
    export_run(folder.path, tmp_path / "model.onnx", data_root=drawn_data)
    found = of_file(str(tmp_path / "model.onnx"), drawn_data)
    expected = folder.read_split()
    assert {p.key: "train" for p in found.train} | {p.key: "val" for p in found.val} == expected
    card = load(tmp_path / "model.onnx", detector="none").card
    assert card.trained_on["excluded"] == ["train/00004.jpg", "train/00031.jpg"]
    assert "| pictures left out of both | 2 |" in card_text(card)


def test_test_pictures_may_be_named_and_stay(drawn_data: Path, tmp_path: Path) -> None:
    data = open_data_set(drawn_data)
    file = listed(tmp_path / "out.csv", "test/00003.jpg")
    assert training_parts(data, 0.25, 0, file) == training_parts(data, 0.25, 0)
    assert len(data.split("test")) == 24


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("picture,reason\ntrain/00001.jpg,a\nother/1.jpg,b\n", r"line 3: .* no picture 'other/1"),
        ("train/00001.jpg\n", r"line 1: .*begins with the line `picture,reason`"),
        ("", r"line 1: .*begins with the line"),
        ("picture,reason\n,why\n", r"line 2: no picture in this row"),
    ],
)
def test_lists_that_cannot_be_used(drawn_data: Path, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "out.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=rf"out\.csv, {said}"):
        run(drawn_data, tmp_path / "run", exclude=str(file))
    assert not (tmp_path / "run").exists()


def test_a_list_that_is_not_there(drawn_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: .*cannot be read"):
        run(drawn_data, tmp_path / "run", exclude=str(tmp_path / "gone.csv"))


def test_a_list_of_all(drawn_data: Path, tmp_path: Path) -> None:
    data = open_data_set(drawn_data)
    file = listed(tmp_path / "out.csv", *(p.key for p in data.split("train")))
    with pytest.raises(DataError, match="leaves no picture to train on"):
        training_parts(data, 0.25, 0, file)


def test_lists_of_spreadsheets_are_read(drawn_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_bytes(b"\xef\xbb\xbfpicture,reason,who\r\ntrain/00001.jpg,dark,me\r\n\r\n")
    assert read_exclusions(file, open_data_set(drawn_data)) == {"train/00001.jpg"}


def test_a_run_goes_on_with_its_own_list_alone(drawn_data: Path, tmp_path: Path) -> None:
    file = listed(tmp_path / "out.csv", "train/00004.jpg")
    folder = run(drawn_data, tmp_path / "run", epochs=2, stop_after=1, exclude=file)
    listed(tmp_path / "out.csv", "train/00005.jpg")
    with pytest.raises(DataError, match=r"split\.csv is of other data"):
        run(drawn_data, folder.path, epochs=2, resume=True, exclude=file)


def test_trials_leave_them_out_too(
    drawn_data: Path, tmp_path: Path, carspotter: Carspotter
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    file = listed(tmp_path / "out.csv", "train/00004.jpg")
    study = tmp_path / "study"
    options = ("--data", drawn_data, "--trials", "1", "--out", study)
    done = carspotter("tune", recipe, *options, "--set", f"exclude={file}", "--quiet")
    assert done.returncode == 0, done.stderr
    splits = [path.read_text() for path in study.rglob("split.csv")]
    assert splits
    assert not any("train/00004.jpg" in split for split in splits)
    assert f'exclude = "{file}"' in (study / "best.toml").read_text()
    search = tmp_path / "search.toml"
    search.write_text('exclude = {choices = ["a.csv", "b.csv"]}\n')
    refused = carspotter(
        "tune",
        recipe,
        "--data",
        drawn_data,
        "--trials",
        "1",
        "--out",
        tmp_path / "other",
        "--search",
        search,
    )
    assert refused.returncode == 2
    assert "exclude cannot be searched" in refused.stderr

"""`carspotter data check` from outside: findings, files, exit codes, refusals."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_checks import complaint
from conftest import Carspotter
from PIL import Image
from scenery import NAMES, clean, put, scenery

ONE, OTHER = NAMES


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that can be wrong."""
    root = clean(tmp_path_factory.mktemp("data") / "cars")
    put(root, "train", ONE, "leak.jpg", scenery(100))
    put(root, "test", ONE, "leaked.jpg", scenery(100))
    put(root, "train", ONE, "torn1.jpg", scenery(101))
    put(root, "train", OTHER, "torn2.jpg", scenery(101))
    put(root, "train", OTHER, "twice1.png", scenery(102))
    put(root, "train", OTHER, "twice2.bmp", scenery(102))  # equal pixels, another file
    put(root, "train", ONE, "wide.jpg", scenery(103, (400, 100)))
    put(root, "train", ONE, "tiny.jpg", scenery(104, (50, 40)))
    put(root, "train", ONE, "grey.jpg", scenery(105).convert("L"))
    put(root, "train", ONE, "broken.jpg", scenery(106))
    broken = root / "train" / ONE / "broken.jpg"
    broken.write_bytes(broken.read_bytes()[:1500])
    (root / "train" / OTHER / "empty.jpg").write_bytes(b"")
    (root / "test" / OTHER / "page.jpg").write_bytes(b"<html><script>alert(1)</script></html>")
    return root


@pytest.fixture(scope="module")
def checked(
    faulty: Path, carspotter: Carspotter, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("out")
    before = {file: file.read_bytes() for file in sorted(faulty.rglob("*")) if file.is_file()}
    done = carspotter(
        "data", "check", faulty, "--json", "--report", out / "report", "--fix", out / "fix.csv"
    )
    assert done.returncode == 1, done.stderr  # some pictures are broken
    after = {file: file.read_bytes() for file in sorted(faulty.rglob("*")) if file.is_file()}
    assert before == after
    return {"out": out, "found": json.loads(done.stdout), "stderr": done.stderr}


def keys(rows: list[dict[str, Any]]) -> set[str]:
    return {row["picture"].rpartition("/")[2] for row in rows}


def group_of(checked: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (
        group
        for group in checked["found"]["duplicates"]
        if any(p["picture"].endswith(name) for p in group["pictures"])
    )
    return found


def test_broken_pictures_are_named_and_stop_nothing(checked: dict[str, Any]) -> None:
    broken = {row["picture"].rpartition("/")[2]: row for row in checked["found"]["broken"]}
    assert {name: row["code"] for name, row in broken.items()} == {
        "broken.jpg": "broken",
        "empty.jpg": "empty",
        "page.jpg": "not_an_image",
    }
    assert all(row["picture"] in row["reason"] for row in broken.values())
    assert checked["found"]["summary"]["broken"] == 3


@pytest.mark.parametrize(
    ("fault", "name", "size"),
    [
        ("tiny", "tiny.jpg", (50, 40)),
        ("extreme_aspect", "wide.jpg", (400, 100)),
        ("grey", "grey.jpg", (240, 180)),
    ],
)
def test_faults_of_single_pictures(
    checked: dict[str, Any], fault: str, name: str, size: tuple[int, int]
) -> None:
    (row,) = checked["found"]["faults"][fault]
    assert row["picture"].endswith(name)
    assert (row["width"], row["height"]) == size


def test_odd_sizes_are_those_beside_the_usual_one(checked: dict[str, Any]) -> None:
    # 19 of 21 pictures have one size.
    assert checked["found"]["usual_size"] == [240, 180]
    assert keys(checked["found"]["faults"]["odd_size"]) == {"wide.jpg", "tiny.jpg"}


def test_copies_under_two_labels_come_first(checked: dict[str, Any]) -> None:
    first = checked["found"]["duplicates"][0]
    assert first == group_of(checked, "torn1.jpg")
    assert (first["kind"], first["contradictory"], first["leak"]) == ("exact", True, False)
    assert {p["label"] for p in first["pictures"]} == set(NAMES)
    assert [g["contradictory"] for g in checked["found"]["duplicates"]] == [True, False, False]


def test_leaks_are_copies_across_splits(checked: dict[str, Any]) -> None:
    group = group_of(checked, "leaked.jpg")
    assert (group["kind"], group["leak"], group["same_file"]) == ("exact", True, True)
    assert {p["split"] for p in group["pictures"]} == {"train", "test"}


def test_equal_pixels_in_other_files_are_exact_copies(checked: dict[str, Any]) -> None:
    group = group_of(checked, "twice1.png")
    assert (group["kind"], group["same_file"], group["similarity"]) == ("exact", False, 1.0)


def test_nothing_else_is_taken_for_a_copy(checked: dict[str, Any]) -> None:
    assert checked["found"]["summary"]["duplicates_exact"] == 3
    assert checked["found"]["summary"]["duplicates_near"] == 0


def test_classes_are_counted_by_split(checked: dict[str, Any]) -> None:
    train, test = checked["found"]["splits"]
    assert (train["split"], test["split"]) == ("train", "test")
    assert train["per_class"] == {ONE: 9, OTHER: 7}
    assert test["per_class"] == {ONE: 3, OTHER: 2}
    assert test["few"] == {ONE: 3, OTHER: 2}
    assert train["imbalance"] == pytest.approx(9 / 7, abs=0.01)


def test_the_list_for_training(checked: dict[str, Any]) -> None:
    with (checked["out"] / "fix.csv").open(newline="") as file:
        rows = {row["picture"]: row["reason"] for row in csv.DictReader(file)}
    short = {key.rpartition("/")[2]: reason for key, reason in rows.items()}
    assert short.keys() == {
        *("broken.jpg", "empty.jpg"),
        *("leak.jpg", "torn1.jpg", "torn2.jpg", "twice2.bmp"),
    }  # no test picture, and the first of two equal ones stays
    assert short["leak.jpg"].startswith("leak: copy of test/")
    assert "labelled" in short["torn1.jpg"]
    assert short["twice2.bmp"].startswith("duplicate: copy of train/")
    assert "--set exclude=" in checked["stderr"]


def test_report_says_the_same_as_json(checked: dict[str, Any]) -> None:
    written = json.loads((checked["out"] / "report" / "check.json").read_text())
    assert written == checked["found"]
    assert written["format_version"] == 1


def test_page_needs_no_network_and_runs_nothing(checked: dict[str, Any]) -> None:
    html = (checked["out"] / "report" / "check.html").read_text()
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert html.count("<img ") == 6  # the three pairs
    assert 'name="viewport"' in html
    assert ONE in html


def test_labels_are_escaped_on_the_page(tmp_path: Path, carspotter_here: Carspotter) -> None:
    root = tmp_path / "cars"
    for place, label in enumerate(("<b>Bold</b> Coupe 2001", "Plain & Simple Van 2002")):
        (root / "train" / label.replace("/", "_")).mkdir(parents=True)
        put(root, "train", label.replace("/", "_"), "one.jpg", scenery(1))
        put(root, "train", label.replace("/", "_"), "two.jpg", scenery(2 + place))
    done = carspotter_here("data", "check", root, "--report", tmp_path / "report", "--quiet")
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "report" / "check.html").read_text()
    assert "<b>Bold" not in html
    assert "&lt;b&gt;Bold" in html


def test_text_says_what_matters(faulty: Path, carspotter_here: Carspotter) -> None:
    done = carspotter_here("data", "check", faulty, "--quiet")
    assert done.returncode == 1
    assert done.stderr == ""
    out = done.stdout
    assert "contradictory copies (1):" in out
    assert f"torn1.jpg ({ONE}) = train/torn2.jpg ({OTHER})" in out or "torn1.jpg" in out
    assert "broken (3):" in out
    assert "broken.jpg" in out


def test_findings_alone_are_no_failure(tmp_path: Path, carspotter_here: Carspotter) -> None:
    root = clean(tmp_path / "cars", train=2, test=1)
    shutil.copy(
        next((root / "train" / ONE).iterdir()), root / "test" / OTHER / "a copy of another.jpg"
    )
    done = carspotter_here("data", "check", root, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["summary"]["contradictory"] == 1


def test_class_without_a_picture_in_a_split(tmp_path: Path, carspotter_here: Carspotter) -> None:
    root = clean(tmp_path / "cars", train=2, test=1)
    shutil.rmtree(root / "test" / OTHER)
    done = carspotter_here("data", "check", root, "--quiet")
    assert done.returncode == 0, done.stderr
    assert f"no picture in test (1):\n  {OTHER}\n" in done.stdout


def test_uneven_classes_are_said(tmp_path: Path, carspotter_here: Carspotter) -> None:
    root = clean(tmp_path / "cars", train=1, test=1)
    for number in range(9):
        put(root, "train", ONE, f"more{number}.jpg", scenery(500 + number))
    found = json.loads(carspotter_here("data", "check", root, "--json").stdout)
    assert found["summary"]["uneven_splits"] == 1
    assert found["splits"][0]["imbalance"] == 10


def test_no_picture_can_be_read(tmp_path: Path, carspotter_here: Carspotter) -> None:
    for label in NAMES:
        (tmp_path / "cars" / "train" / label).mkdir(parents=True)
        (tmp_path / "cars" / "train" / label / "a.jpg").write_bytes(b"no picture")
    done = carspotter_here("data", "check", tmp_path / "cars", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["summary"]["broken"], found["duplicates"]) == (2, [])


def test_boxes_outside_of_their_picture(tmp_path: Path, carspotter_here: Carspotter) -> None:
    rows = ["file,label,x1,y1,x2,y2"]
    for number in range(4):
        scenery(number).save(tmp_path / f"{number}.jpg")
        box = "300,200,310,220" if number == 2 else "10,10,100,100"
        rows.append(f"{number}.jpg,{NAMES[number % 2]},{box}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    found = json.loads(carspotter_here("data", "check", tmp_path, "--json").stdout)
    assert found["data"]["layout"] == "table"
    assert [row["picture"] for row in found["faults"]["box_outside"]] == ["train/2.jpg"]


def test_parquet_is_checked_too(drawn_data: Path, carspotter_here: Carspotter) -> None:
    done = carspotter_here("data", "check", drawn_data, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["data"]["layout"]) == (0, "huggingface")
    assert found["summary"]["duplicates_exact"] == 0
    assert [split["pictures"] for split in found["splits"]] == [72, 24]


@pytest.mark.parametrize("option", ["--report", "--fix"])
def test_nothing_is_written_into_the_data_set(
    faulty: Path, carspotter_here: Carspotter, option: str
) -> None:
    said = complaint(carspotter_here("data", "check", faulty, option, faulty / "found.csv"))
    assert "lies in the data set" in said
    assert not (faulty / "found.csv").exists()


def test_a_file_of_the_users_is_not_written_over(
    faulty: Path, carspotter_here: Carspotter, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("file,label\na.jpg,b\n")
    assert "no list of exclusions" in complaint(
        carspotter_here("data", "check", faulty, "--fix", mine)
    )
    assert mine.read_text() == "file,label\na.jpg,b\n"


def test_a_list_may_be_made_anew(tmp_path: Path, carspotter_here: Carspotter) -> None:
    root = clean(tmp_path / "cars", train=2, test=1)
    mine = tmp_path / "mine.csv"
    mine.write_text("picture,reason\nold,old\n")
    assert carspotter_here("data", "check", root, "--fix", mine, "--quiet").returncode == 0
    assert mine.read_text() == "picture,reason\n"


def test_wrong_data_is_refused(tmp_path: Path, carspotter_here: Carspotter) -> None:
    assert "no such folder" in complaint(carspotter_here("data", "check", tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    assert "no known layout" in complaint(carspotter_here("data", "check", tmp_path / "empty"))
    one = tmp_path / "one"
    put(one, "train", ONE, "a.jpg", Image.new("RGB", (64, 64)))
    assert "needs two classes" in complaint(carspotter_here("data", "check", one))

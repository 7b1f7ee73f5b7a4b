"""`carspotter label`: what goes in, and what comes out."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

import archives
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from archives import FORMS, LEVELS, PHOTOS, rows_of
from conftest import Carspotter

from carspotter.label import reading
from carspotter.label.pieces import Piece
from carspotter.label.reading import photos_of


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_of_an_archive(
    form: Callable[[Path], str],
    carspotter_here: Carspotter,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("carspotter.photo._STEP", 50)  # photos come in several parts
    out = tmp_path / "results.parquet"
    done = carspotter_here("label", form(tmp_path), "--out", out, "--model", model, "--chunk", "3")
    assert (done.returncode, done.stderr) == (1, "")
    rows = rows_of(out)
    assert [row["level"] for row in rows] == LEVELS
    assert [row["error_code"] for row in rows] == [*[None] * 4, "not_an_image", "empty"]
    assert len({row["photo"] for row in rows}) == len(rows)
    assert not out.with_name("results.parquet.work").exists()


def test_a_row_holds_what_identify_says(
    carspotter_here: Carspotter, model: Path, colours: Path, tmp_path: Path
) -> None:
    photo = colours / "red.png"
    out = tmp_path / "results.parquet"
    done = carspotter_here("label", photo, "--out", out, "--model", model)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{out}: 1 photo, 0 failed")
    said = json.loads(carspotter_here("identify", photo, "--model", model, "--json").stdout)
    (row,) = pq.read_table(out).to_pylist()
    answer = said["answer"]
    parts = {key: row[key] for key in ("level", "label", "make", "model", "body", "year")}
    assert parts == {key: answer[key] for key in parts}
    assert row["confidence"] == pytest.approx(answer["confidence"])
    assert row["top5"] == [candidate["label"] for candidate in said["candidates"]]
    assert row["top5_probabilities"] == pytest.approx(
        [candidate["confidence"] for candidate in said["candidates"]]
    )
    assert (row["model_name"], row["model_sha256"]) == ("tiny", said["model"]["sha256"])
    assert row["seconds"] > 0
    assert (row["box"], row["other_cars"], row["error"]) == (None, 0, None)


def test_the_three_endings_say_the_same(
    carspotter_here: Carspotter, model: Path, tmp_path: Path
) -> None:
    source = archives.as_folder(tmp_path)
    for ending in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"results.{ending}"
        done = carspotter_here("label", source, "--out", out, "--model", model, "--json")
        summary = json.loads(done.stdout)
        assert (summary["photos"], summary["failed"], summary["new"]) == (6, 2, 6)
        assert summary["levels"] == {"exact": 1, "make": 1, "model": 1, "unknown": 1}
    table, text, lines = (rows_of(tmp_path / f"results.{e}") for e in ("parquet", "csv", "jsonl"))
    assert [row["label"] or "" for row in table] == [row["label"] for row in text]
    assert [row["error"] or "" for row in table] == [row["error"] for row in text]
    assert json.loads(text[0]["top5"]) == table[0]["top5"]
    identified = carspotter_here("identify", source, "--model", model, "--json").stdout
    assert lines == [json.loads(line) for line in identified.splitlines()]


def test_stores_by_their_address(carspotter_here: Carspotter, model: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for name, data in PHOTOS.items():
        store.pipe_file(f"/lot/{name}", data)
    shard = Path(archives.as_tar(tmp_path)).read_bytes()
    store.pipe_file("/shards/0.tar", shard)
    store.pipe_file("/lists/a.txt", b"../lot/00.png\nmemory://lot/01.png\ngone.png\n")
    found = {}
    for source in ("memory://lot", "memory://shards/*.tar", "memory://lists/a.txt"):
        out = tmp_path / f"{len(found)}.parquet"
        done = carspotter_here("label", source, "--out", out, "--model", model)
        assert (done.returncode, done.stderr) == (1, "")
        found[source] = rows_of(out)
    assert [row["level"] for row in found["memory://lot"]] == LEVELS
    assert [row["level"] for row in found["memory://shards/*.tar"]] == LEVELS
    assert found["memory://lists/a.txt"][1]["level"] == "model"
    assert found["memory://lists/a.txt"][2]["error_code"] == "not_found"
    unknown = carspotter_here("label", "moon://x", "--out", tmp_path / "x.csv", "--model", model)
    assert unknown.returncode == 2
    assert "moon" in unknown.stderr


def test_broken_archives_cost_their_own_photos_alone(
    carspotter_here: Carspotter, model: Path, tmp_path: Path
) -> None:
    whole = Path(archives.as_tar(tmp_path)).read_bytes()
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "0.tar").write_bytes(whole)
    (folder / "1.tar").write_bytes(b"no archive at all" * 99)
    with tarfile.open(tmp_path / "all.tar") as archive:
        third = archive.getmembers()[4]
    (folder / "2.tar").write_bytes(whole[: third.offset + 600])
    (folder / "3.zip").write_bytes(b"PK nothing")
    pq.write_table(pa.table({"n": [1]}), folder / "4.parquet")
    out = tmp_path / "results.parquet"
    done = carspotter_here("label", folder, "--out", out, "--model", model)
    assert (done.returncode, done.stderr) == (1, "")
    rows = rows_of(out)
    by_file = {
        name: [row for row in rows if Path(row["photo"].split("::")[0]).name == name]
        for name in ("0.tar", "1.tar", "2.tar", "3.zip", "4.parquet")
    }
    assert sum(map(len, by_file.values())) == len(rows)
    assert [row["level"] for row in by_file["0.tar"]] == LEVELS
    assert [row["level"] for row in by_file["2.tar"]][:2] == LEVELS[:2]
    for name in ("1.tar", "3.zip", "4.parquet"):
        (row,) = by_file[name]
        assert row["error_code"] == "unreadable"
        assert name in row["error"]
    assert "--column" in by_file["4.parquet"][0]["error"]


def test_a_folder_in_a_zip_is_no_photo_whatever_its_name(
    carspotter_here: Carspotter, model: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "albums.zip", tmp_path / "results.csv"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("album.png/", b"")
        archive.writestr("album.png/1.png", PHOTOS["00.png"])
    done = carspotter_here("label", source, "--out", out, "--model", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["photo"] for row in rows_of(out)] == [f"{source}::album.png/1.png"]


def test_a_compressed_archive_is_read_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its photos are held in memory; a small file may hold terabytes of zeros."""
    monkeypatch.setattr(reading, "MAX_BYTES", 50, raising=False)
    piece = Piece("stream", archives.as_compressed_tar(tmp_path))
    with ExitStack() as held:
        found = [cast("IO[bytes]", one).read(1000) for one in photos_of(piece, "", held)]
    assert found == [data[:51] for data in PHOTOS.values()]
    assert max(map(len, PHOTOS.values())) > 51


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: no such file or folder, or one without photos"),
        (("empty",), "empty: no such file or folder, or one without photos"),
        (("numbers.parquet",), "--column"),
        (("numbers.csv",), "has no column photos"),
        (("ok.png", "--engine", "moon"), "--engine moon: must be local or ray"),
        (("ok.png", "--actors", "2"), "--actors and --ray-address are for --engine ray"),
        (("ok.png", "--out", "results.xml"), "must end in .parquet, .csv or .jsonl"),
        (("ok.png", "--out", "no/results.csv"), "no such folder"),
        (("ok.png", "--out", "ok.png/results.csv"), "no such folder"),
        (("ok.png", "--out", "r.csv", "--embeddings"), "embeddings are kept in .parquet alone"),
        (("ok.png", "--model", "ok.png"), "ok.png"),
    ],
)
def test_wrong_calls_leave_nothing_behind(
    arguments: tuple[str, ...],
    message: str,
    carspotter_here: Carspotter,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "numbers.parquet")
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    tiny_model.plain(tiny_model.RED).save(tmp_path / "ok.png")
    before = sorted(tmp_path.iterdir())
    given = ("label", "--out", "results.parquet", "--model", str(model), *arguments)
    done = carspotter_here(*given)
    assert done.returncode == 2
    assert message in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_column_can_be_named(carspotter_here: Carspotter, model: Path, tmp_path: Path) -> None:
    good, bad = PHOTOS["00.png"], b"x"
    table = pa.table({"front": [good], "back": [bad], "name": ["a"]})
    pq.write_table(table, tmp_path / "two.parquet")
    out = tmp_path / "results.parquet"
    call = ("label", tmp_path / "two.parquet", "--out", out, "--model", model)
    assert "front, back" in carspotter_here(*call).stderr
    assert carspotter_here(*call, "--column", "front").returncode == 0
    (row,) = rows_of(out)
    assert (row["level"], row["photo"].rpartition("::")[2]) == ("exact", "a")


def test_large_results_are_a_folder_of_files(
    carspotter_here: Carspotter, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carspotter.label.assembly._ROWS", 700)
    source = archives.many(tmp_path, 3000)
    monkeypatch.setattr("carspotter.cli.label._MIB", 1 << 11)
    out = tmp_path / "results.parquet"
    carspotter_here(
        "label", source, "--out", out, "--model", model, "--max-file-mb", "1", "--quiet"
    )
    files = sorted(out.iterdir())
    assert len(files) > 1
    assert files[0].name == "part-00000.parquet"
    names = Path(source).read_text().split()
    assert [row["photo"] for row in rows_of(out)] == names
    again = carspotter_here("label", source, "--out", out, "--model", model, "--resume")
    assert "it was complete" in again.stdout


@pytest.mark.skipif(os.name == "nt", reason="names are always Unicode there")
def test_names_that_are_not_utf8(carspotter_here: Carspotter, model: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "photos")
    os.mkdir(folder)  # noqa: PTH102  # of bytes
    with open(folder + b"/\xff.png", "wb") as file:  # noqa: PTH123
        file.write(PHOTOS["00.png"])
    for ending in ("parquet", "csv", "jsonl"):
        out = tmp_path / f"results.{ending}"
        done = carspotter_here("label", tmp_path / "photos", "--out", out, "--model", model)
        assert (done.returncode, done.stderr) == (0, "")
    (row,) = rows_of(tmp_path / "results.parquet")
    assert (row["level"], Path(row["photo"]).name) == ("exact", r"\udcff.png")

"""`carspotter label` after crashes, on full disks, without its source: no row lost or doubled."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from archives import rows_of
from conftest import Carspotter

from carspotter.card import parse_card
from carspotter.errors import UsageError
from carspotter.label import Request, Settings, label_archive
from carspotter.label.job import Recogniser
from carspotter.label.work import Work

CHUNK = 20
PHOTOS = 600


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(archives.many(tmp_path_factory.mktemp("source"), PHOTOS))


@pytest.fixture(scope="module")
def whole(source: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes of it where nothing happens."""
    out = tmp_path_factory.mktemp("whole") / "results.csv"
    label_archive(Request((str(source),), out, Recogniser(str(model))), Settings(chunk=CHUNK))
    return out


def command(source: Path | str, out: Path, model: Path, *more: str) -> list[str]:
    call = ["label", str(source), "--out", str(out), "--model", str(model), "--chunk", str(CHUNK)]
    return [sys.executable, "-m", "carspotter", *call, "--json", *more]


def parts(out: Path) -> list[Path]:
    return sorted((out.with_name(f"{out.name}.work") / "parts").glob("*.parquet"))


def stopped_by(number: signal.Signals, source: Path, out: Path, model: Path) -> tuple[int, str]:
    """Begin, and send a signal when a few parts are finished; gives exit code and stderr."""
    run = subprocess.Popen(command(source, out, model), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len(parts(out)) < 3 and time.monotonic() < until:
        assert run.poll() is None, run.stderr
        time.sleep(0.005)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert not out.exists()
    assert 3 <= len(parts(out)) < PHOTOS / CHUNK
    return run.returncode, err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_run_goes_on(
    number: signal.Signals,
    source: Path,
    whole: Path,
    model: Path,
    tmp_path: Path,
    carspotter_here: Carspotter,
) -> None:
    out = tmp_path / "results.csv"
    code, err = stopped_by(number, source, out, model)
    if number == signal.SIGINT:
        assert code == 130
        assert err == (
            f"carspotter: interrupted; what is finished is kept in {out}.work: go on by --resume\n"
        )
    finished = {file: file.stat().st_mtime_ns for file in parts(out)}
    call = command(source, out, model)[3:]
    refused = carspotter_here(*call)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    assert {file: file.stat().st_mtime_ns for file in parts(out)} == finished
    done = carspotter_here(*call, "--resume")
    assert json.loads(done.stdout)["new"] == PHOTOS - CHUNK * len(finished)
    assert rows_of(out) == rows_of(whole)
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv", "results.csv.about.json"]
    again = carspotter_here(*call, "--resume")
    assert json.loads(again.stdout)["new"] == 0


def test_a_part_that_the_disk_spoilt_is_made_again(
    source: Path, whole: Path, model: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    out = tmp_path / "results.csv"
    stopped_by(signal.SIGKILL, source, out, model)
    kept = len(parts(out))
    parts(out)[1].write_bytes(parts(out)[1].read_bytes()[:-9])
    done = carspotter_here(*command(source, out, model, "--resume")[3:])
    assert json.loads(done.stdout)["new"] == PHOTOS - CHUNK * (kept - 1)
    assert rows_of(out) == rows_of(whole)


def test_unfinished_and_finished_work_is_safe_from_other_jobs(
    source: Path, model: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    card = parse_card(tiny_model.card().to_json(), "tiny")
    other = tiny_model.write(tmp_path / "other.onnx", card.to_json().replace("tiny", "other"))
    red = tmp_path / "red.png"
    tiny_model.plain(tiny_model.RED).save(red)
    out = tmp_path / "results.csv"
    stopped_by(signal.SIGKILL, source, out, model)
    for finished in (False, True):
        if finished:
            carspotter_here(*command(source, out, model, "--resume")[3:])
        kept = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
        for call, message in (
            (command(source, out, other, "--resume"), "is of another model, tiny"),
            (command(red, out, model, "--resume"), "is of another source"),
            (command(source, out, model, "--resume", "--crop", "none"), "other options (crop)"),
        ):
            done = carspotter_here(*call[3:])
            assert done.returncode == 2
            assert message in done.stderr
            assert str(out) in done.stderr
        assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == kept


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_that_is_no_result_stays(
    ending: str, source: Path, model: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    out = tmp_path / f"results.{ending}"
    out.write_text("mine")
    for more, message in (((), "exists already"), (("--resume",), "not of carspotter label")):
        done = carspotter_here(*command(source, out, model, *more)[3:])
        assert done.returncode == 2
        assert message in done.stderr
        assert out.read_text() == "mine"


def test_two_at_a_time_do_not_meet(source: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    request = Request((str(source),), out, Recogniser(str(model)))
    refused = []

    def meet(done: int, total: int | None) -> None:
        if done == 3 * CHUNK:
            with pytest.raises(UsageError, match="another process works on it"):
                label_archive(request, Settings(resume=True))
            refused.append(done)

    assert label_archive(request, Settings(chunk=CHUNK), meet).photos == PHOTOS
    assert refused


def test_a_second_leaves_the_first_alone_that_still_plans(
    source: Path, model: Path, tmp_path: Path
) -> None:
    request = Request((str(source),), tmp_path / "results.csv", Recogniser(str(model)))
    work = Work(request.out)
    with work.locked():
        work.parts.mkdir()
        with pytest.raises(UsageError, match="another process works on it"):
            label_archive(request)
        assert work.parts.is_dir()


def test_a_folder_that_has_no_locks_is_not_taken_for_a_busy_one(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*of_file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    request = Request((str(source),), tmp_path / "results.csv", Recogniser(str(model)))
    with pytest.raises(OSError, match=r"csv\.work: files cannot be locked there \(No locks"):
        label_archive(request)


@pytest.mark.parametrize(
    "form",
    [archives.as_folder, archives.as_binary_column, archives.as_tar, archives.as_zip],
    ids=lambda form: form.__name__,
)
def test_a_source_that_vanishes_half_way(
    form: Callable[[Path], str], model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "source"
    place.mkdir()
    request = Request((form(place),), tmp_path / "results.parquet", Recogniser(str(model)))

    def vanish(done: int, total: int | None) -> None:
        assert total == len(archives.PHOTOS)
        if done == 1:
            shutil.rmtree(place)

    summary = label_archive(request, Settings(chunk=1), vanish)
    assert summary.photos == len(archives.PHOTOS)
    rows = rows_of(request.out)
    assert rows[0]["level"] == "exact"
    # A parquet file is read two photos at a time.
    assert {row["error_code"] for row in rows[2:]} <= {"not_found", "unreadable"}
    assert all(row["level"] is None for row in rows[2:])


@pytest.mark.parametrize(("rows", "group"), [(4, 1), (12, 4)], ids=["fewer", "more"])
def test_a_parquet_file_that_gets_other_rows_half_way(
    rows: int, group: int, model: Path, tmp_path: Path
) -> None:
    file = Path(archives.as_binary_column(tmp_path))  # six photos, in groups of two
    photos = pq.read_table(file).column("picture").to_pylist()
    request = Request((str(file),), tmp_path / "results.parquet", Recogniser(str(model)))

    def rewrite(done: int, total: int | None) -> None:
        if done == 1:
            file.unlink()
            other = pa.table({"picture": (photos * 2)[:rows]})
            pq.write_table(other, file, row_group_size=group)

    assert label_archive(request, Settings(chunk=1), rewrite).photos == len(photos)
    found = rows_of(request.out)
    assert [row["photo"] for row in found] == [f"{file}::{n}" for n in range(len(photos))]
    short = ["fewer rows than when the work was planned" in (row["error"] or "") for row in found]
    assert short == [False, False, False, rows == 4, False, rows == 4]


def test_a_target_that_cannot_be_written(source: Path, model: Path, carspotter: Carspotter) -> None:
    out = Path("/sys/results.csv")
    if not out.parent.is_dir():
        pytest.skip("no /sys here, in which even root cannot make files")
    done = carspotter(*command(source, out, model)[3:])
    assert done.returncode == 1
    assert done.stderr.startswith(f"carspotter: {out}: cannot be written there (")


def test_results_that_are_too_large_for_the_disk(
    source: Path, whole: Path, model: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    """All parts fit, the results do not: nothing is looked at again."""
    out = tmp_path / "results.csv"
    most = whole.stat().st_size // 2
    done = subprocess.run(
        command(source, out, model),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"carspotter: {out}: cannot be written (")
    assert f"all {PHOTOS} photos are done" in done.stderr
    assert not out.exists()
    again = carspotter_here(*command(source, out, model, "--resume")[3:])
    assert json.loads(again.stdout)["new"] == 0
    assert rows_of(out) == rows_of(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if os.name == "nt" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(
    small_disk: Path, source: Path, whole: Path, model: Path, carspotter: Carspotter
) -> None:
    earlier = small_disk / "earlier.csv"
    earlier.write_text("earlier results")
    out = small_disk / "results.csv"
    done = carspotter(*command(source, out, model)[3:])
    assert done.returncode == 1
    assert "cannot be written (" in done.stderr
    assert "No space left" in done.stderr
    assert "go on by --resume" in done.stderr
    assert not out.exists()
    assert earlier.read_text() == "earlier results"
    kept = len(parts(out))
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = carspotter(*command(source, out, model, "--resume")[3:])
    assert json.loads(again.stdout)["new"] == PHOTOS - CHUNK * kept
    assert rows_of(out) == rows_of(whole)

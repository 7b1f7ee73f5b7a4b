"""`carspotter data download`, against hubs on this machine."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Carspotter
from hub_server import Hub, serving
from test_layouts import write_torchvision

from carspotter.data import open_data_set
from carspotter.data.download import SOURCES, Source, class_counts
from carspotter.data.index import fingerprint
from carspotter.errors import DataError

NAME = "stanford-cars"

CHUNK = 1024 * 1024
"""Bytes that Kaggle's client writes at once."""

# The command line, with a small data set in the place of the real one; Kaggle's client knows no
# variable for its server.
RUNNER = """
import json, resource, sys
from carspotter.data import download

source, url, largest = json.loads(sys.argv.pop(1))
if largest is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
download.SOURCES = {"stanford-cars": download.Source(**source)}
if "kaggle" in sys.argv:
    import kagglesdk.kaggle_env as kaggle
    kaggle._env_to_endpoint[kaggle.KaggleEnv.PROD] = url
from carspotter.cli import main
main()
"""


def source_of(root: Path) -> Source:
    """What a data set is when it is whole."""
    data = open_data_set(root)
    pictures = {split: len(data.split(split)) for split in ("train", "test")}
    return Source(
        name=NAME,
        huggingface=SOURCES[NAME].huggingface,
        kaggle=SOURCES[NAME].kaggle,
        pictures=pictures,
        classes=len({p.label for p in data.pictures}),
        class_counts=class_counts(data),
        fingerprint=fingerprint(data.pictures),
    )


def environment(url: str, home: Path) -> dict[str, str]:
    """Without the credentials and caches of whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "KAGGLE", "HTTP", "http", "ALL_PROXY", "all_proxy"))
    }
    own = {"HOME": str(home), "HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "NO_PROXY": "*"}
    return {**kept, **own}


@dataclasses.dataclass(frozen=True)
class Call:
    """Runs `data download` with the small data set."""

    url: str
    source: Source
    home: Path

    def command(self, to: Path, *options: str, largest: int | None = None) -> list[str]:
        about = json.dumps([dataclasses.asdict(self.source), self.url, largest])
        return [
            *(sys.executable, "-c", RUNNER, about),
            *("data", "download", NAME, "--to", str(to), *options),
        ]

    def __call__(
        self, to: Path, *options: str, largest: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(to, *options, largest=largest),
            env=environment(self.url, self.home),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a call failed with."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("carspotter: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def hub(drawn_data: Path) -> Iterator[Hub]:
    files = {f"data/{file.name}": file.read_bytes() for file in (drawn_data / "data").iterdir()}
    # The real repository has distorted copies of the test pictures; nobody asked for them.
    files["data/contrast-00000-of-00001.parquet"] = b"PAR1"
    files["README.md"] = b"# cars\n"
    with serving(Hub(files)) as hub:
        yield hub


@pytest.fixture
def call(hub: Hub, drawn_data: Path, tmp_path: Path) -> Call:
    return Call(hub.url, source_of(drawn_data), tmp_path / "home")


# --- the Hugging Face hub ----------------------------------------------------------------------


def test_complete_download(call: Call, hub: Hub, drawn_data: Path, tmp_path: Path) -> None:
    to = tmp_path / "some" / "cars"
    done = call(to)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{to}: stanford-cars, 72 train and 24 test pictures of 3 classes, verified\n"
    )
    assert {path.name for path in to.iterdir()} == {"README.md", "data"}
    there = {file.name: file.read_bytes() for file in (to / "data").iterdir()}
    assert there == {file.name: file.read_bytes() for file in (drawn_data / "data").iterdir()}
    assert fingerprint(open_data_set(to).pictures) == call.source.fingerprint

    hub.asked.clear()
    again = call(to, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == {
        "data": str(to),
        "layout": "huggingface",
        "pictures": {"train": 72, "test": 24},
        "classes": 3,
        "fingerprint": call.source.fingerprint,
    }
    assert hub.asked == []


def test_interrupted_download_goes_on(call: Call, hub: Hub, tmp_path: Path) -> None:
    to, last = tmp_path / "cars", "data/train-00001-of-00002.parquet"
    hub.stalls.add(last)
    with subprocess.Popen(
        call.command(to),
        env=environment(hub.url, call.home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while len(list(to.rglob("data/*.parquet"))) < 3 or not any(
                last in line for line in hub.fetched()
            ):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.3)  # what has come is noted a moment after it has its name
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert visible(to) == set()
    with pytest.raises(DataError, match="no known layout"):
        open_data_set(to)

    hub.stalls.clear()
    hub.asked.clear()
    done = call(to)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition("/")[2] for line in hub.fetched()] == [Path(last).name]
    assert {path.name for path in to.iterdir()} == {"README.md", "data"}


def test_damaged_file_is_refused_and_fetched_again(call: Call, hub: Hub, tmp_path: Path) -> None:
    to, damaged = tmp_path / "cars", "data/test-00001-of-00002.parquet"
    hub.damages.add(damaged)
    assert f"{damaged} came damaged" in refused(call(to))
    assert visible(to) == set()

    hub.damages.clear()
    hub.refuses = 503  # then what has come so far must not pass for all there is
    assert "answers with error 503" in refused(call(to))
    hub.refuses = None
    hub.asked.clear()
    done = call(to)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition("/")[2] for line in hub.fetched()] == [Path(damaged).name]


def test_another_data_set_is_refused(carspotter: Carspotter, call: Call, tmp_path: Path) -> None:
    to = tmp_path / "cars"
    done = carspotter(*("data", "download", NAME, "--to", to), env=environment(call.url, call.home))
    said = refused(done)
    assert "72 train and 24 test pictures instead of 8,144 train and 8,041 test pictures" in said
    assert str(to / ".carspotter-download") in said
    assert visible(to) == set()


def test_folder_of_something_else_is_left_alone(call: Call, hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "photos"
    to.mkdir()
    (to / "README.md").write_text("mine")
    assert f"{to} is not empty, and not stanford-cars" in refused(call(to))
    assert {path.name for path in to.iterdir()} == {"README.md"}
    assert (to / "README.md").read_text() == "mine"
    assert hub.asked == []


@pytest.mark.parametrize("origin", ["huggingface", "kaggle"])
def test_no_network(call: Call, tmp_path: Path, origin: str) -> None:
    with socket.socket() as taken:  # bound, and not listening: nothing answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        to = tmp_path / "cars"
        said = refused(dataclasses.replace(call, url=url)(to, "--from", origin))
    assert "cannot be reached" in said
    assert not to.exists()


def test_a_folder_that_was_there_stays(call: Call, hub: Hub, tmp_path: Path) -> None:
    hub.refuses = 404
    assert "has no tanganke/stanford_cars; try the other --from" in refused(call(tmp_path))
    assert tmp_path.is_dir()


@pytest.mark.parametrize(("origin", "hint"), [("huggingface", "HF_TOKEN"), ("kaggle", "KAGGLE_")])
def test_missing_credentials(call: Call, hub: Hub, tmp_path: Path, origin: str, hint: str) -> None:
    hub.refuses = 401
    said = refused(call(tmp_path / "cars", "--from", origin))
    assert "who asks (401)" in said
    assert hint in said


def test_no_room(call: Call, hub: Hub, tmp_path: Path) -> None:
    hub.inflates.add("data/train-00000-of-00002.parquet")
    assert "1,000,000,000.0 GB are to come" in refused(call(tmp_path / "cars"))
    assert hub.fetched() == []


@pytest.mark.parametrize("origin", ["huggingface", "kaggle"])
def test_disk_that_gets_full(call: Call, hub: Hub, tmp_path: Path, origin: str) -> None:
    hub.archive = bytes(100_000)
    said = refused(call(tmp_path / "cars", "--from", origin, largest=20_000))
    assert "the disk is full" in said
    assert visible(tmp_path / "cars") == set()


def test_target_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for to in (tmp_path / "file", tmp_path / "file" / "cars"):
        assert f"{to} cannot be written" in refused(call(to))
    assert (tmp_path / "file").read_text() == "mine"


def test_unknown_name_and_hub(carspotter: Carspotter, tmp_path: Path) -> None:
    done = carspotter("data", "download", "lorries", "--to", tmp_path / "cars")
    assert "lorries: no data set that can be fetched; there is: stanford-cars" in refused(done)
    done = carspotter("data", "download", NAME, "--to", tmp_path / "cars", "--from", "attic")
    assert done.returncode == 2
    assert "attic" in done.stderr
    assert not (tmp_path / "cars").exists()


@pytest.mark.parametrize(
    ("missing", "origin", "said"),
    [
        ("huggingface_hub", "huggingface", "data needs more packages"),
        ("kagglehub", "kaggle", "data download --from kaggle needs more packages"),
    ],
)
def test_client_that_is_not_installed(tmp_path: Path, missing: str, origin: str, said: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from carspotter.cli import main; main()"
    arguments = ("data", "download", NAME, "--to", tmp_path / "cars", "--from", origin)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused(done) == f"carspotter: {said}: pip install 'carspotter[train]'\n"
    assert not (tmp_path / "cars").exists()


# --- Kaggle ------------------------------------------------------------------------------------


@pytest.fixture
def kaggle(hub: Hub, tmp_path: Path) -> Call:
    root = tmp_path / "whole"
    write_torchvision(root / "stanford_cars")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, file.relative_to(root))
        # More than the client takes at once.
        archive.writestr("stanford_cars/extra.bin", bytes(3 * CHUNK))
    hub.archive = content.getvalue()
    return Call(hub.url, source_of(root), tmp_path / "home")


def test_kaggle_download(kaggle: Call, hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "cars"
    done = kaggle(to, "--from", "kaggle")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{to}: stanford-cars, 6 train and 3 test pictures of 3 classes, verified\n"
    )
    assert done.stderr == ""
    assert {path.name for path in to.iterdir()} == {"stanford_cars"}
    assert open_data_set(to).layout == "torchvision"
    assert not (kaggle.home / ".cache" / "kagglehub").exists()


def test_interrupted_kaggle_download_goes_on(kaggle: Call, hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "cars"
    hub.cuts = True
    assert "Kaggle cannot be reached" in refused(kaggle(to, "--from", "kaggle"))
    assert visible(to) == set()
    hub.cuts = False
    hub.asked.clear()
    done = kaggle(to, "--from", "kaggle")
    assert done.returncode == 0, done.stderr
    assert f"GET /storage/archive bytes={CHUNK}-" in hub.fetched()
    assert open_data_set(to).layout == "torchvision"


def test_damaged_kaggle_archive(kaggle: Call, hub: Hub, tmp_path: Path) -> None:
    to = tmp_path / "cars"
    hub.damages.add("archive")
    assert "came damaged and was removed" in refused(kaggle(to, "--from", "kaggle"))
    assert visible(to) == set()
    hub.damages.clear()
    assert kaggle(to, "--from", "kaggle").returncode == 0


def test_broken_kaggle_archive(kaggle: Call, hub: Hub, tmp_path: Path) -> None:
    whole, to = hub.archive, tmp_path / "cars"
    hub.archive = whole[:-200]  # with a checksum that fits
    assert "came damaged and was removed" in refused(kaggle(to, "--from", "kaggle"))
    hub.archive = whole
    assert kaggle(to, "--from", "kaggle").returncode == 0

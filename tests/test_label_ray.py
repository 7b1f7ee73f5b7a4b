"""`carspotter label --engine ray`: the same rows, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import psutil
import pytest
from archives import rows_of
from conftest import Carspotter

from carspotter.label import Request, Settings, label_archive
from carspotter.label.job import Recogniser

pytestmark = [
    # Ray's own, of its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PHOTOS = 240
CHUNK = 5


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return archives.many(tmp_path_factory.mktemp("source"), PHOTOS)


@pytest.fixture(scope="module")
def whole(source: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine makes of it."""
    out = tmp_path_factory.mktemp("whole") / "results.parquet"
    label_archive(Request((source,), out, Recogniser(str(model))), Settings(chunk=CHUNK))
    return out


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes on this machine, with a core each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'carspotter[ray]'")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    cluster.add_node(**small)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def actors() -> list[psutil.Process]:
    """Processes of actors below this one."""
    every = psutil.Process().children(recursive=True)
    return [process for process in every if "MapWorker" in " ".join(process.cmdline())]


def test_one_flag_gives_the_same_rows(
    source: str, whole: Path, model: Path, tmp_path: Path, carspotter: Carspotter
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'carspotter[ray]'")
    out = tmp_path / "results.parquet"
    call = ("label", source, "--out", out, "--model", model, "--chunk", str(CHUNK))
    done = carspotter(*call, "--engine", "ray", "--actors", "2")
    assert done.returncode == 1, done.stderr
    assert rows_of(out) == rows_of(whole)
    assert not out.with_name("results.parquet.work").exists()


def test_an_actor_that_is_killed(
    nodes: Any, source: str, whole: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    killed: list[psutil.Process] = []

    def kill(done: int, total: int | None) -> None:
        assert total == PHOTOS
        if done and not killed:
            killed.extend(actors()[:1])
            killed[0].send_signal(signal.SIGKILL)

    settings = Settings("ray", ray_address=nodes.address, chunk=CHUNK, actors=2)
    summary = label_archive(Request((source,), out, Recogniser(str(model))), settings, kill)
    assert killed
    assert not killed[0].is_running()
    assert summary.photos == PHOTOS
    assert rows_of(out) == rows_of(whole)


def test_a_node_that_dies(
    nodes: Any, source: str, whole: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.parquet"
    lost = []

    def lose(done: int, total: int | None) -> None:
        if done and not lost:
            node = next(iter(nodes.worker_nodes))
            nodes.remove_node(node, allow_graceful=False)
            lost.append(node)

    settings = Settings("ray", ray_address=nodes.address, chunk=CHUNK, actors=2)
    summary = label_archive(Request((source,), out, Recogniser(str(model))), settings, lose)
    assert lost
    assert summary.photos == PHOTOS
    assert rows_of(out) == rows_of(whole)


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
sys.argv = ["carspotter", *sys.argv[2:]]
from carspotter.cli import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "engine", "what", "extra"),
    [
        ("ray", "ray", "label --engine ray", "ray"),
        ("pyarrow", "ray", "label", "ray"),  # which brings all that label needs
        ("pyarrow", "local", "label", "label"),
        ("rich.console", "local", "label", "label"),
    ],
)
def test_what_is_missing_is_named(
    missing: str, engine: str, what: str, extra: str, tmp_path: Path
) -> None:
    call = ["label", str(tmp_path), "--out", str(tmp_path / "r.csv"), "--engine", engine]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *call],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"carspotter: {what} needs more packages: pip install 'carspotter[{extra}]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_no_cluster_at_the_address(
    source: str, model: Path, tmp_path: Path, carspotter: Carspotter
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'carspotter[ray]'")
    out = tmp_path / "results.csv"
    call = ("label", source, "--out", out, "--model", model, "--engine", "ray")
    done = carspotter(*call, "--ray-address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "carspotter: --ray-address 127.0.0.1:1: no Ray there" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_reported_to_rays_makers() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'carspotter[ray]'")
    code = """
import carspotter.label.ray_engine
from ray._common.usage.usage_lib import usage_stats_enabled
print(usage_stats_enabled())
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"

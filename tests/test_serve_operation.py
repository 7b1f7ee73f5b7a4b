"""Starting, watching and ending the service."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest
from conftest import ROOT, Carspotter
from serve_process import Served, parts, photo, served, slow_photo, wait_for
from tiny_model import RED

from carspotter.serve.metrics import FOLDER, Metrics

RED_PNG = photo(RED)


def children(pid: int) -> set[int]:
    """The workers of a service: its children that serve."""
    found = set()
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie counts as none
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def test_sigterm_ends_it_once_what_it_took_is_answered(tmp_path: Path, model: Path) -> None:
    with (
        served(tmp_path, "--model", model, "--threads", "1") as service,
        ThreadPoolExecutor() as pool,
    ):
        heavy = parts(*[("slow.png", slow_photo())] * 4)
        first = pool.submit(service.client.post, "/v1/identify", files=heavy)
        wait_for(lambda: service.figure("carspotter_queue_requests") == 1)
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: any(line["message"] == "Shutting down" for line in service.lines()))
        with pytest.raises(httpx2.ConnectError), httpx2.Client(base_url=service.url) as new:
            new.get("/healthz")
        assert len(first.result().json()["results"]) == 4
        assert service.process.wait(30) == 0


def test_ctrl_c_ends_it_without_a_trace(tmp_path: Path, model: Path) -> None:
    for workers in ("1", "2"):
        with served(tmp_path, "--model", model, "--workers", workers) as service:
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(30) == 0
            assert "Traceback" not in service.log.read_text()


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(
    tmp_path: Path, model: Path
) -> None:
    with served(tmp_path, "--model", model, "--workers", "2") as service:
        wait_for(lambda: len(children(service.process.pid)) == 2)
        before = children(service.process.pid)
        answers: list[int] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    with httpx2.Client(base_url=service.url, timeout=120) as client:
                        answers.append(client.post("/v1/identify", content=RED_PNG).status_code)
                except httpx2.TransportError:
                    answers.append(0)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            os.kill(min(before), signal.SIGKILL)
            wait_for(lambda: len(children(service.process.pid) - before) == 1)
            wait_for(lambda: answers.count(200) > 20)
        finally:
            done.set()
            thread.join()
        lost = len(answers) - answers.count(200)
        assert lost <= 1  # the one that the dead worker was about
        # The dead one's figures are kept where they count, and left out where they are of now.
        text = service.client.get("/metrics").text
        assert re.search(r"^carspotter_queue_requests 0\.0$", text, re.MULTILINE)
        assert service.figure("carspotter_answers_total") > 20


def test_figures_are_those_of_all_workers(tmp_path: Path, model: Path) -> None:
    with served(tmp_path, "--model", model, "--workers", "2") as service:
        for _ in range(20):
            with httpx2.Client(base_url=service.url) as client:
                client.post("/v1/identify", content=RED_PNG)
        for _ in range(5):
            with httpx2.Client(base_url=service.url) as client:
                text = client.get("/metrics").text
            assert 'carspotter_answers_total{level="exact"} 20.0' in text
        folders = set(Path("/dev/shm").glob("carspotter-*"))
    if folders:
        assert not any(folder.exists() for folder in folders if _is_of(folder, service))


def test_a_folder_that_is_set_for_another_programs_figures_is_left_alone(
    tmp_path: Path, model: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with served(tmp_path, "--model", model, PROMETHEUS_MULTIPROC_DIR=str(other)) as service:
        service.client.post("/v1/identify", content=RED_PNG).raise_for_status()
        assert service.figure("carspotter_answers_total") == 1
    assert list(other.iterdir()) == []


def test_on_windows_no_signal_asks_whether_a_worker_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, each signal ends a process or is a Ctrl-C to it."""
    (tmp_path / f"gauge_livesum_{os.getpid()}.db").touch()
    sent = []
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *of: sent.append(of))
    Metrics()
    assert sent == []


def _is_of(folder: Path, service: Served) -> bool:
    """Whether a folder of figures has those of this service's workers."""
    return any(str(service.process.pid) in file.name for file in folder.glob("*.db"))


def test_a_port_that_is_taken_is_said(model: Path, carspotter: Carspotter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = carspotter("serve", "--port", str(port), "--model", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"carspotter: 127.0.0.1:{port}: cannot listen there (Address already in use); "
        "take another --host or --port\n"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--model", "nothing.onnx"), "nothing.onnx: neither a model file nor a shipped model"),
        (("--garage", "nothing.npz"), "nothing.npz: no such garage"),
        (("--allow-teaching",), "--allow-teaching needs --garage FILE"),
        (("--api-key-file", "nothing.txt"), "--api-key-file nothing.txt: cannot be read"),
        (("--deadline", "nan"), "--deadline nan: must be a finite number"),
        (("--upload-seconds", "inf"), "--upload-seconds inf: must be a finite number"),
        (("--rate", "often"), "--rate often: must read like 60/minute"),
        (("--host", "nowhere.invalid"), "nowhere.invalid:8000: cannot listen there"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_listens(
    carspotter: Carspotter, options: tuple[str, ...], says: str
) -> None:
    done = carspotter("serve", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"carspotter: {says}")
    assert done.stderr.count("\n") == 1


def test_the_environment_sets_what_options_do(tmp_path: Path, model: Path) -> None:
    key = tmp_path / "key.txt"
    key.write_text("0123456789abcdef\n")
    env = {
        "CARSPOTTER_MODEL": str(model),
        "CARSPOTTER_MAX_PHOTOS": "3",
        "CARSPOTTER_API_KEY_FILE": str(key),
        "CARSPOTTER_ORIGINS": "https://a.example https://b.example",
        "CARSPOTTER_ALLOW_HOSTS": "cars.a.example cars.b.example",
    }
    with served(tmp_path, **env) as service:
        headers = {"Authorization": "Bearer 0123456789abcdef", "Origin": "https://b.example"}
        answer = service.client.get("/v1/model", headers=headers)
        assert answer.json()["limits"]["max_photos"] == 3
        assert answer.headers["access-control-allow-origin"] == "https://b.example"
        asked = service.client.get("/v1/model", headers={**headers, "Host": "cars.b.example"})
        assert asked.status_code == 200


def test_a_model_that_breaks_later_is_waited_for(tmp_path: Path, model: Path) -> None:
    """A worker that is replaced while its model is broken lives, says so, and comes back."""
    file = tmp_path / "model.onnx"
    whole = model.read_bytes()
    file.write_bytes(whole)
    with served(tmp_path, "--model", file, "--workers", "2") as service:
        wait_for(lambda: len(children(service.process.pid)) == 2)
        before = children(service.process.pid)
        file.write_bytes(whole[:1000])
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(children(service.process.pid) - before) == 2)
        with httpx2.Client(base_url=service.url, timeout=120) as client:
            assert client.get("/healthz").status_code == 200
        with httpx2.Client(base_url=service.url, timeout=120) as client:
            answer = client.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "model_unusable")
            assert client.post("/v1/identify", content=RED_PNG).status_code == 503
        file.write_bytes(whole)

        def well() -> bool:
            with httpx2.Client(base_url=service.url, timeout=120) as client:
                return client.get("/readyz").status_code == 200

        wait_for(well)


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
sys.argv = ["carspotter", "serve"]
from carspotter.cli import main
main()
"""


@pytest.mark.parametrize(
    "package", ["fastapi", "uvicorn", "python_multipart", "prometheus_client", "limits"]
)
def test_without_its_extra_it_says_what_to_install(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, package], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "carspotter: serve needs more packages: pip install 'carspotter[serve]'\n"
    )


def test_every_option_is_in_the_docs(carspotter: Carspotter) -> None:
    text = carspotter("serve", "--help").stdout
    options = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--help"}
    assert len(options) > 15
    told = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert {option for option in options if f"`{option}" not in told} == set()


def test_answers_on_a_kept_connection_come_as_fast_as_on_a_new_one(
    tmp_path: Path, model: Path
) -> None:
    """Head and body of an answer are two writes: the second must not wait for the client to
    acknowledge the first, which on a kept connection it does after 40 ms."""

    def seconds(ask: Callable[[], httpx2.Response]) -> float:
        taken = []
        for _ in range(30):
            began = time.perf_counter()
            ask().raise_for_status()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    with served(tmp_path, "--model", model) as service:
        url = f"{service.url}/v1/identify"
        kept = seconds(lambda: service.client.post("/v1/identify", content=RED_PNG))
        new = seconds(lambda: httpx2.post(url, content=RED_PNG, trust_env=False))
        assert kept < 1.5 * new

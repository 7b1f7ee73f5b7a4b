"""A real Prometheus, with the configuration that is shipped, scrapes the service."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from conftest import ROOT
from page_visit import free_port
from serve_process import parts, photo, served, wait_for
from tiny_model import RED

SHIPPED = ROOT / "deploy" / "prometheus.yaml"


def test_prometheus_has_the_counters_of_all_workers(tmp_path: Path, model: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no Prometheus on this machine")
    config, port = tmp_path / "prometheus.yaml", free_port()
    with served(tmp_path, "--model", model, "--workers", "2") as service:
        host, at = service.place
        text = SHIPPED.read_text()
        assert "carspotter:8000" in text
        assert "scrape_interval: 15s" in text
        config.write_text(
            text.replace("carspotter:8000", f"{host}:{at}").replace("interval: 15s", "interval: 1s")
        )
        for _ in range(6):  # a connection each: both workers get some
            answer = httpx2.post(
                f"{service.url}/v1/identify", files=parts(("red.png", photo(RED))), timeout=60
            )
            answer.raise_for_status()
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (
            (tmp_path / "prometheus.log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                address = f"http://127.0.0.1:{port}/api/v1/query"

                def said(query: str) -> list[float]:
                    try:
                        found = httpx2.get(address, params={"query": query}, timeout=10)
                        found.raise_for_status()
                    except httpx2.HTTPError:
                        return []
                    return [float(one["value"][1]) for one in found.json()["data"]["result"]]

                asked = 'carspotter_requests_total{path="/v1/identify",status="200"}'
                wait_for(lambda: said(f"sum({asked})") == [6])
                assert said("sum(carspotter_answers_total)") == [6]
                assert said('sum(carspotter_request_seconds_count{path="/v1/identify"})') == [6]
                assert said("max(carspotter_queue_requests)") == [0]
                assert said("up") == [1]
            finally:
                process.terminate()

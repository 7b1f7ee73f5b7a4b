"""`carspotter serve` in a process of its own, watched from outside."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil


@dataclass
class Service:
    """A running service.

    Attributes:
        host: where it listens.
        port: where it listens.
        process: the command's.
        log: its stderr.
    """

    host: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        parent = psutil.Process(self.process.pid)
        found = []
        for child in parent.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
        return found or [parent]

    def starts(self) -> int:
        """How many workers have begun to serve since it was started."""
        return self.log.read_text().count("Application startup complete")

    def memory(self) -> float:
        """MiB that the workers hold together (resident)."""
        return sum(process.memory_info().rss for process in self.workers()) / (1 << 20)

    def handles(self) -> int:
        """Files and sockets that the workers hold together."""
        return sum(process.num_fds() for process in self.workers())

    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.port}/readyz", timeout=10):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def running(
    options: list[str], *, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """The service, ready, until the block ends; its stderr goes into the log."""
    command = [sys.executable, "-m", "carspotter", "serve", "--port", "0", *options]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **(env or {})}
        )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline().decode())
        if found is None:
            raise RuntimeError(f"the service did not start:\n{log.read_text()}")
        parts = urlsplit(found[0])
        assert parts.hostname is not None
        assert parts.port is not None
        service = Service(parts.hostname, parts.port, process, log)
        deadline = time.monotonic() + 60
        while not service.is_ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the service is not ready:\n{log.read_text()}")
            time.sleep(0.1)
        yield service
    finally:
        process.stdout.close()
        process.terminate()
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

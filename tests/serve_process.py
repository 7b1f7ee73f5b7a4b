"""`carspotter serve` in a process of its own, for the tests of the service."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from PIL import Image
from tiny_model import plain


@dataclass
class Served:
    """A running service.

    Attributes:
        url: its address, without a slash at the end.
        process: the command's.
        log: its stderr.
        client: speaks to it.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    client: httpx2.Client = field(repr=False)

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def lines(self) -> list[dict[str, Any]]:
        """The log, each line as JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def figure(self, name: str) -> float:
        """A sum over one metric's labels; 0 where it is not there yet."""
        text = self.client.get("/metrics").text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))


@contextlib.contextmanager
def served(folder: Path, *options: str | Path, **env: str) -> Iterator[Served]:
    """The service, ready, until the block ends."""
    log = folder / f"{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "carspotter", "serve", "--port", "0", *map(str, options)]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **env}
        )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+[0-9]", process.stdout.readline().decode())
        assert found, log.read_text()
        with httpx2.Client(base_url=found[0], timeout=120, trust_env=False) as client:
            client.get("/readyz").raise_for_status()
            yield Served(found[0], process, log, client)
    finally:
        process.stdout.close()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def photo(colour: tuple[int, int, int], size: tuple[int, int] = (48, 40)) -> bytes:
    buffer = io.BytesIO()
    plain(colour, size).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def slow_photo() -> bytes:
    """A small file that takes a good part of a second: 49 megapixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000), (255, 0, 0)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def parts(*photos: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Files as httpx takes them: parts named photo."""
    return [("photo", (name, content)) for name, content in photos]


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} seconds")
        time.sleep(0.05)

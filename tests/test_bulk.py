"""Many photos: memory stays flat, and what is interrupted leaves whole results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import encoded
from tiny_model import RED, plain


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("photo") / "red.jpg"
    file.write_bytes(encoded(plain(RED, (320, 240))))
    return file


def peak_memory(model: Path, photo: Path, count: int) -> int:
    """Of a run over so many photos; in whatever unit the system counts it."""
    command = [sys.executable, "-m", "carspotter", "identify", "--json", "--model", str(model)]
    process = subprocess.Popen([*command, *[str(photo)] * count], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="no one counts the memory of a process here")
def test_ten_times_the_photos_take_no_more_memory(model: Path, photo: Path) -> None:
    few, many = (peak_memory(model, photo, count) for count in (400, 4000))
    # 3,600 more photos have 830 MB of pixels.
    assert many < 1.15 * few


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize("style", ["--json", "--csv"])
def test_an_interrupt_leaves_whole_results(
    model: Path, photo: Path, tmp_path: Path, style: str
) -> None:
    command = [sys.executable, "-m", "carspotter", "identify", style, "--model", str(model)]
    pipe = tmp_path / "later.jpg"  # nothing is ever written to it: the run cannot end by itself
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    process = subprocess.Popen(
        [*command, *[str(photo)] * 100, str(pipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # `communicate` would not see what `readline` had read ahead
    )
    assert process.stdout is not None
    read = [process.stdout.readline() for _ in range(20)] if style == "--json" else []
    if style == "--csv":
        read = [os.read(process.stdout.fileno(), 1)]
    process.send_signal(signal.SIGINT)
    os.close(held)  # whoever reads it gets its end
    rest, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    whole = b"".join(read) + rest
    assert whole.endswith(b"\n")
    lines = whole.decode().splitlines()
    if style == "--json":
        assert len(lines) >= 20
        assert all(json.loads(line)["answer"]["level"] == "exact" for line in lines)
    else:
        assert len({line.count(",") for line in lines}) == 1

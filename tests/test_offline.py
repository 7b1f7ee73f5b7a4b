"""Recognition speaks to no other host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

OPENED = """
import os, sys
import carspotter
carspotter.load(sys.argv[1])
place = "/proc/self/fd"
for number in os.listdir(place):
    path = os.path.join(place, number)
    if os.path.exists(path) and "onnxruntime.db" in os.readlink(path):
        sys.exit(os.readlink(path))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux alone tells what is open")
def test_the_runtime_collects_nothing_for_its_maker(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ORT_DISABLE_TELEMETRY", "CI"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", OPENED, str(model)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

"""What tests of `carspotter identify` check of every answer."""

from __future__ import annotations

import json
import subprocess
from typing import Any

RESULT_KEYS = {"photo", "answer", "candidates", "box", "others", "model", "error"}
PART_KEYS = {"label", "make", "model", "body", "year", "confidence"}


def lines(done: subprocess.CompletedProcess[str], exit_code: int = 0) -> list[dict[str, Any]]:
    """The results of `--json`, each checked to have the shape of the contract."""
    assert done.returncode == exit_code, done.stderr
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for result in found:
        assert set(result) == RESULT_KEYS
        assert set(result["model"]) == {"name", "version", "sha256"}
        assert all(set(candidate) == PART_KEYS for candidate in result["candidates"])
        assert (result["answer"] is None) != (result["error"] is None)
        if result["answer"] is not None:
            assert set(result["answer"]) == PART_KEYS | {"level"}
        else:
            assert set(result["error"]) == {"code", "message"}
            assert result["error"]["message"].startswith(f"{result['photo']}: ")
    return found


def photos(found: list[dict[str, Any]]) -> list[str]:
    return [result["photo"] for result in found]


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a wrong call prints: one line on stderr, no traceback, nothing on stdout."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("carspotter: ")
    assert done.stderr.count("\n") == 1
    return done.stderr

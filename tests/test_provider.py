"""--provider: what computes is named, and what is not there is said, with what to install."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest
from conftest import Carspotter

import carspotter as package
from carspotter import UsageError
from carspotter.session import PROVIDERS

THERE = [name for name, (full, _) in PROVIDERS.items() if full in ort.get_available_providers()]
GONE = [name for name in PROVIDERS if name not in THERE]


@pytest.mark.parametrize("name", THERE)
def test_each_that_is_there_answers_alike(
    model: Path, colours: Path, carspotter: Carspotter, name: str
) -> None:
    plain = carspotter("identify", colours, "--model", model, "--json")
    done = carspotter("identify", colours, "--model", model, "--json", "--provider", name)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(done.stdout.splitlines(), plain.stdout.splitlines(), strict=True):
        assert json.loads(ours)["answer"]["label"] == json.loads(theirs)["answer"]["label"]


@pytest.mark.parametrize("name", GONE)
def test_one_that_is_not_there_says_what_to_install(
    model: Path, colours: Path, carspotter: Carspotter, name: str
) -> None:
    with pytest.raises(UsageError) as raised:
        package.load(model, provider=name)
    said = str(raised.value)
    assert name in said
    assert PROVIDERS[name][1] in said
    assert all(there in said for there in THERE)
    if name != GONE[0]:
        return
    for arguments in (("identify", colours), ("bench",), ("serve", "--port", "0")):
        done = carspotter(*arguments, "--model", model, "--provider", name)
        assert done.returncode == 2
        assert done.stderr.strip().endswith(said)


def test_one_that_nobody_knows(model: Path) -> None:
    with pytest.raises(UsageError, match="abacus: must be one of cpu, cuda"):
        package.load(model, provider="abacus")


def test_one_that_does_not_start_is_not_passed_over(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As onnxruntime-gpu does where CUDA's libraries are missing: it goes on with the CPU."""
    there = [*ort.get_available_providers(), PROVIDERS["cuda"][0]]
    opened = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda data, options, _: opened(data, options, [PROVIDERS["cpu"][0]]),
    )
    with pytest.raises(UsageError, match="cuda: it does not start"):
        package.load(model, provider="cuda")

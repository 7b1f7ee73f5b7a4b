"""carspotter beside what users would pick instead: the same photos, by turns, in one run."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import tempfile
import venv
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carspotter.bench.measure import PHOTOS, Sizes, child, p99, run_process, timed
from carspotter.bench.photos import write_photos
from carspotter.errors import CarspotterError, UsageError
from carspotter.files import cache_folder

PEERS = {
    "plain_onnxruntime": "a plain onnxruntime script",
    "timm_eager": "timm, eager",
    "timm_compile": "timm, torch.compile",
    "transformers_pipeline": "Transformers pipeline",
    "ultralytics_classify": "Ultralytics classify",
    "seed_b3": "EfficientNet-B3, eager",
}
"""By name: what people call them."""

OURS = "carspotter"

_FOLDER = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Contest:
    """What one contender did with photos of one size.

    Attributes:
        contender: carspotter, or a peer's name.
        megapixels: of each photo.
        cold_seconds: a process of its own that answers one photo.
        p50_ms: one photo after the other, warm, from the path to the answer.
        p99_ms: likewise.
        photos_per_second: of many, as its documentation does it.
        peak_mib: the most memory that the process with many held; workers of its own not counted.
        error: why there are no figures; empty: there are.
    """

    contender: str
    megapixels: float
    cold_seconds: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    photos_per_second: float | None = None
    peak_mib: float | None = None
    error: str = ""

    def to_dict(self, ours: Contest) -> dict[str, Any]:
        """Plain values, with `times_ours`: how many times carspotter's each figure is."""
        times = {
            key: theirs / own
            for key, theirs in asdict(self).items()
            if key not in ("contender", "megapixels", "error")
            and theirs is not None
            and (own := getattr(ours, key))
        }
        return {**asdict(self), "times_ours": times}


def peers_python(python: str | None, step: Callable[[str], None]) -> str:
    """The Python of the peers' environment; without one, an environment is made in the cache.

    Raises:
        UsageError: there is no such Python.
        CarspotterError: the peers' packages cannot be installed.
    """
    if python is not None:
        if not os.access(python, os.X_OK):
            raise UsageError(f"--peers-python {python}: no program; name the environment's python")
        return python
    needed = _FOLDER / "requirements.txt"
    folder = cache_folder() / f"peers-{hashlib.sha256(needed.read_bytes()).hexdigest()[:12]}"
    found = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / "ready").is_file():
        step(f"{folder}: the peers are installed, once (several GB)")
        venv.create(folder, clear=True, with_pip=True)
        try:
            run_process([str(found), "-m", "pip", "install", "-q", "-r", str(needed)])
        except CarspotterError as error:
            raise CarspotterError(
                f"{folder}: the peers cannot be installed ({error}); install {needed} into an "
                "environment of your own and name it by --peers-python"
            ) from error
        (folder / "ready").touch()
    return str(found)


def contest(
    sizes: Sizes,
    peers: Sequence[str],
    python: str,
    *,
    model: str | None,
    onnx: Path,
    threads: int | None,
    provider: str,
    step: Callable[[str], None] = lambda what: None,
) -> list[Contest]:
    """Measure carspotter and peers by turns; takes minutes, and much longer with torch.compile.

    Args:
        sizes: how much.
        peers: of `PEERS`.
        python: has what they need.
        model: as for `load`; no detector looks for cars, as the peers have none.
        onnx: its file, for the plain script.
        threads: as for `load`, and of each peer.
        provider: as for `load`; peers compute on the CPU.
        step: hears what is measured next.

    Returns:
        carspotter first, then the peers, for each size; one that failed has `error`.

    Raises:
        CarspotterError: carspotter itself failed.
    """
    ours = {"model": model, "detector": "none", "threads": threads, "provider": provider}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in sizes.megapixels:
            photos = [str(p) for p in write_photos(Path(folder), megapixels, PHOTOS)]
            task = {**ours, "photos": photos, "onnx": str(onnx)}
            running: list[_Contender] = [
                _Ours(OURS, task),
                *(_Peer(p, task, python) for p in peers),
            ]
            for number in range(sizes.rounds):
                for one in running:
                    step(f"{megapixels:g} megapixels, cold start {number + 1}: {one.name}")
                    one.start_cold()
            for one in running:
                step(f"{megapixels:g} megapixels, warm: {one.name}")
                one.measure(sizes)
            found += [one.result(megapixels) for one in running]
    failed = next((one for one in found if one.contender == OURS and one.error), None)
    if failed is not None:
        raise CarspotterError(failed.error)
    return found


class _Contender(ABC):
    """Collects what one contender does with photos of one size; after a failure, nothing more."""

    def __init__(self, name: str, task: dict[str, Any]) -> None:
        self.name, self._task = name, task
        self._cold: list[float] = []
        self._figures: dict[str, Any] = {}
        self._error = ""

    def start_cold(self) -> None:
        """Answer one photo in a process of its own."""
        self._try(lambda: self._cold.append(timed(self._cold_command())))

    def measure(self, sizes: Sizes) -> None:
        """Measure it warm."""
        self._try(lambda: self._measure(sizes))

    def result(self, megapixels: float) -> Contest:
        """All figures, or why there are none."""
        if self._error:
            return Contest(self.name, megapixels, error=self._error)
        return Contest(self.name, megapixels, statistics.median(self._cold), **self._figures)

    def _measure(self, sizes: Sizes) -> None:
        single = self._child({**self._task, "kind": "latency", "count": sizes.singles})["seconds"]
        bulk = self._child({**self._task, "kind": "bulk", "count": sizes.bulk})
        self._figures = {
            "p50_ms": 1000 * statistics.median(single),
            "p99_ms": 1000 * p99(single),
            "photos_per_second": bulk["per_second"],
            "peak_mib": bulk["peak_mib"],
        }

    def _try(self, work: Callable[[], None]) -> None:
        if self._error:
            return
        try:
            work()
        except CarspotterError as error:
            self._error = str(error)

    @abstractmethod
    def _cold_command(self) -> list[str]:
        """What answers one photo, in a process of its own."""

    @abstractmethod
    def _child(self, task: dict[str, Any]) -> dict[str, Any]:
        """What a process of its own measured."""


class _Ours(_Contender):
    def _cold_command(self) -> list[str]:
        flags = ["--detector", "none", "--json"]
        for key in ("model", "threads", "provider"):
            if self._task[key]:
                flags += [f"--{key}", str(self._task[key])]
        return [sys.executable, "-m", "carspotter", "identify", self._task["photos"][0], *flags]

    def _child(self, task: dict[str, Any]) -> dict[str, Any]:
        return child(task)


class _Peer(_Contender):
    def __init__(self, name: str, task: dict[str, Any], python: str) -> None:
        super().__init__(name, task)
        self._command = [python, str(_FOLDER / "run.py"), name]

    def _cold_command(self) -> list[str]:
        return [*self._command, json.dumps({**self._task, "kind": "cold"})]

    def _child(self, task: dict[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(run_process([*self._command, json.dumps(task)]))
        return said

"""What Prometheus sees."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    multiprocess,
)
from prometheus_client.exposition import choose_encoder

from carspotter.results import Identification, ModelInfo

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where several workers keep their figures, so that any of them can tell all; prometheus-client
looks at it when it is first imported."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FILE_BYTES = 512 << 10


class Metrics:
    """The figures of one worker, and with several workers of all together."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        if FOLDER in os.environ:
            _prepare(Path(os.environ[FOLDER]))
        else:
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)
        self.requests = Counter(
            "carspotter_requests", "Requests.", ("method", "path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "carspotter_request_seconds",
            "From a request's head to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.waited = Histogram(
            "carspotter_queue_seconds",
            "Wait of a request for a thread.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue = Gauge(
            "carspotter_queue_requests",
            "Requests that wait or are worked on.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._answers = Counter(
            "carspotter_answers", "Photos answered, by level.", ("level",), registry=registry
        )
        self._failures = Counter(
            "carspotter_photo_errors", "Photos not answered.", ("code",), registry=registry
        )
        self._refused = Counter(
            "carspotter_refused", "Requests refused under load.", ("reason",), registry=registry
        )
        self._model = Gauge(
            "carspotter_model_info",
            "Which model answers.",
            ("name", "version", "sha256"),
            multiprocess_mode="max",
            registry=registry,
        )

    def results(self, results: Iterable[Identification]) -> None:
        """Count what photos came to."""
        for found in results:
            if found.answer is not None:
                self._answers.labels(found.answer.level).inc()
            elif found.error is not None:
                self._failures.labels(found.error.code).inc()

    def refused(self, reason: str) -> None:
        """Count a request that was refused under load."""
        self._refused.labels(reason).inc()

    def model(self, info: ModelInfo) -> None:
        """Say which model answers."""
        self._model.labels(info.name, info.version, info.sha256).set(1)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The figures as Prometheus reads them, and their media type."""
        registry = self._registry
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type


def _prepare(folder: Path) -> None:
    """Make room for the figures of this worker, and take dead ones out of the sums of the living.

    The files are mapped into memory: on a disk that has become full, writing into a hole of one
    would end the process. So there are no holes.
    """
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not _lives(pid):
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
    if hasattr(os, "posix_fallocate"):
        for kind in ("counter", "histogram", "gauge_livesum", "gauge_max"):
            with (folder / f"{kind}_{os.getpid()}.db").open("ab") as opened:
                os.posix_fallocate(opened.fileno(), 0, _FILE_BYTES)


def _lives(pid: int) -> bool:
    if sys.platform == "win32":
        # `os.kill` would be a Ctrl-C to it there. Dead workers stay in the sums: better than that.
        # Written from the documentation: carspotter has never run on Windows.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

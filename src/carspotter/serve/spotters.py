"""The spotter of a worker, with the garage as its file is now."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TypeAlias

import numpy as np

from carspotter.errors import CarspotterError
from carspotter.garage import read_garage
from carspotter.loading import load
from carspotter.serve.settings import Settings
from carspotter.spotter import Spotter

_log = logging.getLogger(__name__)

_Identity: TypeAlias = tuple[int, int, int] | None


def load_spotter(settings: Settings) -> Spotter:
    """The spotter that settings ask for, without its garage.

    One photo is looked at with one thread: several at once use all cores, and do not wait for
    each other.

    Raises:
        CarspotterError: a file of it cannot be used.
    """
    return load(
        settings.model,
        detector=settings.detector,
        min_confidence=settings.min_confidence,
        threads=1 if settings.runners > 1 else settings.runners,
        max_pixels=settings.max_pixels,
        provider=settings.provider,
    )


class Spotters:
    """The spotter, read once, and its garage, read again when its file changes.

    Args:
        settings: which files.

    Raises:
        CarspotterError: a file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._garage = settings.garage
        self._plain = load_spotter(settings)
        self._lock = threading.Lock()
        self._seen: _Identity = None
        self._now, self._cars = self._plain, 0
        if self._garage is not None and not (settings.allow_teaching and not self._garage.exists()):
            self._seen = _identity(self._garage)
            self._read(self._garage)
        grey = np.full((64, 64, 3), 127, np.uint8)
        self._now.identify(grey)  # the first look at a photo is slower than the others

    def now(self) -> Spotter:
        """The spotter with the garage as it is; as it was, where the file has become unusable."""
        if self._garage is None:
            return self._plain
        identity = _identity(self._garage)
        with self._lock:
            if identity != self._seen:
                self._seen = identity  # before reading: what changes meanwhile is seen next time
                try:
                    self._read(None if identity is None else self._garage)
                except CarspotterError as error:
                    _log.error("the garage cannot be used, the earlier one stays: %s", error)
            return self._now

    @property
    def cars(self) -> int | None:
        """How many taught cars the garage had when it was read; None: there is no garage."""
        return None if self._garage is None else self._cars

    def _read(self, path: Path | None) -> None:
        garage = None if path is None else read_garage(path)
        self._now = self._plain.with_garage(garage)
        self._cars = 0 if garage is None else len(garage.cars)


def _identity(path: Path) -> _Identity:
    """What changes with a file's content; None: there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

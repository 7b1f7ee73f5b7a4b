"""What an operator can set, checked once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import limits

from carspotter.errors import UsageError
from carspotter.machine import cores
from carspotter.photo import MAX_BYTES, MAX_PIXELS

_OWN = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """Settings of the service; each is an option of `carspotter serve`.

    Attributes:
        host: the address to listen at.
        port: the port; 0 takes a free one.
        model: a shipped model's name, or an ONNX file.
        garage: a file of taught cars; with `allow_teaching` it need not exist yet.
        detector: what finds vehicles, as `load` takes it.
        min_confidence: the least probability of an answer, as `load` takes it.
        workers: processes; they share nothing but the port, and the garage's file.
        threads: photos that a worker looks at at the same time; None: its share of the cores.
        provider: what computes, as `load` takes it.
        queue: requests that may wait in a worker; None: four for each thread.
        deadline: seconds from a received request to its answer.
        upload_seconds: an upload that brings nothing for so long is given up.
        max_bytes: of a request's photos together.
        max_pixels: of a photo; larger ones are refused before they are decoded.
        max_photos: of a request.
        api_key: what clients must show; None: nothing.
        rate: requests to /v1 of one client, "60/minute" say; None: any.
        origins: pages of other hosts that may use the API from a browser.
        hosts: names under which clients may ask, beside localhost. If there are none, clients may
            ask by any name, unless `host` is this machine's own address.
        trusted_proxies: addresses whose X-Forwarded-For is believed, with commas; None: of nobody.
        allow_teaching: whether clients may change the garage.
        log_level: what is logged at least: debug, info, warning or error.

    Raises:
        UsageError: a value that cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None
    garage: Path | None = None
    detector: str | None = None
    min_confidence: float | None = None
    workers: int = 1
    threads: int | None = None
    provider: str = "cpu"
    queue: int | None = None
    deadline: float = 30.0
    upload_seconds: float = 15.0
    max_bytes: int = 32 << 20
    max_pixels: int = 50_000_000
    max_photos: int = 32
    api_key: str | None = field(default=None, repr=False)
    rate: str | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    trusted_proxies: str | None = None
    allow_teaching: bool = False
    log_level: str = "info"

    def __post_init__(self) -> None:
        least: dict[str, float] = {
            "port": 0, "workers": 1, "threads": 1, "queue": 0, "deadline": 0.001,
            "upload_seconds": 0.001, "max_bytes": 1, "max_pixels": 1, "max_photos": 1,
            "min_confidence": 0,
        }  # fmt: skip
        most = {
            "port": 65535, "max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS, "min_confidence": 1
        }  # fmt: skip
        for name, low in least.items():
            value, high = getattr(self, name), most.get(name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{_flag(name)} {value}: must be a finite number")
            if value is not None and (value < low or (high is not None and value > high)):
                bound = f"at least {low:g}" if high is None else f"{low:g} to {high}"
                raise UsageError(f"{_flag(name)} {value}: must be {bound}")
        if self.allow_teaching and self.garage is None:
            raise UsageError("--allow-teaching needs --garage FILE, which keeps the taught cars")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise UsageError("the API key must be ASCII letters, digits and signs")
        if self.api_key is not None and len(self.api_key) < 16:
            raise UsageError("the API key must have at least 16 characters")
        if self.log_level not in LOG_LEVELS:
            raise UsageError(
                f"--log-level {self.log_level}: must be one of {', '.join(LOG_LEVELS)}"
            )
        self._check_clients()

    def _check_clients(self) -> None:
        """What is said of who may ask, and how often."""
        if self.rate is not None:
            try:
                limits.parse(self.rate)
            except ValueError:
                raise UsageError(f"--rate {self.rate}: must read like 60/minute") from None
        for origin in self.origins:
            parts = urlsplit(origin)
            if f"{parts.scheme}://{parts.netloc}" != origin or not parts.netloc:
                raise UsageError(f"--origin {origin}: must read like https://cars.example.org")
        for name in self.hosts:
            if not _HOST.fullmatch(name):
                raise UsageError(f"--allow-host {name}: must read like cars.example.org")

    @property
    def names(self) -> frozenset[str] | None:
        """Names and addresses, lower case, under which clients may ask; None: any."""
        if self.hosts or self.host in _OWN or self.host.startswith("127."):
            # localhost always: health checks ask by it, and no foreign page can have that name.
            return frozenset({*_OWN, self.host, *(name.lower() for name in self.hosts)})
        return None

    @property
    def runners(self) -> int:
        """Photos that a worker looks at at the same time."""
        return self.threads or max(1, cores() // self.workers)

    @property
    def waiting(self) -> int:
        """Requests that may wait in a worker while others are worked on."""
        return 4 * self.runners if self.queue is None else self.queue


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

"""Listening: one process, or several that uvicorn keeps alive."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from carspotter.errors import UsageError
from carspotter.garage import read_garage
from carspotter.serve.app import create_app
from carspotter.serve.logs import log_config
from carspotter.serve.metrics import FOLDER
from carspotter.serve.protocol import PatientProtocol
from carspotter.serve.settings import Settings
from carspotter.serve.spotters import load_spotter

_BACKLOG = 1024
_HEAD_BYTES = 32 << 10


class _Supervisor(Multiprocess):
    """Keeps workers alive; when it ends, no connection is taken that nobody would answer."""

    def terminate_all(self) -> None:
        for listening in self.sockets:
            listening.close()
        super().terminate_all()


def serve(settings: Settings, *, quiet: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were taken are answered before the end.

    Args:
        settings: of the service.
        quiet: print no address.

    Raises:
        UsageError: the address cannot be listened at.
        CarspotterError: the model, the detector or the garage cannot be used.
    """
    _check_files(settings)
    with contextlib.closing(_listen(settings)) as listening, _shared_metrics(settings):
        if not quiet:
            print(f"carspotter is at {_address(listening)} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            functools.partial(create_app, settings, listening),
            factory=True,
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_config=log_config(settings.log_level.upper()),
            access_log=False,
            workers=settings.workers,
            proxy_headers=settings.trusted_proxies is not None,
            forwarded_allow_ips=settings.trusted_proxies,
            server_header=False,
            backlog=_BACKLOG,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_graceful_shutdown=_grace(settings),
            timeout_worker_healthcheck=60,  # on a busy machine, a new worker imports for so long
        )
        # uvicorn sends itself the signal that ended it once more: here, that is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
        with contextlib.suppress(KeyboardInterrupt):
            if settings.workers == 1:
                uvicorn.Server(config).run(sockets=[listening])
            else:
                _Supervisor(config, sockets=[listening]).run()


def _check_files(settings: Settings) -> None:
    """Refuse what cannot be used before anything listens."""
    spotter = load_spotter(settings)
    garage = settings.garage
    if garage is not None and (garage.exists() or not settings.allow_teaching):
        spotter.with_garage(read_garage(garage))


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        found = socket.create_server(
            (settings.host, settings.port), family=family, backlog=_BACKLOG
        )
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        number = error.errno or 0  # below zero where the host is unknown
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise UsageError(
            f"{place}: cannot listen there ({reason}); take another --host or --port"
        ) from error
    # Head and body of an answer are two writes: without this, which connections take over from
    # here, the second waits for the client's delayed acknowledgement of the first, 40 ms.
    # asyncio sets it on sockets alone that were made with their protocol's number.
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _grace(settings: Settings) -> int:
    """Seconds within which every request that was taken has its answer."""
    return round(settings.deadline + settings.upload_seconds) + 5


@contextlib.contextmanager
def _shared_metrics(settings: Settings) -> Iterator[None]:
    """A folder in which several workers keep their figures; in memory, where there is such one."""
    if settings.workers == 1:
        yield
        return
    memory = Path("/dev/shm")
    place = memory if sys.platform == "linux" and os.access(memory, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="carspotter-", dir=place)
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER]
        shutil.rmtree(folder, ignore_errors=True)

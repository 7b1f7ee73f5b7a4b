"""`carspotter serve`: the HTTP service and the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from carspotter.cli.needs import needs
from carspotter.cli.options import Quiet
from carspotter.errors import UsageError

_KEY = "CARSPOTTER_API_KEY"


def serve(
    host: Annotated[
        str, typer.Option(envvar="CARSPOTTER_HOST", help="Address to listen at.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="CARSPOTTER_PORT", help="Port; 0 takes a free one.")
    ] = 8000,
    model: Annotated[
        str | None,
        typer.Option(envvar="CARSPOTTER_MODEL", help="A shipped model's name, or an ONNX file."),
    ] = None,
    garage: Annotated[
        Path | None,
        typer.Option(envvar="CARSPOTTER_GARAGE", help="A file of cars that were taught."),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            envvar="CARSPOTTER_DETECTOR",
            metavar="FILE|embedded|none",
            help="What finds the cars: an ONNX file, a localiser or a YOLO model. By default the "
            "embedded localiser for a shipped model, none for a file.",
        ),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            envvar="CARSPOTTER_MIN_CONFIDENCE",
            help="The least probability of an answer; see identify.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(envvar="CARSPOTTER_WORKERS", help="Processes.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            envvar="CARSPOTTER_THREADS",
            help="Photos that a worker looks at at once. Default: its share of the cores.",
        ),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(
            envvar="CARSPOTTER_PROVIDER",
            metavar="cpu|cuda|openvino|…",
            help="What computes, where the installed onnxruntime has it.",
        ),
    ] = "cpu",
    queue: Annotated[
        int | None,
        typer.Option(
            envvar="CARSPOTTER_QUEUE",
            help="Requests that may wait in a worker. Default: four for each thread.",
        ),
    ] = None,
    deadline: Annotated[
        float,
        typer.Option(envvar="CARSPOTTER_DEADLINE", help="Seconds until an answer, at most."),
    ] = 30.0,
    upload_seconds: Annotated[
        float,
        typer.Option(
            envvar="CARSPOTTER_UPLOAD_SECONDS",
            help="An upload that brings nothing for so long is given up.",
        ),
    ] = 15.0,
    max_bytes: Annotated[
        int, typer.Option(envvar="CARSPOTTER_MAX_BYTES", help="Of a request's photos together.")
    ] = 32 << 20,
    max_pixels: Annotated[
        int, typer.Option(envvar="CARSPOTTER_MAX_PIXELS", help="Of a photo.")
    ] = 50_000_000,
    max_photos: Annotated[
        int, typer.Option(envvar="CARSPOTTER_MAX_PHOTOS", help="Of a request.")
    ] = 32,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="CARSPOTTER_API_KEY_FILE",
            help=f"A file with the key that clients must show; or set {_KEY}.",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            envvar="CARSPOTTER_RATE",
            metavar="60/minute",
            help="Requests of one client to a worker.",
        ),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CARSPOTTER_ORIGINS",
            metavar="URL",
            help="Pages of this host may use the API from a browser; may be repeated.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CARSPOTTER_ALLOW_HOSTS",
            metavar="NAME",
            help="A name by which clients ask, a proxy's for instance; may be repeated. Listening "
            "at this machine's own address, the service answers to localhost alone otherwise.",
        ),
    ] = None,
    trusted_proxies: Annotated[
        str | None,
        typer.Option(
            envvar="CARSPOTTER_TRUSTED_PROXIES",
            metavar="ADDRESSES",
            help="Whose X-Forwarded-For is believed; several with commas.",
        ),
    ] = None,
    allow_teaching: Annotated[
        bool,
        typer.Option(
            "--allow-teaching",
            envvar="CARSPOTTER_ALLOW_TEACHING",
            help="Clients may teach and forget cars, in --garage.",
        ),
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="CARSPOTTER_LOG_LEVEL",
            metavar="debug|info|warning|error",
            help="What is logged on stderr at least; info has a line for each request.",
        ),
    ] = "info",
    quiet: Quiet = False,
) -> None:
    """Serve a page and an HTTP API that name the cars on photos.

    Example: carspotter serve --port 8000

    Example: carspotter serve --host 0.0.0.0 --workers 2 --api-key-file key.txt --rate 120/minute

    The page is at /, the API's reference at /docs, metrics at /metrics. Each option can also be
    set in the environment. docs/serving.md says more.
    """
    # Set for another program, they would have prometheus-client keep our figures in that one's
    # files: it looks at them when it is first imported. Several workers get a folder of ours.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    with needs("serve", extra="serve"):
        from carspotter.serve.server import serve as run
        from carspotter.serve.settings import Settings
    settings = Settings(
        host=host,
        port=port,
        model=model,
        garage=garage,
        detector=detector,
        min_confidence=min_confidence,
        workers=workers,
        threads=threads,
        provider=provider,
        queue=queue,
        deadline=deadline,
        upload_seconds=upload_seconds,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_photos=max_photos,
        api_key=_key(api_key_file),
        rate=rate,
        origins=tuple(origin or ()),
        hosts=tuple(allow_host or ()),
        trusted_proxies=trusted_proxies,
        allow_teaching=allow_teaching,
        log_level=log_level,
    )
    run(settings, quiet=quiet)


def _key(file: Path | None) -> str | None:
    """The API key: the file's first line, or the environment's."""
    if file is None:
        return os.environ.get(_KEY) or None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-key-file {file}: cannot be read ({error})") from error
    if not text:
        raise UsageError(f"--api-key-file {file}: is empty")
    return text

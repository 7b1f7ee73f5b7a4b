"""The verb `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carspotter.cli.options import Detector, Json, Model, Provider, Quiet, Threads


def bench(
    megapixels: Annotated[
        list[float] | None,
        typer.Option(min=0.01, max=150, help="Of a photo; may be repeated. Default: 0.3, 2, 12."),
    ] = None,
    photos: Annotated[int, typer.Option(min=1, help="So many of each size in bulk.")] = 400,
    model: Model = None,
    detector: Detector = None,
    threads: Threads = None,
    provider: Provider = "cpu",
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure what users would pick instead, by turns.")
    ] = False,
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="This one of them alone; may be repeated."),
    ] = None,
    peers_environment: Annotated[
        str | None,
        typer.Option(
            "--peers-python",
            metavar="PATH",
            help="The python that has their packages; by default an environment is made, once.",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure this machine: cold start, one photo after the other, many photos, memory.

    Example: carspotter bench --megapixels 2

    Example: carspotter bench --peers --report peers.json

    The photos are drawn. A cold start is a process of its own, beside one that only imports
    onnxruntime and Pillow. --peers shows how many times carspotter's each peer's figures are.
    """
    from carspotter.bench.measure import Sizes
    from carspotter.cli.bench import run

    code = run(
        Sizes(tuple(megapixels) if megapixels else Sizes.megapixels, bulk=photos),
        model=model,
        detector=detector,
        threads=threads,
        provider=provider,
        peers=(peer or []) if peers or peer else None,
        peers_environment=peers_environment,
        report=report,
        as_json=as_json,
        quiet=quiet,
    )
    raise typer.Exit(code)

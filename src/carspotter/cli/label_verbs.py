"""The verbs of archives: `label` and `similar`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carspotter.cli.needs import needs
from carspotter.cli.options import CropText, Detector, Json, Model, Quiet, Threads


def label(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, globs, lists (.txt, .csv), parquet, tar, zip, or addresses of a store "
            "(s3://…, gs://…).",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="The results: .parquet, .csv or .jsonl by the ending.")
    ],
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with what is there; where nothing is, begin."),
    ] = False,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="This process, or actors on Ray.")
    ] = "local",
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Ray actors. Default: as many as there are cores for."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster's. Default: a Ray of its own on this machine."),
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Keep embeddings too, for carspotter similar.")
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(help="The photos' column in tables and parquet files, if it is not clear."),
    ] = None,
    chunk: Annotated[
        int, typer.Option(min=1, help="Photos that are finished, and kept, at a time.")
    ] = 500,
    max_file_mb: Annotated[
        int, typer.Option(min=1, help="Parquet of more becomes a folder of such files.")
    ] = 1024,
    model: Model = None,
    crop: CropText = "auto",
    detector: Detector = None,
    garage: Annotated[
        Path | None, typer.Option(help="A file of cars that were taught to the model.")
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The least probability of an answer; see identify."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Name the car on every photo of an archive.

    Example: carspotter label photos/ --out results.parquet

    Example: carspotter label 's3://archive/shard-*.tar' --out cars.parquet --engine ray
    --ray-address auto

    Finished chunks are kept in results.parquet.work until the results appear, whole: after a crash
    or Ctrl-C, the same command with --resume does what is missing. A photo that cannot be read gets
    a row with its error, and the exit code is 1. docs/scaling.md says what grows how.
    """
    with needs("label", extra="ray" if engine == "ray" else "label"):
        from carspotter.cli.label import run_label
    raise typer.Exit(
        run_label(
            sources,
            out,
            resume=resume,
            engine=engine,
            actors=actors,
            ray_address=ray_address,
            embeddings=embeddings,
            column=column,
            chunk=chunk,
            max_file_mb=max_file_mb,
            model=model,
            crop=crop,
            detector=detector,
            garage=garage,
            min_confidence=min_confidence,
            threads=threads,
            as_json=as_json,
            quiet=quiet,
        )
    )


def similar(
    photo: Annotated[str, typer.Argument(help="A photo of the car to look for.")],
    results: Annotated[
        Path, typer.Option("--in", help="What label --embeddings wrote: a file, or a folder.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many photos to give.")] = 10,
    model: Model = None,
    crop: CropText = "auto",
    detector: Detector = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find the photos of an archive whose cars look most like the one on a photo.

    Example: carspotter similar photo.jpg --in results.parquet

    The archive is labelled before, with --embeddings and the same model. 1 is the same picture.
    """
    with needs("similar", extra="label"):
        from carspotter.cli.label import run_similar
    run_similar(
        photo,
        results,
        top=top,
        model=model,
        crop=crop,
        detector=detector,
        threads=threads,
        as_json=as_json,
    )

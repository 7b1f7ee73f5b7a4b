"""`python -m benchmarks.label`: measure, print, and write a report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

import carspotter
from benchmarks.label import material, measure
from benchmarks.label.measure import Measured
from carspotter.bench.measure import machine
from carspotter.files import write_text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def label(
    data: Annotated[Path, typer.Option(help="Stanford Cars as Hugging Face parquet.")],
    work: Annotated[Path, typer.Option(help="A folder for photos and results.")],
    photos: Annotated[int, typer.Option(min=100, help="Of the large archive.")] = 20_000,
    small: Annotated[int, typer.Option(min=100, help="Of the small one, for memory.")] = 2_000,
    listed: Annotated[int, typer.Option(min=1, help="Paths of the list that is only begun.")] = (
        200_000
    ),
    pictures: Annotated[int, typer.Option(min=100, help="Different pictures.")] = 8_000,
    actors: Annotated[
        list[int] | None, typer.Option(help="May be repeated. Default: 1, 2.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Default: the embedded model.")] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Photos of a chunk.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Folder for label.json and label.md.")] = None,
) -> None:
    """Measure the local engine beside Ray, memory at two sizes, and compare all rows.

    Example: python -m benchmarks.label --data stanford-cars --work work --out report

    One photo of a hundred is broken. Nothing else should run on the machine.
    """
    files = material.extract(data, work / "photos", pictures)
    more = ["--chunk", str(chunk), *(["--model", model] if model else [])]
    results = work / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    runs: list[Measured] = []
    rows: dict[str, int] = {}
    few = material.listed(files, small, work / "small.txt")
    many = material.listed(files, photos, work / "large.txt")
    runs.append(measure.call(few, results / "small.parquet", *more))
    reference = results / "local.parquet"
    runs.append(measure.call(many, reference, *more))
    for count in actors or [1, 2]:
        file = results / f"ray-{count}.parquet"
        runs.append(measure.call(many, file, *more, "--threads", "1", actors=count))
        rows[f"ray, {count}"] = measure.different_rows(reference, file)
    long = material.listed(files, listed, work / "list.txt")
    found: dict[str, Any] = {
        "model": carspotter.load(model).info.to_dict(),
        "machine": machine(),
        "runs": [run.to_dict() for run in runs],
        "rows_that_differ": rows,
        "listed": listed,
        "begun_after": measure.planned_after(long, results / "list.parquet", *more),
        "bytes_per_photo": sum(file.stat().st_size for file in files) / len(files),
        "bytes_per_row": reference.stat().st_size / photos,
    }
    print(json.dumps(found, indent=1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "label.json", json.dumps(found, indent=1) + "\n")
        write_text(out / "label.md", _table(found))


def _table(found: dict[str, Any]) -> str:
    lines = [
        "| engine | actors | photos | failed | seconds | photos/s | CPU seconds | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {run['engine']} | {run['actors'] or ''} | {run['photos']} | {run['failed']} "
            f"| {run['seconds']} | {run['per_second']} | {run['cpu_seconds']} | {run['peak_mib']} |"
            for run in found["runs"]
        ),
        "",
        *(
            f"Rows that differ from the local engine's ({name} actors): {count}."
            for name, count in found["rows_that_differ"].items()
        ),
        f"A list of {found['listed']} paths: work has begun after {found['begun_after']} s.",
        f"Bytes: {found['bytes_per_photo']:.0f} of a photo, {found['bytes_per_row']:.0f} of a row.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app()

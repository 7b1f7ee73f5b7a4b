"""`carspotter data …`: the verbs about data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from carspotter.cli.needs import needs

app = typer.Typer(help="Fetch data sets, and check them.", no_args_is_help=True)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="Which: stanford-cars.")],
    to: Annotated[Path, typer.Option("--to", help="A folder, empty or not there yet.")],
    origin: Annotated[
        Literal["huggingface", "kaggle"], typer.Option("--from", help="The hub to ask.")
    ] = "huggingface",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")
    ] = False,
) -> None:
    """Fetch a public data set and make sure that it is whole.

    Example: carspotter data download stanford-cars --to stanford-cars

    A call that was cut short goes on when it is made again. The pictures of Stanford Cars are for
    research use.
    """
    with needs("data", extra="train"):
        from carspotter.cli.download import run
    run(name, to, origin, as_json=as_json, quiet=quiet)


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="The data set's folder.")],
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="A predictions.parquet that evaluate --report wrote, to find likely label errors."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder to write check.json and check.html into.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="CSV file to write: pictures that train had better leave out, and why."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")
    ] = False,
) -> None:
    """Say what a data set holds and what is wrong with it, before any training.

    Example: carspotter data check stanford-cars --report checked --fix exclusions.csv

    Broken pictures, copies with contradictory labels, leaks between splits, class counts. No file
    of the data set is changed; train takes the list by --set exclude=exclusions.csv. The exit code
    is 1 if pictures were broken.
    """
    with needs("data", extra="train"):
        from carspotter.cli.check import run
    code = run(data, predictions, report, fix, as_json=as_json, quiet=quiet)
    raise typer.Exit(code)

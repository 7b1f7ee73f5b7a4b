"""`carspotter data …`: the verbs about data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from carspotter.cli.needs import needs

app = typer.Typer(help="Fetch data sets.", no_args_is_help=True)


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

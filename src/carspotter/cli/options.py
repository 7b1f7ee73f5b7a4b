"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[
    str | None, typer.Option("--model", help="A shipped model's name, or an ONNX file.")
]
Data = Annotated[Path, typer.Option("--data", help="The data set's folder.")]
GarageFile = Annotated[Path, typer.Option("--garage", help="The file of taught cars.")]
Make = Annotated[str | None, typer.Option(help="The make, with which the name begins.")]
Body = Annotated[str | None, typer.Option(help="The body style, at the end or before the year.")]
Year = Annotated[int | None, typer.Option(min=1885, help="The year, with which the name ends.")]

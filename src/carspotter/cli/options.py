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
BoxText = Annotated[
    str | None,
    typer.Option(
        "--box", metavar="X1,Y1,X2,Y2", help="Look only here, in pixels of the upright photo."
    ),
]
_CROP = typer.Option(
    "--crop",
    metavar="auto|none",
    help="auto: find the cars first, where there is a detector; none: the whole photo.",
)
CropText = Annotated[str, _CROP]
CropWish = Annotated[str | None, _CROP]
Detector = Annotated[
    str | None,
    typer.Option(
        "--detector",
        metavar="FILE|embedded|none",
        help="What finds the cars: an ONNX file, a localiser or a YOLO model. By default the "
        "embedded localiser for a shipped model, none for a file.",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Default: one for each core.")
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider",
        metavar="cpu|cuda|openvino|…",
        help="What computes, where the installed onnxruntime has it.",
    ),
]
GarageFile = Annotated[Path, typer.Option("--garage", help="The file of taught cars.")]
Make = Annotated[str | None, typer.Option(help="The make, with which the name begins.")]
Body = Annotated[str | None, typer.Option(help="The body style, at the end or before the year.")]
Year = Annotated[
    int | None, typer.Option(min=1885, max=9999, help="The year, with which the name ends.")
]

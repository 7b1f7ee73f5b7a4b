"""The verbs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from carspotter.cli.bench_verb import bench
from carspotter.cli.data import app as data_app
from carspotter.cli.garage import app as garage_app
from carspotter.cli.label_verbs import label, similar
from carspotter.cli.needs import needs
from carspotter.cli.options import (
    Body,
    BoxText,
    CropText,
    CropWish,
    Data,
    Detector,
    GarageFile,
    Json,
    Make,
    Model,
    Provider,
    Quiet,
    Threads,
    Year,
)
from carspotter.cli.serve import serve
from carspotter.cli.train_verbs import soup, train, tune

app = typer.Typer(
    help="Point it at a photo and it says which car that is: make, model, body style, year.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data_app, name="data")
app.add_typer(garage_app, name="garage")


def _version(wanted: bool) -> None:
    if wanted:
        from carspotter import __version__

        typer.echo(f"carspotter {__version__}")
        raise typer.Exit


@app.callback()
def carspotter(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Point it at a photo and it says which car that is: make, model, body style, year."""


@app.command()
def identify(
    photos: Annotated[
        list[str], typer.Argument(help="Photos, folders, globs, or - for one photo on stdin.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many candidates to give.")] = 5,
    model: Model = None,
    box: BoxText = None,
    crop: CropWish = None,
    detector: Detector = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write each photo here with a heat map of what speaks for the most probable car, "
            "as NAME.explain.jpg.",
        ),
    ] = None,
    garage: Annotated[
        Path | None, typer.Option(help="A file of cars that were taught to the model.")
    ] = None,
    sets: Annotated[
        bool,
        typer.Option(
            "--sets",
            help="Also give each car a set of names that holds the right one 95 times of 100.",
        ),
    ] = False,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="The least probability of an answer, at whatever level. By default the model "
            "file's, with which 97 of 100 answers are right.",
        ),
    ] = None,
    threads: Threads = None,
    provider: Provider = "cpu",
    quiet: Quiet = False,
) -> None:
    """Name the cars on photos.

    Example: carspotter identify holiday/ 'lot/*.jpg' --json > cars.jsonl

    Example: carspotter identify photo.jpg --explain heat

    A photo that cannot be read gets its own error; the others are still answered, and the exit
    code is 1.
    """
    from carspotter.cli.identify import run

    raise typer.Exit(
        run(
            photos,
            style="json" if as_json else "csv" if as_csv else "text",
            both=as_json and as_csv,
            top=top,
            model=model,
            box=box,
            crop=crop,
            detector=detector,
            explain=explain,
            garage=garage,
            sets=sets,
            min_confidence=min_confidence,
            threads=threads,
            provider=provider,
            quiet=quiet,
        )
    )


@app.command()
def teach(
    name: Annotated[str, typer.Argument(metavar="NAME", help="MAKE MODEL BODY YEAR, as one word.")],
    photos: Annotated[
        list[str],
        typer.Argument(help="Photos of it, folders, globs, or - for one photo on stdin."),
    ],
    garage: GarageFile,
    make: Make = None,
    body: Body = None,
    year: Year = None,
    add: Annotated[
        bool, typer.Option("--add", help="These are more photos of a car that is taught already.")
    ] = False,
    as_json: Json = False,
    model: Model = None,
    box: BoxText = None,
    crop: CropText = "auto",
    detector: Detector = None,
    threads: Threads = None,
    provider: Provider = "cpu",
    quiet: Quiet = False,
) -> None:
    """Add a car that the model was never trained on, from a few photos, without training.

    Example: carspotter teach "Rivian R1T Crew Cab 2022" r1t/*.jpg --garage garage.npz
    --make Rivian --body "Crew Cab" --year 2022

    Then: carspotter identify photo.jpg --garage garage.npz

    With --make, --body and --year answers can also be "Rivian R1T" or "Rivian"; without, the name
    is kept whole. A photo that cannot be used is left out, and the exit code is 1. `carspotter
    garage` lists, forgets and renames what was taught.
    """
    from carspotter.cli.teach import run

    raise typer.Exit(
        run(
            name,
            photos,
            garage,
            make=make,
            body=body,
            year=year,
            add=add,
            model=model,
            box=box,
            crop=crop,
            detector=detector,
            threads=threads,
            provider=provider,
            as_json=as_json,
            quiet=quiet,
        )
    )


app.command()(label)
app.command()(similar)
app.command()(serve)


@app.command()
def models(
    card: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FILE", help="Print the whole card of one model, as Markdown."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the models at hand, or print what one says of itself.

    Example: carspotter models --card stanford-cars-lite2
    """
    from carspotter.cli.models import run, run_card

    if card is None:
        run(as_json=as_json)
    else:
        run_card(card, as_json=as_json)


app.command()(train)
app.command()(tune)
app.command()(soup)
app.command()(bench)


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run folder, a checkpoint, an ONNX file or a shipped name.")
    ],
    data: Data,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics.json, predictions.parquet and report.html."),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="auto|none|box",
            help="auto: the main car that --detector finds; none: whole pictures; box: where the "
            "data has boxes. Default: as it was trained.",
        ),
    ] = None,
    detector: Detector = None,
    robustness: Annotated[
        int,
        typer.Option(
            min=0,
            help="Look at so many of the pictures again with noise, blur, compression, in the dark "
            "and so on, each at five strengths.",
        ),
    ] = 0,
    no_cars: Annotated[
        Path | None,
        typer.Option(
            metavar="PARQUET",
            help="Pictures without a car: how well they are told from the cars.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on a labelled split.

    Example: carspotter evaluate lite2.onnx --data stanford-cars --split test --report out

    report.html shows figures with their intervals, calibration, confusions, the worst errors and
    likely label errors on one page that opens without a network.
    """
    with needs("evaluate", extra="train"):
        from carspotter.cli.evaluate import run
    code = run(
        model,
        data,
        split,
        report,
        crop=crop,
        detector=detector,
        robustness=robustness,
        no_cars=no_cars,
        as_json=as_json,
        quiet=quiet,
    )
    raise typer.Exit(code)


@app.command()
def compare(
    reports: Annotated[
        list[Path], typer.Argument(help="Two or more folders that evaluate --report wrote.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--report", help="Folder for compare.json and compare.html."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether the difference between models is real, and where it lies.

    Example: carspotter compare reports/lite0 reports/lite2

    Each further report is compared with the first, picture by picture.
    """
    with needs("compare", extra="train"):
        from carspotter.cli.compare import run
    run(reports, out, as_json=as_json)


@app.command()
def export(
    run: Annotated[
        str,
        typer.Argument(
            help="A run folder; with --int8 or --with also an ONNX file, or a shipped name."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="The data set: a run's, if it has moved, or a file's."),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(help="A Markdown file for the card: use, licence limits, known faults."),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights in 16 bits: half the file.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Compute in 8 bits: a third of the file, and faster."),
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Another ONNX file, or shipped name, of the same cars: the new file asks it too "
            "where the first is unsure. Repeat it for more.",
        ),
    ] = None,
    calibrated_by: Annotated[
        str | None,
        typer.Option(
            help="A model of the same cars and bits whose temperature, thresholds and answer sets "
            "are taken: for a run that set too few pictures aside to fit its own."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make one ONNX file of a run's best checkpoint.

    Example: carspotter export runs/lite0 --out lite0.onnx

    Example: carspotter export stanford-cars-lite2 --int8 --data stanford-cars --out int8.onnx

    Example: carspotter export one.onnx --with other.onnx --data stanford-cars --out both.onnx

    The file is compared with the checkpoint on real photos; it is not written if their answers
    differ. With --int8 it may lose 0.3 points of accuracy on the validation part, not more.
    """
    with needs("export", extra="train"):
        from carspotter.cli.export import Wanted
        from carspotter.cli.export import run as write
    wanted = Wanted(run, out, data, notes, half, int8, others or [], calibrated_by)
    write(wanted, as_json=as_json, quiet=quiet)


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """The app with the one verb that is called; with all where none is named.

    To build each verb's parser takes longer than to name the car on a photo.
    """
    verb = arguments[0] if arguments else ""
    called = [
        command
        for command in app.registered_commands
        if verb in (command.name, getattr(command.callback, "__name__", None))
    ]
    if not called:
        return app
    found = copy.copy(app)
    found.registered_commands, found.registered_groups = called, []
    return found

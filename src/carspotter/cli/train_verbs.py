"""The verbs that train: `train`, `tune` and `soup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carspotter.cli.needs import needs
from carspotter.cli.options import Data, Json, Quiet


def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The run folder to write.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs, or processes on the CPU, of each node. Default: 1."),
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines. Default: 1.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on a data set's training split.

    Example: carspotter train lite0 --data stanford-cars --out runs/lite0 --set epochs=12
    """
    with needs("train", extra="train"):
        from carspotter.cli.training import run_train
    run_train(
        recipe,
        data,
        out,
        changes or [],
        resume=resume,
        devices=devices,
        nodes=nodes,
        quiet=quiet,
    )


def tune(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")],
    data: Data,
    trials: Annotated[
        int, typer.Option(min=1, help="How many are to be finished, over all workers and calls.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The study's folder. Default: studies/, by its name."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where the study is kept: a URL (mysql://…), or a journal file that "
            "machines share. Default: SQLite in --out."
        ),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Its name. Default: the recipe's.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = None,
    search: Annotated[
        Path | None, typer.Option(help="A TOML file of the keys to search, and their values.")
    ] = None,
    heartbeat: Annotated[
        int, typer.Option(min=1, help="Seconds between the signs of life of a worker.")
    ] = 60,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for a better recipe, by trials on the validation part.

    Example: carspotter tune lite0 --data stanford-cars --trials 20 --out studies/cars

    The same command goes on where it was stopped; given several times at once, it works on one
    study with several workers. It writes best.toml, which train takes, trials.csv and report.html.
    """
    with needs("tune", extra="train"):
        from carspotter.cli.tune import run
    code = run(
        recipe,
        data,
        out,
        trials,
        changes or [],
        search,
        storage=storage,
        study=study,
        heartbeat=heartbeat,
        as_json=as_json,
        quiet=quiet,
    )
    raise typer.Exit(code)


def soup(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="The runs' data set, if it has moved.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Average the weights of several runs of one backbone.

    Example: carspotter soup runs/seed0 runs/seed1 runs/seed2 --out runs/soup

    Runs are taken one after the other, best first, and kept where the accuracy on the validation
    part, which must be the same in all of them, does not fall (a greedy model soup).
    """
    with needs("soup", extra="train"):
        from carspotter.cli.training import run_soup
    run_soup(runs, out, data, quiet=quiet)

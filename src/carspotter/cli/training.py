"""`carspotter train` and `carspotter soup`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lightning_fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from carspotter.localise.recipe import LocaliserRecipe, load_any_recipe
from carspotter.localise.training import train_localiser
from carspotter.train import soup_of_runs, train
from carspotter.train.processes import one_message


def run_train(
    recipe: str,
    data: Path,
    out: Path,
    changes: Sequence[str],
    *,
    resume: bool,
    devices: int | None,
    nodes: int | None,
    quiet: bool,
) -> None:
    """Train by a recipe, and say where the result lies."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process
    console = Console(stderr=True, quiet=quiet)
    with one_message():  # a recipe that cannot be read: the same in each of torchrun's processes
        loaded = load_any_recipe(recipe, changes)
    run = train_localiser if isinstance(loaded, LocaliserRecipe) else train
    folder = run(
        loaded,  # type: ignore[arg-type]  # its kind chose the function
        data,
        out,
        resume=resume,
        devices=devices,
        nodes=nodes,
        console=console,
    )
    rank_zero_only(console.print)(
        f"{folder.best}: now `carspotter export {out} --out model.onnx`", soft_wrap=True
    )


def run_soup(runs: Sequence[Path], out: Path, data: Path | None, *, quiet: bool) -> None:
    """Average runs, and say where the result lies."""
    console = Console(stderr=True, quiet=quiet)
    folder = soup_of_runs(runs, out, data_root=data, console=console)
    console.print(f"{folder.best}: now `carspotter export {out} --out model.onnx`", soft_wrap=True)

"""`carspotter tune`: a study over a recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from carspotter.train import load_recipe
from carspotter.tune import Tuned, default_space, load_space, tune


def run(
    recipe: str,
    data: Path,
    out: Path | None,
    trials: int,
    changes: Sequence[str],
    search: Path | None,
    *,
    storage: str | None,
    study: str | None,
    heartbeat: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Work on a study and print what it found; exit code 1 if no trial came through."""
    base = load_recipe(recipe, changes)
    space = default_space(base) if search is None else load_space(base, search)
    if out is None:
        out = Path("studies") / (study or base.name)
    console = Console(stderr=True, quiet=quiet)
    found = tune(
        space,
        data,
        out,
        trials,
        storage=storage,
        name=study,
        heartbeat=heartbeat,
        console=console,
    )
    if as_json:
        print(json.dumps(found.to_dict()))
    else:
        _print_best(found)
    return 0 if found.best else 1


def _print_best(found: Tuned) -> None:
    said = found.to_dict()
    counts = ", ".join(f"{number} {kind}" for kind, number in said["trials"].items())
    print(f"study {found.study}: {counts}; see {found.folder.report}")
    if best := said["best"]:
        print(
            f"best: trial {best['trial']}, {100 * best['val_accuracy']:.2f} % on validation; "
            f"now `carspotter train {best['recipe']} --data DATA --out RUN`"
        )
    else:
        print(f"no trial came through: {found.folder.table} says why")

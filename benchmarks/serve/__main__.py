"""`python -m benchmarks.serve`: load, fuzz, faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.serve import faults, fuzz, load
from benchmarks.serve.service import running
from carspotter.errors import UsageError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Work = Annotated[Path, typer.Option(help="Folder for logs, and for bodies that went wrong.")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", help="One more word of `carspotter serve`; may be repeated."),
]
Seed = Annotated[int, typer.Option(min=0, help="Draws what is drawn.")]


@app.command("load")
def load_(
    photos: Annotated[Path, typer.Argument(help="A folder of JPEG photos.")],
    work: Work = Path("work"),
    model: Annotated[str | None, typer.Option(help="As in `carspotter serve`.")] = None,
    most: Annotated[int, typer.Option(min=16, help="So many of the photos.")] = 400,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of both.")] = 3,
    seconds: Annotated[float, typer.Option(help="At half load, and at four times.")] = 60.0,
    clients: Annotated[int, typer.Option(min=1, help="At once, for the throughput.")] = 4,
    seed: Seed = 0,
    option: Option = None,
) -> None:
    """Throughput beside identify_many; half the capacity, and four times it."""
    files = sorted(photos.glob("*.jpg"))[:most]
    if len(files) < 16:
        raise UsageError(f"{photos}: has {len(files)} JPEG photos; at least 16 are needed")
    _print(
        load.measure(
            files,
            model=model,
            rounds=rounds,
            seconds=seconds,
            clients=clients,
            seed=seed,
            options=option or [],
            work=_made(work),
        )
    )


@app.command("fuzz")
def fuzz_(
    cases: Annotated[int, typer.Option(min=1, help="How many requests.")] = 20_000,
    work: Work = Path("work"),
    seed: Seed = 0,
    option: Option = None,
) -> None:
    """Mutated pictures and bodies."""
    said = fuzz.measure(cases, seed=seed, options=option or [], work=_made(work))
    _print(said)
    raise typer.Exit(bool(said["wrong"]) or not said["same_processes"])


@app.command("faults")
def faults_(
    fault: Annotated[list[str] | None, typer.Argument(help="kill, cut, slow, disk, term.")] = None,
    work: Work = Path("work"),
    seconds: Annotated[float, typer.Option(help="Of each.")] = 30.0,
    rounds: Annotated[int, typer.Option(min=1, help="Of term.")] = 10,
    option: Option = None,
) -> None:
    """What breaks, and what the others notice of it."""
    names = fault or [*faults.FAULTS, "term"]
    if unknown := set(names) - {*faults.FAULTS, "term"}:
        raise UsageError(f"no fault of the name {', '.join(sorted(unknown))}")
    if "disk" in names and "CARSPOTTER_SMALL_DISK" not in os.environ:
        raise UsageError("disk: set CARSPOTTER_SMALL_DISK to a folder on a disk that may be filled")
    options = option or []
    for name in names:
        if name == "term":
            _print(faults.measure_term(rounds=rounds, options=options, work=_made(work)))
        else:
            _print(faults.measure(name, seconds=seconds, options=options, work=_made(work)))


@app.command()
def contract(
    cases: Annotated[int, typer.Option(min=1, help="For each operation.")] = 1000,
    work: Work = Path("work"),
    seed: Seed = 0,
    option: Option = None,
) -> None:
    """The OpenAPI document against the service, by schemathesis."""
    here = Path(__file__).parent
    with running([*(option or []), "--log-level", "warning"], log=_made(work) / "api.log") as found:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--config-file",
                str(here / "schemathesis.toml"),
                "run",
                f"http://{found.host}:{found.port}/openapi.json",
                "--max-examples",
                str(cases),
                "--seed",
                str(seed),
            ],
            env={**os.environ, "SCHEMATHESIS_HOOKS": "benchmarks.serve.hooks"},
            check=False,
        )
    raise typer.Exit(done.returncode)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _print(said: dict[str, Any]) -> None:
    print(json.dumps(said, indent=2))


if __name__ == "__main__":
    app()

"""`python -m benchmarks.time_to_accuracy`: run, throughput, report."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.time_to_accuracy.contenders import Carspotter, Contender, Plain, Setting, Timm
from benchmarks.time_to_accuracy.machine import computes_in_bf16, device
from benchmarks.time_to_accuracy.prepare import Material, prepare, prepare_sample
from benchmarks.time_to_accuracy.record import measure, outcomes
from benchmarks.time_to_accuracy.report import write_report
from benchmarks.time_to_accuracy.throughput import Plan, measure_rates
from benchmarks.time_to_accuracy.watch import Limits
from carspotter.errors import CarspotterError, UsageError
from carspotter.train import load_recipe

NAMES = ("carspotter", "timm", "plain")

app = typer.Typer(
    help="How long carspotter, timm's train.py and a plain loop take to the same accuracy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[Path, typer.Option(help="The data set: pictures cut to the car.")]
Work = Annotated[Path, typer.Option(help="Pictures, weights, runs and results are kept here.")]
Only = Annotated[
    list[str] | None, typer.Option(help=f"Of {', '.join(NAMES)}; all without. Repeatable.")
]
TimmSource = Annotated[
    Path | None,
    typer.Option("--timm", help="A checkout of github.com/huggingface/pytorch-image-models."),
]
RecipeName = Annotated[str, typer.Option("--recipe", help="carspotter's recipe, name or file.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
]
TimmArgs = Annotated[str, typer.Option(help="Further arguments for timm's train.py, in quotes.")]
PlainArgs = Annotated[str, typer.Option(help="Further arguments for the plain loop, in quotes.")]
Batch = Annotated[int, typer.Option(min=2, help="Of timm and the plain loop.")]
Seed = Annotated[int, typer.Option(min=0)]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Of torch, for all. 1 is steadier where the machine has other work."),
]


@app.command()
def run(
    data: Data,
    work: Work,
    only: Only = None,
    timm: TimmSource = None,
    recipe: RecipeName = "lite0-quick",
    changes: Changes = None,
    timm_args: TimmArgs = "",
    plain_args: PlainArgs = "",
    name: Annotated[
        str | None, typer.Option("--as", help="The outcome's name; with one --only.")
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="Pixels, of timm and the plain loop.")] = 224,
    batch: Batch = 32,
    target: Annotated[float, typer.Option(min=0, max=100, help="Top-1 in percent.")] = 82.66,
    cap_minutes: Annotated[float, typer.Option(min=0, help="Stop there, testing left out.")] = 240,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Time contenders until they reach the target.

    Example: python -m benchmarks.time_to_accuracy run --data stanford-cars --work work --only plain

    What has an outcome in the work folder is not run again.
    """
    chosen = _chosen(only, timm)
    if name is not None and len(chosen) != 1:
        raise UsageError("--as names one outcome; say which contender by one --only")
    recipe = _absolute(recipe)
    work = work.resolve()
    loaded = load_recipe(recipe, changes or ())
    material = prepare(data, loaded, work)
    setting = Setting(material, size, batch, seed, device(), computes_in_bf16(), threads)
    contenders: dict[str, Contender] = {}
    for each in chosen:
        if each == "carspotter":
            contenders[each] = Carspotter(setting, recipe, tuple(changes or ()))
        elif each == "plain":
            contenders[each] = Plain(setting, tuple(shlex.split(plain_args)))
        elif timm is not None:
            contenders[each] = Timm(setting, timm.resolve(), tuple(shlex.split(timm_args)))
    for each, contender in contenders.items():
        about: dict[str, object] = {"seed": seed, "threads": threads}
        if each == "carspotter":
            about["recipe"] = loaded.model_dump(mode="json")
        outcome = measure(
            name or each,
            contender,
            work,
            Limits(target / 100, cap_minutes),
            about=about,
            places=_places(material, work, timm, recipe),
            say=_say,
        )
        _say(f"{outcome.name}: {outcome.verdict()}")


@app.command()
def throughput(
    data: Data,
    work: Work,
    only: Only = None,
    timm: TimmSource = None,
    recipe: RecipeName = "lite0-quick",
    changes: Changes = None,
    timm_args: TimmArgs = "",
    plain_args: PlainArgs = "",
    sizes: Annotated[str, typer.Option(help="Pixels, with commas.")] = "128,224",
    batch: Batch = 32,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    per_class: Annotated[int, typer.Option(min=3, help="Training pictures of each class.")] = 6,
    epochs: Annotated[int, typer.Option(min=2, help="Of a run; the first one warms up.")] = 3,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Measure training pictures per second, the contenders taking turns.

    Example: python -m benchmarks.time_to_accuracy throughput --data stanford-cars --work work
    --timm pytorch-image-models

    All train the whole backbone. Where the recipe freezes stages, `carspotter, as the recipe` does.
    """
    chosen = _chosen(only, timm)
    recipe = _absolute(recipe)
    work = work.resolve()
    loaded = load_recipe(recipe, changes or ())
    material = prepare_sample(data, loaded, work, per_class)
    contenders: dict[tuple[str, int], Contender] = {}
    for size in _sizes(sizes):
        setting = Setting(material, size, batch, seed, device(), computes_in_bf16(), threads)
        if "carspotter" in chosen:
            own = (*(changes or ()), *_short_recipe(size, batch, epochs, per_class))
            contenders["carspotter", size] = Carspotter(setting, recipe, (*own, "freeze_stages=0"))
            if loaded.freeze_stages:
                contenders["carspotter, as the recipe", size] = Carspotter(setting, recipe, own)
        if timm is not None and "timm" in chosen:
            short = (f"--epochs={epochs}", "--warmup-epochs=0", *shlex.split(timm_args))
            contenders["timm", size] = Timm(setting, timm.resolve(), short, tests=False)
        if "plain" in chosen:
            short = (f"--epochs={epochs}", f"--patience={epochs}", *shlex.split(plain_args))
            contenders["plain", size] = Plain(setting, short)
    there = per_class * material.classes
    about = {"batch_size": batch, "pictures": there, "epochs": epochs, "seed": seed}
    about["threads"] = threads or os.cpu_count() or 1
    own_part = there - material.classes  # one of each class is set aside
    pictures = {
        name: (own_part if name.startswith("carspotter") else there) // batch * batch
        for name, _ in contenders
    }
    plan = Plan(contenders, pictures, rounds, _places(material, work, timm, recipe), about)
    _say(f"{measure_rates(plan, work, _say)} is written")


@app.command()
def report(
    work: Work,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
) -> None:
    """Put all that was measured into report.json, report.md and accuracy.png.

    Example: python -m benchmarks.time_to_accuracy report --work work --out report
    """
    rates = work / "throughput.json"
    write_report(outcomes(work), rates if rates.is_file() else None, out)
    _say(f"{out / 'report.md'} is written")


def _short_recipe(size: int, batch: int, epochs: int, per_class: int) -> tuple[str, ...]:
    """Changes that make any recipe a short run of one size, one picture a class set aside."""
    return (
        f"sizes=[{size}]",
        f"eval_size={size}",
        f"batch_size={batch}",
        f"epochs={epochs}",
        f"val_fraction={1 / per_class:.4f}",
        "patience=0",
    )


def _chosen(only: Sequence[str] | None, timm: Path | None) -> tuple[str, ...]:
    for each in only or ():
        if each not in NAMES:
            raise UsageError(f"--only {each}: must be one of {', '.join(NAMES)}")
    chosen = tuple(each for each in NAMES if not only or each in only)
    if "timm" in chosen and timm is None:
        raise UsageError("timm's train.py is in its repository alone: clone it, and say --timm")
    return chosen


def _sizes(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--sizes {text}: wants whole numbers with commas, like 128,224") from None


def _absolute(recipe: str) -> str:
    """A recipe's file by its whole path, since contenders run in folders of their own."""
    return str(Path(recipe).resolve()) if Path(recipe).is_file() else recipe


def _places(material: Material, work: Path, timm: Path | None, recipe: str) -> dict[str, str]:
    places = {str(material.data): "DATA", str(work): "WORK", recipe: Path(recipe).name}
    places[str(Path(__file__).parent)] = "benchmarks/time_to_accuracy"
    if timm is not None:
        places[str(timm.resolve())] = "TIMM"
    return places


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run a command; what goes wrong on purpose is one line, and exit code 2."""
    # Ended by a signal, the contender under way is ended too: it runs in a session of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app(prog_name="python -m benchmarks.time_to_accuracy")
    except CarspotterError as error:
        print(f"time_to_accuracy: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

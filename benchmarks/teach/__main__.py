"""`python -m benchmarks.teach`: train without some classes, teach them, measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import carspotter
from benchmarks.teach.left_out import choose, trained_without
from benchmarks.teach.material import Material, crop_of, held_back, look
from benchmarks.teach.measure import CONSTANTS, figures, fit, likenesses
from carspotter.data import open_data_set
from carspotter.errors import UsageError
from carspotter.export.onnx_file import space_of, with_space
from carspotter.files import replacing, write_text
from carspotter.likeness import Likeness
from carspotter.spotter import Spotter
from carspotter.train import RunFolder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Data = Annotated[Path, typer.Option(help="The data set.")]
Work = Annotated[Path, typer.Option(help="Folder for the training, which goes on there.")]
Model = Annotated[
    str | None,
    typer.Option(help="A model that does not know the left-out classes, instead of training one."),
]
Classes = Annotated[int, typer.Option(min=1, help="How many classes are left out.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws the classes and the photos.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws of the photos.")]
Shots = Annotated[str, typer.Option(help="Photos of each taught car.")]
RecipeName = Annotated[str, typer.Option(help="What is trained by.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for teach.json.")]


@app.command()
def run(
    data: Data,
    work: Work = Path("work"),
    model: Model = None,
    recipe: RecipeName = "lite0-quick",
    changes: Changes = None,
    classes: Classes = 20,
    seed: Seed = 0,
    draws: Draws = 10,
    shots: Shots = "1,5,20",
    out: Out = None,
) -> None:
    """Leave classes out of training, teach them from few photos, and measure on the test split.

    Example: python -m benchmarks.teach run --data stanford-cars --work work --out report
    """
    numbers = _numbers(shots)
    spotter, material = _prepare(data, work, model, recipe, changes, classes, seed, test=True)
    temperature = spotter.card.temperature
    found = {
        **_about(spotter, material, seed),
        "results": [
            {
                "compared": name,
                **figures(material, likeness, temperature, count, draws, seed),
            }
            for name, likeness in _likenesses(spotter, material).items()
            for count in numbers
        ],
    }
    print(json.dumps(found, indent=1))
    if out is not None:
        write_text(out / "teach.json", json.dumps(found, indent=1) + "\n")


@app.command("fit")
def fit_constants(
    data: Data,
    work: Work = Path("work"),
    model: Model = None,
    recipe: RecipeName = "lite0-quick",
    changes: Changes = None,
    classes: Classes = 20,
    seed: Seed = 0,
    draws: Draws = 3,
    shots: Shots = "1,2,5,10",
) -> None:
    """Derive the constants of `carspotter.likeness`, without the test split.

    Example: python -m benchmarks.teach fit --data stanford-cars --work work
    """
    numbers = _numbers(shots)
    spotter, material = _prepare(data, work, model, recipe, changes, classes, seed, test=False)
    temperature = spotter.card.temperature
    found: dict[str, Any] = _about(spotter, material, seed)
    for name, likeness in _likenesses(spotter, material).items():
        fitted = fit(material, likeness, temperature, numbers, draws, seed)
        found[name] = {key: round(getattr(fitted, key), 3) for key in CONSTANTS}
    print(json.dumps(found, indent=1))


@app.command("space")
def add_space(
    data: Data,
    model: Annotated[str, typer.Option(help="A shipped model's name, or an ONNX file.")],
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
) -> None:
    """Give a model file that was exported without one the space of its embeddings.

    Example: python -m benchmarks.teach space --data stanford-cars --model old.onnx --out new.onnx
    """
    spotter = carspotter.load(model)
    opened = open_data_set(data)
    known = {name.label for name in spotter.card.classes}
    pictures = [p for p in opened.split("train") if p.label in known]
    space = space_of(spotter, pictures, crop_of(spotter), _progress("space"))
    written = with_space(spotter.path.read_bytes(), space)
    with replacing(out) as part:
        part.write_bytes(written)


def _prepare(
    data: Path,
    work: Path,
    model: str | None,
    recipe: str,
    changes: list[str] | None,
    classes: int,
    seed: int,
    *,
    test: bool,
) -> tuple[Spotter, Material]:
    opened = open_data_set(data)
    left_out = choose(opened.class_names, classes, seed)
    if model is None:
        console = Console(stderr=True)
        file = trained_without(opened, left_out, recipe, changes or [], work, console)
        spotter = carspotter.load(file)
        validation = RunFolder(work / "run").pictures(open_data_set(work / "data"), "val")
    else:
        spotter = carspotter.load(model)
        labels = {name.label for name in spotter.card.classes}
        validation = held_back(opened, labels, 0.1, 0)
    return spotter, look(spotter, opened, left_out, validation, _progress, test=test)


def _likenesses(spotter: Spotter, material: Material) -> dict[str, Likeness]:
    labels = [name.label for name in spotter.card.classes]
    columns = [labels.index(label) for label in material.known]
    return likenesses(spotter.likeness.space, columns)


def _about(spotter: Spotter, material: Material, seed: int) -> dict[str, Any]:
    return {
        "model": spotter.info.to_dict(),
        "seed": seed,
        "known": len(material.known),
        "left_out": list(material.left_out),
        "model_has_seen_them": material.seen,
    }


def _numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise UsageError(f"--shots {text}: needs whole numbers, 1,5,20")
    return found


def _progress(what: str) -> Callable[[int, int], None]:
    console = Console(stderr=True)

    def say(done: int, total: int) -> None:
        if console.is_terminal:
            console.print(f"{what}: {done} of {total}", end="\r", highlight=False)

    return say


if __name__ == "__main__":
    app()

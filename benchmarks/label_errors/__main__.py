"""`python -m benchmarks.label_errors`: break labels, train on them, and look for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.views import claim, write_view
from carspotter.data import DataSet, open_data_set
from carspotter.data.index import fingerprint
from carspotter.decide import softmax
from carspotter.evaluate import predict
from carspotter.evaluate.label_errors import likely_label_errors
from carspotter.files import write_text
from carspotter.train import RunFolder, load_checkpoint, load_recipe, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="The data set.")],
    work: Annotated[Path, typer.Option(help="Folder for the training, which goes on there.")],
    share: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Of the training labels, broken.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Draws them.")] = 0,
    recipe: Annotated[str, typer.Option(help="What is trained by.")] = "lite0-quick",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for label-errors.json.")] = None,
) -> None:
    """Exchange labels at random, train on what results, and see how many are found.

    Example: python -m benchmarks.label_errors --data stanford-cars --work work --out report

    Nine tenths of the pictures are those that the model learnt from, wrong labels and all, as for
    a user who has one training and no second data set.
    """
    source = open_data_set(data)
    pictures = source.split("train")
    about = {"share": share, "seed": seed, "fingerprint": fingerprint(pictures)}
    claim(work / "label-errors.json", about)
    labels = broken(source.class_names, [p.label for p in pictures], share, seed)
    write_view(zip(pictures, labels, strict=True), work / "data")
    trained = work / "run"
    loaded = load_recipe(recipe, changes or ())
    console = Console(stderr=True)
    folder = RunFolder(trained)
    if len(folder.read_metrics()) < loaded.epochs:
        train(loaded, work / "data", trained, resume=folder.recipe.is_file(), console=console)
    view = open_data_set(work / "data")
    wrong = np.array([p.label != label for p, label in zip(pictures, labels, strict=True)])
    found = {**about, "recipe": loaded.name, **figures(view, folder, wrong)}
    print(json.dumps(found, indent=1))
    if out is not None:
        write_text(out / "label-errors.json", json.dumps(found, indent=1) + "\n")


def broken(class_names: Sequence[str], labels: Sequence[str], share: float, seed: int) -> list[str]:
    """Labels, a share of them exchanged for any other class."""
    rng = np.random.default_rng(seed)
    found = list(labels)
    for place in rng.choice(len(labels), round(share * len(labels)), replace=False):
        found[place] = str(rng.choice([name for name in class_names if name != labels[place]]))
    return found


def figures(view: DataSet, folder: RunFolder, wrong: NDArray[np.bool_]) -> dict[str, Any]:
    """What the run's model finds, over all pictures and over either part."""
    checkpoint = load_checkpoint(folder.path)
    pictures = view.split("train")
    seen = predict(
        pictures,
        checkpoint.class_names,
        checkpoint.recognise,
        size=checkpoint.recipe.eval_size,
        crop=checkpoint.recipe.area(),
    )
    suspects = np.zeros(len(pictures), bool)
    suspects[likely_label_errors(softmax(seen.logits), seen.targets)] = True
    val = {picture.key for picture in folder.pictures(view, "val")}
    is_val = np.array([picture.key in val for picture in pictures])
    parts = {"all": np.ones(len(pictures), bool), "learnt_from": ~is_val, "validation": is_val}
    return {name: _found(suspects[part], wrong[part]) for name, part in parts.items()}


def _found(suspects: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, Any]:
    hits = int((suspects & wrong).sum())
    return {
        "pictures": len(wrong),
        "broken": int(wrong.sum()),
        "listed": int(suspects.sum()),
        "recall": hits / max(1, int(wrong.sum())),
        "precision": hits / max(1, int(suspects.sum())),
    }


if __name__ == "__main__":
    app()

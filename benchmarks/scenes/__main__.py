"""`python -m benchmarks.scenes`: measure, print, and write a report."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

import carspotter
from benchmarks.scenes import measure
from benchmarks.scenes.material import cars_to_name, compose, unseen_backgrounds
from carspotter.detect import Localiser, load_detector
from carspotter.errors import UsageError
from carspotter.files import write_text
from carspotter.loading import detector_file

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def scenes(
    data: Annotated[Path, typer.Option(help="The data set of the cars.")],
    backgrounds: Annotated[Path, typer.Option(help="A parquet file of pictures without a car.")],
    frames: Annotated[Path, typer.Option(help="A parquet file of street frames with boxes.")],
    model: Annotated[str | None, typer.Option(help="A classifier; default: the embedded.")] = None,
    detector: Annotated[str, typer.Option(help="A detector's file.")] = "embedded",
    every: Annotated[int, typer.Option(min=1, help="Take each n-th test picture.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Draws the composed scenes.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for scenes.json and curve.png.")] = None,
) -> None:
    """Measure recognition on whole scenes, beside neat crops.

    Example: python -m benchmarks.scenes --data stanford-cars --backgrounds
    not-cars/pictures.parquet --frames scenes/frames.parquet --out report
    """
    spotter = carspotter.load(model, detector=detector)
    cars, grounds = cars_to_name(data, every), unseen_backgrounds(backgrounds)
    composed = list(compose(cars, grounds, seed))
    file = detector_file(detector, is_shipped=True)
    if file is None:
        raise UsageError("--detector none: what looks for cars is measured here")
    localiser = load_detector(file, threads=1)
    photos = [_jpeg(scene.pixels) for scene in composed[:20]]
    found: dict[str, Any] = {
        "model": spotter.info.to_dict(),
        "detector": Path(file).name,
        "every": every,
        "seed": seed,
        "crops": measure.crops(spotter, cars),
        "composites": measure.composites(spotter, cars, composed),
        "no_cars": measure.no_cars(spotter, grounds),
        "cost_of_one_photo": measure.cost(spotter, photos, 60),
    }
    if isinstance(localiser, Localiser):
        found["no_box_without_a_car"] = measure.quiet(localiser, cars, composed, grounds)
        found["streets"] = measure.streets(localiser, frames)
    print(json.dumps({**found, "streets": _short(found.get("streets", {}))}, indent=1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "scenes.json", json.dumps(found, indent=1) + "\n")
        _draw(found.get("streets", {}).get("curve", ()), out / "curve.png")


def _jpeg(pixels: Any) -> bytes:
    """A photo of 2 megapixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).resize((1732, 1155)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _short(streets: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in streets.items() if key != "curve"}


def _draw(settings: Any, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([s["recall"] for s in settings], [s["precision"] for s in settings])
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("Vehicles at least 60 px wide of 960, test frames")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    app()

"""Finding a model by name or file, and making a `Spotter` of it."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from carspotter.detect import load_detector
from carspotter.errors import ModelFileError
from carspotter.garage import read_garage
from carspotter.photo import MAX_PIXELS
from carspotter.session import cores
from carspotter.spotter import Spotter

DEFAULT_MODEL = "stanford-cars-lite0"


def shipped_models() -> dict[str, Path]:
    """The models inside the package: name and file."""
    folder = resources.files("carspotter").joinpath("models")
    files = sorted(Path(str(folder)).glob("*.onnx"))
    return {file.stem: file for file in files}


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    detector: str | os.PathLike[str] | None = None,
    garage: str | os.PathLike[str] | None = None,
    min_confidence: float | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Spotter:
    """Load a model for recognition.

    Args:
        model: a shipped model's name or an ONNX file; by default the embedded model.
        detector: an ONNX file that finds the vehicles on a photo, a localiser of carspotter's or
            one in YOLO's form; by default each photo is looked at as a whole.
        garage: a file of cars that were taught to this model; they are answered like any other.
        min_confidence: the least probability of an answer, 0 to 1; see
            `Spotter.with_min_confidence`. By default the model file's own.
        threads: how many to compute with; by default one for each core.
        max_pixels: photos of more are refused before they are decoded.

    Raises:
        ModelFileError: no such model, or not one of carspotter's, damaged or too new.
        GarageError: no such garage, not one, damaged, too new, or of another model.
        UsageError: a number of threads below 1, or a confidence that is none.
    """
    shipped = shipped_models()
    name = os.fspath(model) if model is not None else DEFAULT_MODEL
    path = shipped.get(name, Path(name))
    if not os.path.isfile(path):
        known = ", ".join(shipped) or "none"
        raise ModelFileError(f"{name}: neither a model file nor a shipped model ({known})")
    found = Spotter(path, threads=threads, max_pixels=max_pixels)
    if min_confidence is not None:
        found = found.with_min_confidence(min_confidence)
    if garage is not None:
        found = found.with_garage(read_garage(Path(garage)))
    if detector is None:
        return found
    return found.with_detector(load_detector(detector, threads=threads or cores()))

"""Finding a model by name or file, and making a `Spotter` of it."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from carspotter.detect import load_detector
from carspotter.errors import ModelFileError
from carspotter.garage import read_garage
from carspotter.machine import cores
from carspotter.photo import MAX_PIXELS
from carspotter.spotter import Spotter

DEFAULT_MODEL = "stanford-cars-lite2-int8-x2"


def shipped_models() -> dict[str, Path]:
    """The models inside the package: name and file."""
    folder = resources.files("carspotter").joinpath("models")
    files = sorted(Path(str(folder)).glob("*.onnx"))
    return {file.stem: file for file in files}


def shipped_localiser() -> Path | None:
    """The file of the localiser inside the package, if there is one."""
    folder = Path(str(resources.files("carspotter").joinpath("models", "localiser")))
    return next(iter(sorted(folder.glob("*.onnx"))), None)


def model_path(name_or_file: str) -> Path:
    """The file of a shipped model, or the file that is named.

    Raises:
        ModelFileError: neither is there.
    """
    shipped = shipped_models()
    path = shipped.get(name_or_file, Path(name_or_file))
    if not os.path.isfile(path):  # without an error where the folder is locked
        known = ", ".join(shipped) or "none"
        raise ModelFileError(f"{name_or_file}: neither a model file nor a shipped model ({known})")
    return path


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    detector: str | os.PathLike[str] | None = None,
    garage: str | os.PathLike[str] | None = None,
    min_confidence: float | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    provider: str = "cpu",
) -> Spotter:
    """Load a model for recognition.

    Args:
        model: a shipped model's name or an ONNX file; by default the embedded model.
        detector: finds the vehicles on a photo, each of which is then looked at by itself: an
            ONNX file, a localiser of carspotter's or one in YOLO's form, or "embedded"; "none"
            looks at each photo as a whole. By default a shipped model has the embedded localiser,
            if there is one, and a file none, since it is its training that says what it should
            see.
        garage: a file of cars that were taught to this model; they are answered like any other.
        min_confidence: the least probability of an answer, 0 to 1; see
            `Spotter.with_min_confidence`. By default the model file's own.
        threads: how many to compute with; by default one for each core.
        max_pixels: photos of more are refused before they are decoded.
        provider: what computes, where onnxruntime has it: "cpu", "cuda", "tensorrt", "openvino",
            "coreml" or "directml".

    Raises:
        ModelFileError: no such model or detector, or not one of carspotter's, damaged or too new.
        GarageError: no such garage, not one, damaged, too new, or of another model.
        UsageError: a number of threads or pixels below 1, a confidence that is none, or a provider
            that is not to be had.
    """
    name = os.fspath(model) if model is not None else DEFAULT_MODEL
    found = Spotter(model_path(name), threads=threads, max_pixels=max_pixels, provider=provider)
    if min_confidence is not None:
        found = found.with_min_confidence(min_confidence)
    if garage is not None:
        found = found.with_garage(read_garage(Path(garage)))
    file = detector_file(detector, is_shipped=name in shipped_models())
    if file is None:
        return found
    return found.with_detector(load_detector(file, threads=threads or cores(), provider=provider))


def detector_file(
    choice: str | os.PathLike[str] | None, *, is_shipped: bool
) -> str | os.PathLike[str] | None:
    """The file that a choice of a detector stands for; None: none.

    Args:
        choice: "embedded", "none", a file, or None for what is the default.
        is_shipped: whether the model is a shipped one.

    Raises:
        ModelFileError: none is embedded.
    """
    if choice is None:
        return shipped_localiser() if is_shipped else None
    if choice == "none":
        return None
    if choice != "embedded":
        return choice
    file = shipped_localiser()
    if file is None:
        raise ModelFileError("no localiser is embedded in this carspotter; name a detector's file")
    return file

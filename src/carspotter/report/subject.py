"""What is measured, whichever kind of file it came from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carspotter.data import Crop
from carspotter.evaluate import Recogniser
from carspotter.loading import load
from carspotter.names import Level
from carspotter.preprocess import ResizeMode
from carspotter.spotter import Spotter
from carspotter.train import load_checkpoint

if TYPE_CHECKING:
    from carspotter.photo import Pixels


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        about: name, and version and SHA-256, or the checkpoint.
        class_names: in the order of the logits.
        recogniser: pixels in, logits out.
        size: side of the input, in pixels.
        resize: how pictures are brought to it.
        crop: which part of a picture it was trained on.
        temperature: of the softmax; 1 where the file has none.
        thresholds: the least probability at which a level is answered; None where the file has
            none, as a checkpoint.
        sets: by promised coverage, the least probability of a class in a set.
        file_size: in bytes.
        familiarity: pixels in, (N, 1) familiarity out; None where the file has none.
        heat: a picture (H, W, 3) uint8 and a class number in, the picture with its heat map out;
            None where the file has none.
    """

    about: dict[str, str]
    class_names: tuple[str, ...]
    recogniser: Recogniser
    size: int
    resize: ResizeMode
    crop: Crop
    temperature: float
    thresholds: Mapping[Level, float] | None
    sets: Mapping[str, float]
    file_size: int
    familiarity: Recogniser | None = None
    heat: Callable[[Pixels, int], Pixels] | None = None


def load_subject(model: str) -> Subject:
    """Load a run folder, a checkpoint, an ONNX file or a shipped model.

    Raises:
        ModelFileError: it is none of them.
    """
    path = Path(model)
    if path.is_dir() or model.endswith(".ckpt"):
        found = load_checkpoint(path)
        file = path / "best.ckpt" if path.is_dir() else path
        return Subject(
            about={"name": found.recipe.name, "checkpoint": path.name},
            class_names=found.class_names,
            recogniser=found.recognise,
            size=found.recipe.eval_size,
            resize="squash",
            crop=found.recipe.area(),
            temperature=1.0,
            thresholds=None,
            sets={},
            file_size=file.stat().st_size,
        )
    spotter = load(model, detector="none")
    card = spotter.card
    trained_on = card.trained_on
    return Subject(
        about=spotter.info.to_dict(),
        class_names=tuple(name.label for name in card.classes),
        recogniser=spotter.logits,
        size=card.input_size,
        resize=card.resize,
        crop=Crop(trained_on.get("crop") == "box", trained_on.get("box_margin", Crop().margin)),
        temperature=card.temperature,
        thresholds=card.thresholds,
        sets=card.sets,
        file_size=spotter.path.stat().st_size,
        familiarity=_familiarity(spotter) if spotter.has_familiarity else None,
        heat=functools.partial(_heat, spotter) if spotter.explains else None,
    )


def _familiarity(spotter: Spotter) -> Recogniser:
    return lambda pixels: spotter.familiarity(pixels)[:, None]


def _heat(spotter: Spotter, pixels: Pixels, number: int) -> Pixels:
    label = spotter.card.classes[number].label
    return np.asarray(spotter.explain(pixels, label=label, crop="none").overlay(names=False))

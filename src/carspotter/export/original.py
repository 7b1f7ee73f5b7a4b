"""What a model file is made of: a run, or a file that was exported before, and its data."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from carspotter.card import Card
from carspotter.data import Crop, DataSet, Picture, open_data_set, training_parts
from carspotter.data.index import fingerprint
from carspotter.errors import DataError, UsageError
from carspotter.evaluate import Predictions, Recogniser, predict
from carspotter.export.fitted import Calibration, card_of, figures, fitted
from carspotter.export.onnx_file import Counter, data_of_run, space_of, to_onnx, with_card
from carspotter.likeness import Space
from carspotter.loading import load
from carspotter.spotter import Spotter
from carspotter.train import Recipe, load_checkpoint
from carspotter.train.run import RunFolder

Counting = Callable[[str], contextlib.AbstractContextManager[Counter]]
"""For a name, a context that gives a function to call with the number done and the total."""


@dataclass(frozen=True)
class Original:
    """A model, and the pictures that it was trained, chosen and is measured on.

    Attributes:
        model: in 32 bits.
        recogniser: what its answers are compared with: the checkpoint, or the file.
        card: what it says of itself, made of its answers on the validation part.
        class_names: in the order of its logits.
        size: side of its input, in pixels.
        train: pictures that it was trained on.
        val: those that were set aside.
        crop: which part of each.
        data: all pictures.
        calibrated_by: the name of the model whose calibration the file has; empty: its own.
    """

    model: onnx.ModelProto
    recogniser: Recogniser
    card: Callable[[Predictions], Card]
    class_names: tuple[str, ...]
    size: int
    train: Sequence[Picture]
    val: Sequence[Picture]
    crop: Crop
    data: DataSet
    calibrated_by: str = ""

    def predict(
        self, pictures: Sequence[Picture], count: Counter, recogniser: Recogniser | None = None
    ) -> Predictions:
        """What it says of pictures, or what another model of the same classes says."""
        return predict(
            pictures,
            self.class_names,
            recogniser or self.recogniser,
            size=self.size,
            crop=self.crop,
            progress=count,
        )


def of_run(run: Path, data_root: Path | None) -> Original:
    """Of a run folder.

    Raises:
        ModelFileError: it has no checkpoint that can be used.
        DataError: its data set is not there.
    """
    checkpoint = load_checkpoint(run)
    folder = RunFolder(run)
    data = data_of_run(folder, data_root)
    return Original(
        model=to_onnx(checkpoint.model, checkpoint.recipe.eval_size),
        recogniser=checkpoint.recognise,
        card=lambda val: card_of(checkpoint, val, None),
        class_names=checkpoint.class_names,
        size=checkpoint.recipe.eval_size,
        train=folder.pictures(data, "train"),
        val=folder.pictures(data, "val"),
        crop=checkpoint.recipe.area(),
        data=data,
    )


def of_file(source: str, data_root: Path | None) -> Original:
    """Of a model file, or a shipped model's name.

    Raises:
        ModelFileError: it cannot be used.
        DataError: the data set is not named, or another than the model was trained on.
        UsageError: it is made of several networks.
    """
    if data_root is None:
        raise DataError(f"{source}: name the data set that it was trained on by --data")
    spotter = load(source, detector="none")
    card, trained_on = spotter.card, spotter.card.trained_on
    if "members" in card.accuracy:
        raise UsageError(f"{source}: is made of several networks; name the file of one")
    data = open_data_set(data_root)
    plan = {  # files of the first versions do not say how it was drawn
        key: trained_on.get(key, Recipe.model_fields[key].default)
        for key in ("val_fraction", "split_seed")
    }
    excluded = frozenset(trained_on.get("excluded", ()))
    train, val = (
        tuple(picture for picture in part if picture.key not in excluded)
        for part in training_parts(data, plan["val_fraction"], plan["split_seed"])
    )
    if fingerprint(train) != trained_on.get("fingerprint"):
        raise DataError(
            f"{data_root}: its training part is not what {source} was trained on; name the data "
            "set that it was, or export its run folder"
        )
    return Original(
        model=onnx.load(spotter.path),
        recogniser=spotter.logits,
        card=lambda val: card,
        class_names=tuple(name.label for name in card.classes),
        size=card.input_size,
        train=train,
        val=val,
        crop=Crop(trained_on.get("crop") == "box", trained_on.get("box_margin", Crop().margin)),
        data=data,
        calibrated_by=card.accuracy.get("calibrated_by", {}).get("name", ""),
    )


def measured(
    original: Original,
    model: onnx.ModelProto,
    card: Card,
    val: Predictions,
    calibration: Calibration | None,
    counting: Counting,
) -> tuple[Card, Space]:
    """What is to be said of a model that was made of another, and where its known cars lie.

    Args:
        original: the pictures.
        model: what is to be written.
        card: what else there is to say.
        val: what the model says of the validation part.
        calibration: as in `fitted.fitted`.
        counting: hears how far the test split is, which is measured on where there is one.
    """
    card = fitted(card, val, calibration)
    has_test = any(p.split == "test" for p in original.data.pictures)
    with opened(model, card) as spotter:
        found = val
        if has_test:
            with counting("test split") as count:
                found = original.predict(original.data.split("test"), count, spotter.logits)
        with counting("cars to compare with") as count:
            space = space_of(spotter, original.train, original.crop, count)
    said = {
        "split": "test" if has_test else "validation",
        "crop": "box" if original.crop.to_box else "whole",
        **figures(found, original.class_names, card.temperature),
    }
    return replace(card, accuracy={**card.accuracy, "measured": said}), space


@contextlib.contextmanager
def opened(model: onnx.ModelProto, card: Card) -> Iterator[Spotter]:
    """A model as it answers once it is a file."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        file.write_bytes(with_card(model, card))
        yield Spotter(file)

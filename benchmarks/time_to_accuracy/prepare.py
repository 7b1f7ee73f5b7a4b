"""The same pictures and weights for every contender, each in the form that it takes them in."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from carspotter.data import Picture, PictureReader, open_data_set
from carspotter.data.index import fingerprint
from carspotter.errors import DataError, UsageError
from carspotter.files import replacing
from carspotter.train.weights import pretrained_backbone

if TYPE_CHECKING:
    from carspotter.train import Recipe


@dataclass(frozen=True)
class Material:
    """What contenders train on.

    Attributes:
        data: the data set, as carspotter reads it.
        folders: the same pictures as class folders, `train/000/…` and `test/000/…`; the folders'
            numbers are the classes' places in the data set.
        weights: a state dict of the backbone by timm's names; None: random weights.
        backbone: a timm model name.
        classes: how many there are.
    """

    data: Path
    folders: Path
    weights: Path | None
    backbone: str
    classes: int


def prepare(data: Path, recipe: Recipe, work: Path) -> Material:
    """Make what is not there yet in the work folder: class folders and the file of weights.

    Raises:
        DataError: the data set cannot be used.
        RecipeError: the weights cannot be had.
        UsageError: the work folder was made from other data.
    """
    found = open_data_set(data)
    folders = work / "pictures"
    parts = {split: found.split(split) for split in ("train", "test")}
    write_class_folders(found.class_names, parts, folders)
    return Material(
        data=data.resolve(),
        folders=folders,
        weights=write_weights(recipe, work / "weights"),
        backbone=recipe.backbone,
        classes=len(found.class_names),
    )


def prepare_sample(data: Path, recipe: Recipe, work: Path, per_class: int) -> Material:
    """As `prepare`, of the first `per_class` training pictures and one test picture of each class.

    carspotter reads the class folders too, and sets a part of them aside for validation.

    Raises:
        DataError: the data set cannot be used, or a class has too few pictures.
    """
    found = open_data_set(data)
    folders = work / f"sample-{per_class}"
    parts = {
        "train": _first(found.split("train"), per_class),
        "test": _first(found.split("test"), 1),
    }
    write_class_folders(found.class_names, parts, folders)
    return Material(
        data=folders,
        folders=folders,
        weights=write_weights(recipe, work / "weights"),
        backbone=recipe.backbone,
        classes=len(found.class_names),
    )


def _first(pictures: Iterable[Picture], count: int) -> tuple[Picture, ...]:
    """The first `count` pictures of each class.

    Raises:
        DataError: a class has fewer.
    """
    by_label: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_label.setdefault(picture.label, []).append(picture)
    for label, there in by_label.items():
        if len(there) < count:
            raise DataError(f"class {label!r} has {len(there)} pictures, {count} are wanted")
    return tuple(picture for there in by_label.values() for picture in there[:count])


def write_class_folders(
    class_names: Sequence[str], parts: Mapping[str, Sequence[Picture]], folder: Path
) -> None:
    """Write pictures, byte for byte as they are, to `folder/SPLIT/CLASS/NAME`; whole or not at all.

    Raises:
        DataError: pictures with boxes: these are to be cut out beforehand, for all contenders.
        UsageError: the folder holds others.
    """
    everything = [picture for pictures in parts.values() for picture in pictures]
    if any(picture.box is not None for picture in everything):
        raise DataError(
            "these are whole photos with boxes; the benchmark wants pictures that are cut to the "
            "car already, so that every contender sees the same (Hugging Face layout)"
        )
    about = {"fingerprint": fingerprint(everything), "classes": list(class_names)}
    if folder.is_dir():
        there = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if there != about:
            raise UsageError(f"{folder} holds other pictures; use another work folder")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    number = {name: index for index, name in enumerate(class_names)}
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        reader = PictureReader()
        for split, pictures in parts.items():
            for picture in pictures:
                file = part / split / f"{number[picture.label]:03d}" / Path(picture.key).name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(reader.read(picture))
        (part / "about.json").write_text(json.dumps(about), encoding="utf-8")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_weights(recipe: Recipe, folder: Path) -> Path | None:
    """The backbone's pretrained weights by timm's names, from where the recipe says.

    Raises:
        RecipeError: they cannot be had.
    """
    if recipe.weights == "none":
        return None
    file = folder / f"{recipe.backbone}.pt"
    if not file.is_file():
        state = pretrained_backbone(recipe.backbone, recipe.weights, 0.0).state_dict()
        with replacing(file) as part:
            torch.save(dict(state), part)
    return file

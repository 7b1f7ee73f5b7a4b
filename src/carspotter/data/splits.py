"""What is trained on, and what validates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carspotter.data.exclusions import read_exclusions
from carspotter.data.index import DataSet, Picture
from carspotter.errors import DataError


def training_parts(
    data: DataSet, fraction: float, seed: int, exclude: str = ""
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """The training and the validation part of a data set; the test split is in neither.

    The data set's own `val` split validates where there is one. Else a part of the training split
    is set aside for it by `stratified_split`.

    Args:
        data: the data set.
        fraction: share of each class of the training split that validates.
        seed: of the choice.
        exclude: a file of `exclusions.write_exclusions`; its pictures are in neither part. They
            go after the split: the others lie where they lie without such a file. Empty: none.

    Raises:
        DataError: there is no training split, or it has too few pictures of a class; or the file
            of exclusions cannot be used, or leaves nothing.
    """
    train = data.split("train")
    own = tuple(picture for picture in data.pictures if picture.split == "val")
    parts = (train, own) if own else stratified_split(train, fraction, seed)
    if not exclude:
        return parts
    file = Path(exclude).expanduser()
    out = read_exclusions(file, data)
    kept = tuple(tuple(p for p in part if p.key not in out) for part in parts)
    for part, use in zip(kept, ("to train on", "to validate on"), strict=True):
        if not part:
            raise DataError(f"{file}: leaves no picture {use}")
    return kept[0], kept[1]


def stratified_split(
    pictures: Sequence[Picture], fraction: float, seed: int
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """Split pictures into a training and a validation part, class by class.

    The choice depends on the keys, labels and seed alone, not on the order of the pictures.

    Args:
        pictures: what to split.
        fraction: share of each class that goes to validation, 0 < fraction < 1; at least one
            picture of each class goes there and at least one stays.
        seed: another seed, another choice.

    Returns:
        Training and validation part, each in the order of `pictures`.

    Raises:
        DataError: a class has fewer than two pictures.
    """
    by_label: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        by_label[picture.label].append(picture.key)
    chosen: set[str] = set()
    rng = np.random.default_rng(seed)
    for label in sorted(by_label):
        keys = sorted(by_label[label])
        if len(keys) < 2:
            raise DataError(
                f"class {label!r} has one picture; training and validation need one each"
            )
        count = min(len(keys) - 1, max(1, round(fraction * len(keys))))
        chosen.update(rng.permutation(keys)[:count].tolist())
    train = tuple(p for p in pictures if p.key not in chosen)
    return train, tuple(p for p in pictures if p.key in chosen)

"""Labels that are likely to be wrong, going by a model's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carspotter.data import DataSet
from carspotter.errors import DataError
from carspotter.evaluate.label_errors import likely_label_errors
from carspotter.evaluate.recorded import Recorded, read_recorded


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture whose label is likely to be wrong.

    Attributes:
        picture: its key.
        split: of the picture.
        label: that it has.
        probability: that the model gives this label, 0 to 1.
        guess: the most probable class.
        guess_probability: that the model gives it, 0 to 1.
    """

    picture: str
    split: str
    label: str
    probability: float
    guess: str
    guess_probability: float

    def to_dict(self) -> dict[str, Any]:
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class LabelCheck:
    """What predictions say of the labels.

    Attributes:
        file: of the predictions.
        pictures: how many were predicted, by split.
        suspects: most suspicious first.
    """

    file: Path
    pictures: Mapping[str, int]
    suspects: tuple[Suspect, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "predictions": str(self.file),
            "pictures": dict(self.pictures),
            "suspects": [suspect.to_dict() for suspect in self.suspects],
        }


def check_predictions(file: Path, data: DataSet) -> Recorded:
    """Read predictions, and check that they are of this data set.

    Raises:
        DataError: they cannot be read, or are of other pictures, classes or labels.
    """
    found = read_recorded(file)
    label_of = {picture.key: picture.label for picture in data.pictures}
    unknown = [key for key in found.pictures if key not in label_of]
    if unknown:
        raise DataError(
            f"{file}: predictions of another data set: {len(unknown)} of its "
            f"{len(found.pictures)} pictures are not in {data.root}, {unknown[0]!r} first"
        )
    strange = {label_of[key] for key in found.pictures} - set(found.class_names)
    if strange:
        raise DataError(
            f"{file}: the predictions know no class {min(strange)!r}, which {data.root} has; "
            "predict with a model of these classes"
        )
    # Keys are numbers in many data sets, and labels may have been put right since.
    other = sum(label_of[k] != label for k, label in zip(found.pictures, found.labels, strict=True))
    if 2 * other > len(found.pictures):
        raise DataError(
            f"{file}: predictions of another data set: {other} of its {len(found.pictures)} "
            f"pictures have other labels in {data.root}"
        )
    return found


def find_suspects(file: Path, found: Recorded, data: DataSet) -> LabelCheck:
    """Labels of the data set that its predictions speak against.

    Raises:
        DataError: the predictions are no probabilities.
    """
    pictures = {picture.key: picture for picture in data.pictures}
    number = {name: place for place, name in enumerate(found.class_names)}
    targets = np.array([number[pictures[key].label] for key in found.pictures], np.int64)
    try:
        places = likely_label_errors(found.probabilities, targets)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    suspects = []
    for place in places.tolist():
        picture, row = pictures[found.pictures[place]], found.probabilities[place]
        guess = int(row.argmax())
        suspects.append(
            Suspect(
                picture.key,
                picture.split,
                picture.label,
                float(row[targets[place]]),
                found.class_names[guess],
                float(row[guess]),
            )
        )
    splits = [pictures[key].split for key in found.pictures]
    return LabelCheck(file, {s: splits.count(s) for s in sorted(set(splits))}, tuple(suspects))

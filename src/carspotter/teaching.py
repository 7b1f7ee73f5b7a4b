"""Teaching: from a few photos of a car that the model was never trained on to a garage file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from carspotter.errors import PhotoError
from carspotter.garage import Garage, TaughtPhoto, editing, read_garage, write_garage
from carspotter.names import CarName
from carspotter.photo import MIN_SIDE, photo_bytes, photo_name, read_photo
from carspotter.preprocess import to_input
from carspotter.results import Candidate, Failure

if TYPE_CHECKING:
    from carspotter.photo import PhotoSource, Pixels
    from carspotter.preprocess import Box
    from carspotter.spotter import CropMode, Spotter

INNER = 0.06
"""What is cut off on each side of a photo for a second, closer look at it, as a share of it."""


@dataclass(frozen=True)
class Lesson:
    """What came of teaching.

    Attributes:
        name: the car.
        photos: how many photos the car is known from now; 0 if it was not taught.
        added: the photos that were new.
        skipped: photos that were in the garage already, or were given twice.
        failed: photos that could not be used, and why.
        taken_for: photos that the model is sure to know as one of its own classes.
    """

    name: CarName
    photos: int
    added: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[tuple[str, Failure], ...]
    taken_for: tuple[tuple[str, Candidate], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "label": self.name.label,
            "make": self.name.make,
            "model": self.name.model,
            "body": self.name.body,
            "year": self.name.year,
            "photos": self.photos,
            "added": list(self.added),
            "skipped": list(self.skipped),
            "failed": [{"photo": p, "error": failure.to_dict()} for p, failure in self.failed],
            "taken_for": [{"photo": p, **taken.to_dict()} for p, taken in self.taken_for],
        }


@dataclass
class _Seen:
    """What was seen of the photos, by name."""

    photos: list[tuple[str, TaughtPhoto]] = field(default_factory=list)
    failed: list[tuple[str, Failure]] = field(default_factory=list)
    taken_for: list[tuple[str, Candidate]] = field(default_factory=list)


def teach(
    spotter: Spotter,
    file: str | os.PathLike[str],
    name: CarName,
    photos: Iterable[PhotoSource],
    *,
    add: bool = False,
    box: Box | None = None,
    crop: CropMode = "auto",
) -> Lesson:
    """Teach a car, or more photos of it, into a garage file, which is made if there is none.

    A photo that cannot be used is left out, and the others are taught. Several processes may teach
    into one file.

    Args:
        spotter: looks at the photos; its detector, if it has one, finds the car on each.
        file: the garage.
        name: the car; `names.name_of` makes one.
        photos: as for `Spotter.identify`.
        add: whether these are more photos of a car that is taught already.
        box: where the car is, in pixels of the upright photo.
        crop: "auto": find the car first, where there is a detector; "none": whole photos.

    Raises:
        UsageError: the name is one of the model's own, or is taught already and `add` is not set,
            or the other way round.
        GarageError: the file is damaged, no garage, or of another model; it stays as it is.
        OSError: the file cannot be written.
    """
    garage = open_or_new(spotter, Path(file))
    garage.check(name, add=add)  # before the long part
    seen = _look(spotter, photos, box, crop)
    with editing(file) as path:
        garage = open_or_new(spotter, path)
        garage.check(name, add=add)
        added, skipped, failed = _sorted(garage, name, seen)
        if added:
            garage = garage.teach(name, [photo for _, photo in added], add=add)
            write_garage(path, garage)
    car = garage.find(name.label)
    return Lesson(
        name=name if car is None else car.name,
        photos=0 if car is None else len(car.photos),
        added=tuple(photo for photo, _ in added),
        skipped=tuple(skipped),
        failed=(*seen.failed, *failed),
        taken_for=tuple(seen.taken_for),
    )


def open_or_new(spotter: Spotter, path: Path) -> Garage:
    """The garage of a file, or an empty one where there is no file.

    Raises:
        GarageError: the file is damaged, no garage, or of another model.
    """
    if not path.exists():
        return Garage(spotter.info, tuple(name.label for name in spotter.card.classes))
    garage = read_garage(path)
    spotter.with_garage(garage)  # refuses another model's
    return garage


def look_at(spotter: Spotter, part: Pixels, sha256: str = "") -> TaughtPhoto:
    """What a garage keeps of the part of a photo (h, w, 3) uint8 RGB that shows the car.

    Means over four views of it, so that one photo says more: whole and closer, each as it is and
    mirrored.
    """
    size, resize = spotter.card.input_size, spotter.card.resize
    height, width = (round(INNER * side) for side in part.shape[:2])
    inner = part[height : part.shape[0] - height, width : part.shape[1] - width]
    inputs = [to_input(pixels, size, resize) for pixels in (part, inner)]
    views = np.stack([*inputs, *(view[:, ::-1] for view in inputs)])
    found = spotter.outputs(views)
    return TaughtPhoto(
        sha256,
        found.logits.mean(axis=0).astype(np.float16),
        found.embedding.mean(axis=0).astype(np.float16),
    )


def _look(
    spotter: Spotter, photos: Iterable[PhotoSource], box: Box | None, crop: CropMode
) -> _Seen:
    """Look at each photo once."""
    seen = _Seen()
    plain = spotter.with_garage(None)
    for source in photos:
        name = photo_name(source)
        try:
            photo, sha256 = _content(source, name)
            part = plain.main_view(photo, name=name, box=box, crop=crop)
        except PhotoError as error:
            seen.failed.append((name, Failure(error.code, str(error))))
            continue
        if part is None:
            reason = f"{name}: no car found; --crop none takes all of it"
            seen.failed.append((name, Failure("no_car", reason)))
            continue
        height, width = part.shape[:2]
        if min(height, width) < MIN_SIDE:
            reason = (
                f"{name}: its part with the car is {width}x{height} pixels; it needs at least "
                f"{MIN_SIDE} on each side"
            )
            seen.failed.append((name, Failure("too_small", reason)))
            continue
        seen.photos.append((name, look_at(spotter, part, sha256)))
        found = plain.identify(part, top_k=1, crop="none")
        # By the model file's own threshold: another of answers says nothing of how sure it is.
        if found.candidates[0].confidence >= spotter.card.thresholds["exact"]:
            seen.taken_for.append((name, found.candidates[0]))
    return seen


def _content(source: PhotoSource, name: str) -> tuple[PhotoSource, str]:
    """A photo, and the SHA-256 of its file, or of its pixels where it has none."""
    if isinstance(source, Image.Image):
        source = read_photo(source, name=name)
    if isinstance(source, np.ndarray):
        shape = f"{source.shape} ".encode()
        return source, hashlib.sha256(shape + source.tobytes()).hexdigest()
    data = photo_bytes(source, name)
    return data, hashlib.sha256(data).hexdigest()


def _sorted(
    garage: Garage, name: CarName, seen: _Seen
) -> tuple[list[tuple[str, TaughtPhoto]], list[str], list[tuple[str, Failure]]]:
    """Photos that are new to the garage; such as it has of this car; such as are another car's."""
    added: dict[str, tuple[str, TaughtPhoto]] = {}
    skipped: list[str] = []
    failed: list[tuple[str, Failure]] = []
    for path, photo in seen.photos:
        owner = garage.owner(photo.sha256)
        if owner is not None and owner is not garage.find(name.label):
            reason = f"{path}: {owner.name.label} was taught from this photo"
            failed.append((path, Failure("taught_before", reason)))
        elif owner is not None or photo.sha256 in added:
            skipped.append(path)
        else:
            added[photo.sha256] = (path, photo)
    return list(added.values()), skipped, failed

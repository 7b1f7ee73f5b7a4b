"""The garage: cars that a model was never trained on, known from a few photos of each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carspotter.errors import GarageError, UsageError
from carspotter.files import locked, replacing
from carspotter.likeness import Likeness, product, unit
from carspotter.names import CarName, folded
from carspotter.results import ModelInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class TaughtPhoto:
    """What a garage keeps of a photo.

    Attributes:
        sha256: of the photo, as hex digits: the same photo does not count twice.
        logits: (K,) float16 of the classes that the model knows.
        embedding: (D,) float16.
    """

    sha256: str
    logits: NDArray[np.float16]
    embedding: NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class TaughtCar:
    """A car that was taught.

    Attributes:
        name: its name, and the parts that were given.
        photos: in the order of teaching; at least one.
    """

    name: CarName
    photos: tuple[TaughtPhoto, ...]


@dataclass(frozen=True, eq=False)
class Garage:
    """Taught cars of one model. Each change gives another garage.

    Attributes:
        model: what the photos were looked at with: embeddings of another model mean nothing.
        known: the labels of the model's own classes.
        cars: in the order of teaching.
    """

    model: ModelInfo
    known: tuple[str, ...]
    cars: tuple[TaughtCar, ...] = ()

    def find(self, label: str) -> TaughtCar | None:
        """The car of this name; case, spaces and punctuation do not matter."""
        return next((c for c in self.cars if folded(c.name.label) == folded(label)), None)

    def owner(self, sha256: str) -> TaughtCar | None:
        """The car that was taught from this photo."""
        return next((c for c in self.cars if any(p.sha256 == sha256 for p in c.photos)), None)

    def check(self, name: CarName, *, add: bool = False) -> None:
        """Check that a car of this name can be taught, or be given more photos.

        Raises:
            UsageError: it cannot.
        """
        car = self.find(name.label)
        if add and car is None:
            raise UsageError(f"{name.label} is not taught yet: leave --add out{self._listed()}")
        if add and car is not None and name not in (car.name, CarName(name.label)):
            raise UsageError(
                f"{name.label} is taught with other parts of its name; change them by "
                "`carspotter garage rename`"
            )
        if not add and car is not None:
            raise UsageError(
                f"{car.name.label} is taught already, from {in_photos(len(car.photos))}; "
                "--add gives it more, `carspotter garage forget` takes it away"
            )
        self._check_unknown(name)

    def teach(self, name: CarName, photos: Sequence[TaughtPhoto], *, add: bool = False) -> Garage:
        """Another garage, with a car or with more photos of it.

        Args:
            name: the car.
            photos: at least one; those that are in the garage already are left out.
            add: whether these are more photos of a taught car.

        Raises:
            UsageError: the name is one of the model's own, or is taught already and `add` is not
                set, or the other way round.
            GarageError: the model says nothing finite of a photo.
        """
        self.check(name, add=add)
        new: dict[str, TaughtPhoto] = {}
        for photo in photos:
            if not (np.isfinite(photo.logits).all() and np.isfinite(photo.embedding).all()):
                raise GarageError(f"{self.model.name}: its embedding of a photo is not finite")
            if self.owner(photo.sha256) is None:
                new.setdefault(photo.sha256, photo)
        car = self.find(name.label) or TaughtCar(name, ())
        if not (new or car.photos):
            raise UsageError(f"{name.label}: a car is taught from at least one photo")
        taught = replace(car, photos=(*car.photos, *new.values()))
        if add:
            return replace(self, cars=tuple(taught if c is car else c for c in self.cars))
        return replace(self, cars=(*self.cars, taught))

    def forget(self, label: str) -> Garage:
        """Another garage, without a car.

        Raises:
            UsageError: there is none of this name.
        """
        car = self._need(label)
        return replace(self, cars=tuple(c for c in self.cars if c is not car))

    def rename(self, label: str, name: CarName) -> Garage:
        """Another garage, in which a car has another name.

        Raises:
            UsageError: there is none of the old name, or the new one is in use.
        """
        car = self._need(label)
        other = self.find(name.label)
        if other not in (None, car):
            raise UsageError(f"{name.label} is the name of another taught car")
        self._check_unknown(name)
        return replace(
            self, cars=tuple(replace(c, name=name) if c is car else c for c in self.cars)
        )

    def _need(self, label: str) -> TaughtCar:
        car = self.find(label)
        if car is None:
            raise UsageError(f"{label} is not taught{self._listed()}")
        return car

    def _check_unknown(self, name: CarName) -> None:
        for label in self.known:
            if folded(label) == folded(name.label):
                raise UsageError(
                    f"{label} is one of the classes that {self.model.name} knows; a car of "
                    "another kind needs another name"
                )

    def _listed(self) -> str:
        labels = [car.name.label for car in self.cars]
        more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
        return f"; in the garage: {', '.join(labels[:5]) or 'nothing'}{more}"


class JointScores:
    """The logits of a model's own classes and a garage's cars. Holds no state that a call changes.

    Args:
        garage: the cars; at least one.
        likeness: how photos are compared.
        temperature: the model's.
    """

    def __init__(self, garage: Garage, likeness: Likeness, temperature: float) -> None:
        self._likeness = likeness
        self._temperature = temperature
        photos = [photo for car in garage.cars for photo in car.photos]
        features = likeness.features(
            np.stack([p.logits for p in photos]).astype(np.float32),
            np.stack([p.embedding for p in photos]).astype(np.float32),
        )
        starts = np.cumsum([0, *(len(car.photos) for car in garage.cars[:-1])])
        counts = np.array([[len(car.photos)] for car in garage.cars], np.float32)
        means = (np.add.reduceat(features, starts, axis=0) / counts).astype(np.float32)
        self._prototypes = unit(means)
        self._offsets = likeness.offsets(means)
        self._known = likeness.known_cars()

    def __call__(
        self, logits: NDArray[np.float32], embeddings: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Logits (N, K + cars) for known logits (N, K) and embeddings (N, D) of N pictures.

        The taught cars' stand last.
        """
        features = self._likeness.features(logits, embeddings)
        taught = self._likeness.slope * product(features, self._prototypes) + self._offsets
        known = self._likeness.known_scale * logits
        if self._known is not None:
            slope = self._temperature * self._likeness.known_slope
            known = known + slope * product(features, self._known)
        return np.concatenate([known, self._temperature * taught], axis=1).astype(np.float32)


def read_garage(path: Path) -> Garage:
    """Read a garage file.

    Raises:
        GarageError: missing, unreadable, damaged, of a newer format, or not a garage.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            parts = {key: file[key] for key in ("about", "logits", "embeddings", "sha256")}
    except FileNotFoundError:
        raise GarageError(f"{path}: no such garage; `carspotter teach` makes one") from None
    except Exception as error:  # damaged archives raise nearly anything
        raise GarageError(f"{path}: not a garage, or a damaged one ({error})") from error
    if bytes(parts.pop("sha256")) != _checksum(parts):
        raise GarageError(f"{path}: damaged or changed, its checksum is wrong; take a copy of it")
    try:
        about = json.loads(bytes(parts["about"]))
        version = int(about["format_version"])
        if version > FORMAT_VERSION:
            raise GarageError(
                f"{path}: of format {version}, this carspotter reads up to {FORMAT_VERSION}; "
                "pip install -U carspotter"
            )
        return _unpacked(about, parts["logits"], parts["embeddings"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise GarageError(f"{path}: not a garage of carspotter ({error})") from error


def write_garage(path: Path, garage: Garage) -> None:
    """Write a garage file, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    photos = [photo for car in garage.cars for photo in car.photos]
    about = {
        "format_version": FORMAT_VERSION,
        "model": garage.model.to_dict(),
        "known": garage.known,
        "cars": [
            {"name": asdict(car.name), "photos": [p.sha256 for p in car.photos]}
            for car in garage.cars
        ],
    }
    text = json.dumps(about, ensure_ascii=False).encode()
    parts: dict[str, NDArray[Any]] = {
        "about": np.frombuffer(text, np.uint8),
        "logits": np.array([p.logits for p in photos], np.float16),
        "embeddings": np.array([p.embedding for p in photos], np.float16),
    }
    parts["sha256"] = np.frombuffer(_checksum(parts), np.uint8)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **parts)


@contextlib.contextmanager
def editing(file: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a garage that nobody else changes meanwhile: read it, then write it.

    Other processes that want to change it wait. One that dies, at whatever point, holds up nobody,
    and leaves the garage as it was.

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(os.path.realpath(file))  # a link stays a link
    with locked(path):
        yield path


def in_photos(count: int) -> str:
    """A count in words."""
    return "1 photo" if count == 1 else f"{count} photos"


def _checksum(parts: dict[str, NDArray[Any]]) -> bytes:
    digest = hashlib.sha256()
    for key in ("about", "logits", "embeddings"):
        part = np.ascontiguousarray(parts[key])
        digest.update(f"{part.dtype.str} {part.shape} ".encode())
        digest.update(part.tobytes())
    return digest.digest()


def _unpacked(about: Any, logits: NDArray[np.float16], embeddings: NDArray[np.float16]) -> Garage:
    """A garage from the parts of its file; ValueError, KeyError or TypeError where they misfit."""
    cars: list[TaughtCar] = []
    row = 0
    for car in about["cars"]:
        digests = car["photos"]
        photos = tuple(
            TaughtPhoto(str(digest), logits[row + n], embeddings[row + n])
            for n, digest in enumerate(digests)
        )
        if not photos:
            raise ValueError("a car without a photo")
        row += len(photos)
        cars.append(TaughtCar(CarName(**car["name"]), photos))
    known = tuple(str(label) for label in about["known"])
    if len(logits) != row or len(embeddings) != row:
        raise ValueError("its parts do not fit together")
    if row and (logits.shape[1:] != (len(known),) or embeddings.ndim != 2):
        raise ValueError("its parts do not fit together")
    if not (np.isfinite(logits).all() and np.isfinite(embeddings).all()):
        raise ValueError("not all are numbers")
    return Garage(ModelInfo(**about["model"]), known, tuple(cars))

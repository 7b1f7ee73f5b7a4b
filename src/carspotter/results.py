"""What a recognition says. Frozen; `Identification.to_dict()` is the same object everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from carspotter.names import CarName, Level
from carspotter.preprocess import Box

AnswerLevel: TypeAlias = Level | Literal["unknown"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible car.

    Attributes:
        name: the class and its parts.
        confidence: calibrated probability, 0 to 1.
    """

    name: CarName
    confidence: float

    @property
    def label(self) -> str:
        """The class name."""
        return self.name.label

    def to_dict(self) -> dict[str, Any]:
        return {**name_parts(self.name), "confidence": round(self.confidence, 4)}


@dataclass(frozen=True, slots=True)
class Answer:
    """The finest answer that the calibrated probability supports.

    Attributes:
        level: how fine it is; at `model` body and year are None, at `make` the model too, at
            `unknown` all are.
        name: what is answered, with only the parts that the level has.
        confidence: calibrated probability, 0 to 1, of what is answered; at `unknown` of the most
            probable make.
    """

    level: AnswerLevel
    name: CarName
    confidence: float

    @property
    def label(self) -> str:
        """The name at the answer's level: "BMW M3 Coupe 2012", "BMW M3", "BMW" or "unknown"."""
        return self.name.label

    def to_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            **name_parts(self.name),
            "confidence": round(self.confidence, 4),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a photo has no answer: a `PhotoError` as a value."""

    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answered: its name and version, and the SHA-256 of its file."""

    name: str
    version: str
    sha256: str

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Classes of which one is the right one, as often as is promised.

    Attributes:
        coverage: the promise: share of such sets that hold the right class, 0 to 1.
        candidates: the classes, the most probable first; at least one.
    """

    coverage: float
    candidates: tuple[Candidate, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "coverage": self.coverage,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


@dataclass(frozen=True, slots=True)
class Car:
    """A further car on a photo.

    Attributes:
        answer: which car it is.
        candidates: the most probable classes, best first.
        box: where it is, in pixels of the upright photo.
        label_set: a set that holds the right class as often as was asked for; None: not asked.
    """

    answer: Answer
    candidates: tuple[Candidate, ...]
    box: Box
    label_set: LabelSet | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "answer": self.answer.to_dict(),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "box": list(self.box),
            **({} if self.label_set is None else {"set": self.label_set.to_dict()}),
        }


@dataclass(frozen=True, slots=True)
class Identification:
    """The result for one photo.

    Attributes:
        photo: its path, or its kind in angle brackets ("<bytes>").
        answer: for the main car; None if the photo failed.
        candidates: the most probable classes, best first.
        box: where the main car is, in pixels of the upright photo; None where the whole was taken.
        model: which model answered.
        error: why there is no answer; None if there is one.
        others: the further cars, the largest first.
        label_set: a set that holds the main car's class as often as was asked for; None: not asked.
    """

    photo: str
    answer: Answer | None
    candidates: tuple[Candidate, ...]
    box: Box | None
    model: ModelInfo
    error: Failure | None = None
    others: tuple[Car, ...] = ()
    label_set: LabelSet | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the keys are part of the public contract."""
        return {
            "photo": self.photo,
            "answer": None if self.answer is None else self.answer.to_dict(),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "box": None if self.box is None else list(self.box),
            "others": [car.to_dict() for car in self.others],
            "model": self.model.to_dict(),
            "error": None if self.error is None else self.error.to_dict(),
            **({} if self.label_set is None else {"set": self.label_set.to_dict()}),
        }


def name_parts(name: CarName) -> dict[str, Any]:
    """A name as results have it."""
    return {
        "label": name.label,
        "make": name.make,
        "model": name.model,
        "body": name.body,
        "year": name.year,
    }


def in_percent(confidence: float) -> str:
    """A confidence, 0 to 1, in words: no answer is certain, however the figure rounds."""
    return "over 99 %" if confidence > 0.99 else f"{100 * confidence:.0f} %"

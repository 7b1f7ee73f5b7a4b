"""The model card: all that recognition needs to know of a model, kept inside its ONNX file.

The card is JSON in the metadata of the ONNX file, under `carspotter.card`. The file's last bytes
are one more metadata entry, `carspotter.sha256`: the SHA-256 of all bytes before it. Both are
ordinary ONNX metadata, so any tool reads the file; one that rewrites it breaks the checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from carspotter.errors import ModelFileError
from carspotter.names import LEVELS, CarName, Level
from carspotter.preprocess import ResizeMode

CARD_KEY = "carspotter.card"
CHECKSUM_KEY = "carspotter.sha256"
HEAD_KEY = "carspotter.no_head"
"""Metadata of a file without the output `head`: why its model has none."""

FORMAT_VERSION = 2
LOCALISER = "localiser"


@dataclass(frozen=True)
class Card:
    """What a model file says of itself.

    Attributes:
        name: the model's name.
        version: of the model.
        classes: in the order of the logits.
        input_size: side of the square input, in pixels.
        resize: how pictures are brought to it.
        mean: per channel, 0 to 1; applied inside the model.
        std: per channel, 0 to 1; applied inside the model.
        temperature: of the softmax.
        thresholds: the least calibrated probability at which each level is answered.
        trained_on: the data: layout, split, crop, counts, fingerprint.
        accuracy: measured figures, with split and protocol.
        notes: what figures do not say, as Markdown: use, licence limits, known faults.
        sets: by promised coverage ("0.95"), the least probability of a class in a set that holds
            the right one so often.
    """

    name: str
    version: str
    classes: tuple[CarName, ...]
    input_size: int
    resize: ResizeMode
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    temperature: float
    thresholds: Mapping[Level, float]
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""
    sets: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text that goes into the metadata."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, sort_keys=True)


@dataclass(frozen=True)
class LocaliserCard:
    """What a localiser's file says of itself.

    Attributes:
        name: the model's name.
        version: of the model.
        input_size: width and height of the input, in pixels.
        threshold: the least score of a vehicle.
        trained_on: the data.
        accuracy: measured figures, with what they were measured on.
    """

    name: str
    version: str
    input_size: tuple[int, int]
    threshold: float
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text that goes into the metadata."""
        values = {"format_version": FORMAT_VERSION, "kind": LOCALISER, **asdict(self)}
        return json.dumps(values, sort_keys=True)


def parse_card(text: str, file: str) -> Card:
    """Read a classifier's card back.

    Args:
        text: what `Card.to_json` gave.
        file: the model file, for errors.

    Raises:
        ModelFileError: of a newer format, or not a classifier's card.
    """
    values = _values(text, file, None)
    try:
        values["classes"] = tuple(CarName(**name) for name in values["classes"])
        values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
        card = Card(**values)
        _check(card)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{file}: its card is not complete ({error})") from error
    return card


def parse_localiser_card(text: str, file: str) -> LocaliserCard:
    """Read a localiser's card back; see `parse_card`."""
    values = _values(text, file, LOCALISER)
    try:
        width, height = values["input_size"]
        values["input_size"] = (int(width), int(height))
        card = LocaliserCard(**values)
        if not 0 <= card.threshold <= 1:
            raise ValueError("wrong: threshold")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{file}: its card is not complete ({error})") from error
    return card


def _values(text: str, file: str, kind: str | None) -> dict[str, Any]:
    """The values of a card of a kind; None: a classifier's."""
    try:
        values: dict[str, Any] = json.loads(text)
        version = int(values.pop("format_version"))
        found = values.pop("kind", None)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelFileError(f"{file}: its card cannot be read ({error})") from error
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{file}: of format {version}, this carspotter reads up to {FORMAT_VERSION}; "
            "pip install -U carspotter"
        )
    if found != kind:
        what = "a localiser, which --detector takes" if kind is None else "no localiser"
        raise ModelFileError(f"{file}: {what}")
    return values


def _check(card: Card) -> None:
    """Raise ValueError where a value is not what `Card` says."""
    fit = {
        "classes": len(card.classes) > 0,
        "input_size": isinstance(card.input_size, int) and card.input_size > 0,
        "resize": card.resize in get_args(ResizeMode),
        "temperature": math.isfinite(card.temperature) and card.temperature > 0,
        "thresholds": isinstance(card.thresholds, dict) and set(card.thresholds) == set(LEVELS),
        "notes": isinstance(card.notes, str),
        "sets": isinstance(card.sets, dict)
        and all(0 < float(key) < 1 and 0 <= value <= 1 for key, value in card.sets.items()),
    }
    wrong = [name for name, right in fit.items() if not right]
    if wrong:
        raise ValueError(f"wrong: {', '.join(wrong)}")


def sealed(model: bytes) -> bytes:
    """A serialised ONNX model with its checksum behind it."""
    return model + _trailer(hashlib.sha256(model).hexdigest())


def is_sealed(path: Path) -> bool:
    """Whether a file ends as carspotter's model files do."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_trailer("0" * 64))))
        return CHECKSUM_KEY.encode() in file.read()


def unsealed(path: Path) -> tuple[bytes, str]:
    """Read a model file and check it.

    Returns:
        The file's bytes and their SHA-256, as hex digits.

    Raises:
        ModelFileError: missing, unreadable, without a checksum, or damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such model file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    length = len(_trailer("0" * 64))
    content, trailer = memoryview(data)[:-length], data[-length:]
    if CHECKSUM_KEY.encode() not in trailer:
        raise ModelFileError(
            f"{path}: not a model file of carspotter, or cut short; "
            "make one by `carspotter export RUN --out model.onnx`"
        )
    digest = hashlib.sha256(content)
    if trailer != _trailer(digest.hexdigest()):
        raise ModelFileError(f"{path}: damaged or changed, its checksum is wrong; get it again")
    digest.update(trailer)
    return data, digest.hexdigest()


def _trailer(checksum: str) -> bytes:
    """A metadata entry in ONNX's protobuf encoding: appended to a model, it is part of it."""
    entry = _field(1, CHECKSUM_KEY.encode()) + _field(2, checksum.encode())
    return _field(14, entry)  # ModelProto.metadata_props


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field; all lengths here are below 128 and take one byte."""
    return bytes([number << 3 | 2, len(content)]) + content

"""Where the vehicles on a photo are: carspotter's own localiser, or a YOLO-style file.

Both are ONNX files and run in onnxruntime.
"""

from __future__ import annotations

import ast
import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from carspotter.card import CARD_KEY, LocaliserCard, is_sealed, parse_localiser_card, unsealed
from carspotter.errors import ModelFileError
from carspotter.preprocess import Box, clip_box, crop_to_box, to_input
from carspotter.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

MARGIN = 0.04
"""What is added to a box on each side, as a share of its mean side: as much as the pictures have
that the classifier was trained on, 16 pixels around cars of some 400."""

MOST = 50
"""So many vehicles of one photo are named at most, the largest ones."""

VEHICLE_NAMES = frozenset({"car", "truck", "bus", "van", "minivan", "pickup", "vehicle"})
"""Classes of a foreign detector that are looked at, in lower case."""

_YOLO_SCORE = 0.25
_YOLO_DOUBLES = 0.5
_GREY = 114


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle on a photo.

    Attributes:
        box: left, top, right, bottom in pixels of the photo.
        score: how sure it is that there is one, 0 to 1.
    """

    box: Box
    score: float


class Detector(Protocol):
    """Finds vehicles."""

    @property
    def one_thread(self) -> Detector:
        """The same with one thread to a run, for runs side by side."""
        ...

    def find(self, photo: Image.Image) -> tuple[Vehicle, ...]:
        """The vehicles on a photo, RGB, the largest first."""
        ...


class Localiser:
    """carspotter's own localiser. Holds no state that a call changes.

    Args:
        path: a localiser's file.
        threads: how many to compute with.
        provider: what computes; see `session.PROVIDERS`.

    Raises:
        ModelFileError: missing, damaged, too new, or not a localiser's file.
    """

    def __init__(self, path: Path, *, threads: int, provider: str = "cpu") -> None:
        data, _ = unsealed(path)
        self._opened = Session(data, path, threads, provider)
        metadata = self._opened.ort.get_modelmeta().custom_metadata_map
        if CARD_KEY not in metadata:
            raise ModelFileError(f"{path}: has no card; make it by `carspotter export`")
        self.card: LocaliserCard = parse_localiser_card(metadata[CARD_KEY], str(path))
        self.path = path

    @property
    def one_thread(self) -> Localiser:
        """The same with one thread to a run, for runs side by side."""
        other = copy.copy(self)
        other._opened = self._opened.one_thread
        return other

    def find(self, photo: Image.Image) -> tuple[Vehicle, ...]:
        """The vehicles on a photo, RGB, the largest first."""
        boxes, scores = self.boxes(photo)
        kept = scores >= self.card.threshold
        return _vehicles(boxes[kept], scores[kept], photo.size)

    def boxes(self, photo: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (n, 4) in pixels of the photo and scores (n,), however unlikely, best first."""
        width, height = self.card.input_size
        boxes, scores = self._opened.ort.run(
            ["boxes", "scores"], {"pixels": to_input(photo, (width, height))}
        )
        scale = np.array([photo.width / width, photo.height / height], np.float32)
        return boxes * np.tile(scale, 2), scores


class YoloDetector:
    """A detector in the form in which YOLO models are exported to ONNX.

    Its one input is (1, 3, H, W) float32, 0 to 1; its output (1, 4 + C, N) centre, size and
    scores of C classes, (1, N, 5 + C) with a score of there being anything, or (1, N, 6) corners,
    score and class, without doubles. Class names are in its metadata, as Ultralytics writes them;
    80 nameless classes are COCO's.

    Args:
        path: the ONNX file.
        threads: how many to compute with.
        provider: what computes; see `session.PROVIDERS`.

    Raises:
        ModelFileError: it cannot be loaded, is of another form, or knows no vehicle.
    """

    def __init__(self, path: Path, *, threads: int, provider: str = "cpu") -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read ({error})") from error
        self._opened = Session(data, path, threads, provider)
        self._path = path
        inputs, outputs = self._opened.ort.get_inputs(), self._opened.ort.get_outputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or inputs[0].type != "tensor(float)":
            raise self._foreign("its input must be (1, 3, H, W) float32")
        if len(outputs[0].shape) != 3:
            raise self._foreign("its first output must have three dimensions")
        self._input = inputs[0].name
        self._size = tuple(side if isinstance(side, int) else 640 for side in (shape[3], shape[2]))
        self._vehicles = self._vehicle_classes()

    @property
    def one_thread(self) -> YoloDetector:
        """The same with one thread to a run, for runs side by side."""
        other = copy.copy(self)
        other._opened = self._opened.one_thread
        return other

    def find(self, photo: Image.Image) -> tuple[Vehicle, ...]:
        """The vehicles on a photo, RGB, the largest first."""
        batch, scale, corner = self._letterbox(photo)
        found = self._opened.ort.run(None, {self._input: batch})[0][0]
        boxes, scores = self._read(np.asarray(found, np.float32))
        boxes = (boxes - np.tile(corner, 2)) / scale
        return _vehicles(boxes, scores, photo.size)

    def _letterbox(
        self, photo: Image.Image
    ) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
        """The photo on a grey ground, its scale there, and its left top corner."""
        width, height = self._size
        scale = min(width / photo.width, height / photo.height)
        w, h = (max(1, round(side * scale)) for side in photo.size)
        ground = Image.new("RGB", (width, height), (_GREY, _GREY, _GREY))
        corner = ((width - w) // 2, (height - h) // 2)
        ground.paste(photo.resize((w, h), Image.Resampling.BILINEAR), corner)
        batch = np.asarray(ground, np.float32).transpose(2, 0, 1)[None] / 255
        return np.ascontiguousarray(batch), scale, np.array(corner, np.float32)

    def _read(self, found: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (n, 4) in pixels of the input, and scores (n,), of vehicles alone."""
        count = max(self._vehicles) + 1
        # One class and a score of there being anything make six numbers too, at more places.
        if found.shape[1] == 6 and found.shape[0] <= 1000:
            is_vehicle = np.isin(found[:, 5].astype(int), sorted(self._vehicles))
            kept = is_vehicle & (found[:, 4] >= _YOLO_SCORE)
            return found[kept, :4], found[kept, 4]
        if found.shape[0] < found.shape[1]:
            found = found.T
            scores = found[:, 4:]
        else:
            scores = found[:, 4:5] * found[:, 5:]
        if scores.shape[1] < count:
            raise self._foreign(f"it has {scores.shape[1]} classes, its names speak of more")
        best = scores[:, sorted(self._vehicles)].max(axis=1)
        kept = best >= _YOLO_SCORE
        centre, half = found[kept, :2], found[kept, 2:4] / 2
        return without_doubles(
            np.concatenate([centre - half, centre + half], axis=1), best[kept], _YOLO_DOUBLES
        )

    def _vehicle_classes(self) -> frozenset[int]:
        text = self._opened.ort.get_modelmeta().custom_metadata_map.get("names")
        if text is None:
            return frozenset({2, 5, 7})  # COCO's car, bus and truck
        try:
            names = ast.literal_eval(text)
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            found = frozenset(int(n) for n, name in pairs if str(name).lower() in VEHICLE_NAMES)
        except (ValueError, SyntaxError, TypeError) as error:
            raise self._foreign(f"its class names cannot be read ({error})") from error
        if not found:
            raise self._foreign(f"none of its classes is one of {', '.join(sorted(VEHICLE_NAMES))}")
        return found

    def _foreign(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: not a detector that can be used: {reason}")


def load_detector(file: str | os.PathLike[str], *, threads: int, provider: str = "cpu") -> Detector:
    """Load a localiser of carspotter's, or a YOLO-style file.

    Raises:
        ModelFileError: it is neither.
    """
    path = Path(file)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such detector file")
    kind = Localiser if is_sealed(path) else YoloDetector
    return kind(path, threads=threads, provider=provider)


def cars(detector: Detector, photo: Image.Image) -> list[tuple[Box, Box]]:
    """Each vehicle on a photo, RGB: its box, and the box with the margin.

    The largest comes first: it is the main car.
    """
    found = [vehicle.box for vehicle in detector.find(photo)]
    return [(box, with_margin(box, *photo.size)) for box in found]


def main_view(detector: Detector, pixels: Pixels) -> Pixels:
    """The main car's part of a photo (H, W, 3) uint8 RGB; all of it where no vehicle is found."""
    found = cars(detector, Image.fromarray(pixels))
    return crop_to_box(pixels, found[0][1]) if found else pixels


def with_margin(box: Box, width: int, height: int) -> Box:
    """A box with its margin, as far as that lies within a photo of this size."""
    margin = round(MARGIN * ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5)
    left, top, right, bottom = box
    wide = (left - margin, top - margin, right + margin, bottom + margin)
    return clip_box(wide, width, height) or box


def without_doubles(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], most: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Greedy suppression: of boxes that overlap by more than `most`, the best one stays."""
    kept: list[int] = []
    rest = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        low = np.maximum(boxes[rest, :2], boxes[best, :2])
        high = np.minimum(boxes[rest, 2:], boxes[best, 2:])
        shared = np.prod(np.maximum(0, high - low), axis=1)
        rest = rest[shared <= most * (areas[rest] + areas[best] - shared)]
    return boxes[kept], scores[kept]


def _vehicles(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], size: tuple[int, int]
) -> tuple[Vehicle, ...]:
    """Boxes (n, 4) in pixels as vehicles, the largest first; those without a pixel are dropped.

    `size` is the photo's width and height.
    """
    found = []
    for corners, score in zip(np.rint(boxes).astype(int), scores, strict=True):
        left, top, right, bottom = (int(side) for side in corners)
        box = clip_box((left, top, right, bottom), *size)
        if box is not None:
            found.append(Vehicle(box, float(score)))
    found.sort(key=lambda v: (v.box[0] - v.box[2]) * (v.box[3] - v.box[1]))
    return tuple(found[:MOST])

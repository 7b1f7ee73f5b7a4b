"""Recognition: a model file in onnxruntime, from photos to results."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np
import onnxruntime as ort

from carspotter.card import CARD_KEY, Card, parse_card, unsealed
from carspotter.decide import Decider
from carspotter.detect import Detector, load_detector, views
from carspotter.errors import GarageError, ModelFileError, PhotoError, UsageError
from carspotter.garage import Garage, TaughtScores, read_garage
from carspotter.likeness import SPACE_KEY, Likeness, likeness_in, parse_space
from carspotter.photo import photo_name, read_photo
from carspotter.preprocess import Box, clip_box, crop_to_box, to_input
from carspotter.results import Car, Failure, Identification, ModelInfo
from carspotter.session import open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import PhotoSource, Pixels

    _Waiting: TypeAlias = deque[tuple[str, Future[list["_View"]]]]

DEFAULT_MODEL = "stanford-cars-lite0"

CropMode: TypeAlias = Literal["auto", "none"]
"""`auto`: each vehicle that a detector finds is looked at by itself; `none`: the whole photo."""

_BATCH = 8


def shipped_models() -> dict[str, Path]:
    """The models inside the package: name and file."""
    folder = resources.files("carspotter").joinpath("models")
    files = sorted(Path(str(folder)).glob("*.onnx"))
    return {file.stem: file for file in files}


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    detector: str | os.PathLike[str] | None = None,
    garage: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Spotter:
    """Load a model for recognition.

    Args:
        model: a shipped model's name or an ONNX file; by default the embedded model.
        detector: an ONNX file that finds the vehicles on a photo, a localiser of carspotter's or
            one in YOLO's form; by default each photo is looked at as a whole.
        garage: a file of cars that were taught to this model; they are answered like any other.
        threads: how many to compute with; by default one for each core.

    Raises:
        ModelFileError: no such model, or not one of carspotter's, damaged or too new.
        GarageError: no such garage, not one, damaged, too new, or of another model.
        UsageError: a number of threads below 1.
    """
    shipped = shipped_models()
    name = os.fspath(model) if model is not None else DEFAULT_MODEL
    path = shipped.get(name, Path(name))
    if not os.path.isfile(path):
        known = ", ".join(shipped) or "none"
        raise ModelFileError(f"{name}: neither a model file nor a shipped model ({known})")
    found = Spotter(path, threads=threads)
    if garage is not None:
        found = found.with_garage(read_garage(Path(garage)))
    if detector is None:
        return found
    return found.with_detector(load_detector(detector, threads=threads or _cores()))


class Outputs(NamedTuple):
    """What the model says of N pictures.

    Attributes:
        logits: (N, classes) of the classes that it knows.
        embedding: (N, D).
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]


class _View(NamedTuple):
    """What the model looks at: pixels, where they are on the photo, and whether it is a car."""

    pixels: Pixels
    box: Box | None
    is_car: bool = True


class Spotter:
    """Names the cars on photos. Holds no state that a call changes: one serves many threads.

    Args:
        path: a model file.
        detector: finds the vehicles on a photo; None: each photo is looked at as a whole.
        threads: how many to compute with; by default one for each core.

    Raises:
        ModelFileError: missing, damaged, too new, or not a model file of carspotter.
        UsageError: a number of threads below 1.
    """

    def __init__(
        self, path: Path, *, detector: Detector | None = None, threads: int | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        data, sha256 = unsealed(path)
        self._session = open_session(data, path, threads or _cores())
        metadata = self._session.get_modelmeta().custom_metadata_map
        if CARD_KEY not in metadata:
            raise ModelFileError(f"{path}: has no card; make it by `carspotter export`")
        self.card: Card = parse_card(metadata[CARD_KEY], str(path))
        _check_graph(self._session, self.card, path)
        self._threads = threads or _cores()
        self._detector = detector
        self.path = path
        self.info = ModelInfo(self.card.name, self.card.version, sha256)
        self._decider = Decider(self.card.classes, self.card.temperature, self.card.thresholds)
        self.likeness: Likeness = _likeness(self._session, metadata, path)
        self._taught: TaughtScores | None = None

    def logits(self, inputs: Pixels) -> NDArray[np.float32]:
        """Logits (N, classes) of inputs (N, S, S, 3) uint8, as `preprocess.to_input` makes them."""
        return cast("NDArray[np.float32]", self._session.run(["logits"], {"pixels": inputs})[0])

    def outputs(self, inputs: Pixels) -> Outputs:
        """Logits and embedding of inputs (N, S, S, 3) uint8; `logits` gives the first alone."""
        return Outputs(*self._session.run(["logits", "embedding"], {"pixels": inputs}))

    def identify(
        self,
        photo: PhotoSource,
        *,
        top_k: int = 5,
        box: Box | None = None,
        crop: CropMode = "auto",
    ) -> Identification:
        """Name the cars on one photo.

        Args:
            photo: a path, bytes, file object, PIL image, or (H, W, 3) uint8 RGB array.
            top_k: how many candidates to give for each car.
            box: look only here; left, top, right, bottom in pixels of the upright photo.
            crop: "auto": find the cars first, where there is a detector; "none": take the photo
                as a whole.

        Raises:
            PhotoError: the photo cannot be used, or the box lies outside of it.
            UsageError: `top_k` is below 1, the box is turned around, or another `crop`.
        """
        _check(top_k, box, crop)
        views = self._views(photo, box, crop)
        return self._result(photo_name(photo), views, self._all_logits(views), top_k)

    def identify_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        top_k: int = 5,
        box: Box | None = None,
        crop: CropMode = "auto",
    ) -> Iterator[Identification]:
        """Name the cars on many photos, in order; decoding overlaps with recognition.

        A photo that cannot be used gives a result with `error`; the others are not touched by it.
        Memory stays bounded, however many photos there are.

        Args:
            photos: as for `identify`; taken from the iterable as they are needed.
            top_k: how many candidates to give.
            box: look only here, in each photo.
            crop: as for `identify`.

        Raises:
            UsageError: as for `identify`.
        """
        _check(top_k, box, crop)
        return self._identify_many(photos, top_k, box, crop)

    def with_detector(self, detector: Detector | None) -> Spotter:
        """The same model behind another detector, or behind none."""
        other = copy.copy(self)
        other._detector = detector
        return other

    def with_garage(self, garage: Garage | None) -> Spotter:
        """The same model with other taught cars, or with none.

        Raises:
            GarageError: they were taught to another model.
        """
        if garage is not None and garage.model.sha256 != self.info.sha256:
            raise GarageError(
                f"the garage was taught to {garage.model.name} ({garage.model.sha256[:12]}), not "
                f"to {self.info.name} ({self.info.sha256[:12]}), whose embeddings are others: "
                "take that --model, or teach the cars again"
            )
        cars = () if garage is None else garage.cars
        other = copy.copy(self)
        card = self.card
        names = (*card.classes, *(car.name for car in cars))
        other._decider = Decider(names, card.temperature, card.thresholds)
        other._taught = None
        if garage is not None and cars:
            other._taught = TaughtScores(garage, self.likeness, card.temperature)
        return other

    def main_view(
        self,
        photo: PhotoSource,
        *,
        name: str | None = None,
        box: Box | None = None,
        crop: CropMode = "auto",
    ) -> Pixels | None:
        """What `identify` looks at first: the main car's part of a photo, (h, w, 3) uint8 RGB.

        Args:
            photo: as for `identify`.
            name: how errors call the photo; by default its path, or its kind where it has none.
            box: as for `identify`.
            crop: as for `identify`.

        Returns:
            The part; None where the detector finds no car.

        Raises:
            PhotoError: as for `identify`.
            UsageError: as for `identify`.
        """
        _check(1, box, crop)
        name = name or photo_name(photo)
        part = self._parts(read_photo(photo, name=name), name, box, crop)[0]
        return part.pixels if part.is_car else None

    def _identify_many(
        self, photos: Iterable[PhotoSource], top_k: int, box: Box | None, crop: CropMode
    ) -> Iterator[Identification]:
        waiting: _Waiting = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for photo in photos:
                    job = pool.submit(self._views, photo, box, crop)
                    waiting.append((photo_name(photo), job))
                    if len(waiting) >= 2 * _BATCH:
                        yield from self._finish(_take(waiting), top_k)
                while waiting:
                    yield from self._finish(_take(waiting), top_k)
            finally:
                for _, job in waiting:
                    job.cancel()

    def _finish(
        self, batch: Sequence[tuple[str, Future[list[_View]]]], top_k: int
    ) -> Iterator[Identification]:
        ready: dict[int, list[_View]] = {}
        failures: dict[int, Failure] = {}
        for place, (_, job) in enumerate(batch):
            try:
                ready[place] = job.result()
            except PhotoError as error:
                failures[place] = Failure(error.code, str(error))
        rows = iter(self._all_logits([view for views in ready.values() for view in views]))
        for place, (name, _) in enumerate(batch):
            if place in failures:
                failure = failures[place]
                yield Identification(name, None, (), None, self.info, error=failure)
            else:
                views = ready[place]
                yield self._result(name, views, [next(rows) for _ in views], top_k)

    def _all_logits(self, views: Sequence[_View]) -> list[NDArray[np.float32]]:
        """Logits (classes,) of each view, those of taught cars behind the model's own."""
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(views), _BATCH):
            inputs = np.stack([v.pixels for v in views[start : start + _BATCH]])
            found += list(
                self.logits(inputs) if self._taught is None else self._with_taught(inputs)
            )
        return found

    def _with_taught(self, inputs: Pixels) -> NDArray[np.float32]:
        assert self._taught is not None
        known = self.outputs(inputs)
        return np.concatenate([known.logits, self._taught(*known)], axis=1)

    def _views(self, photo: PhotoSource, box: Box | None, crop: CropMode) -> list[_View]:
        """The parts of a photo as the model takes them."""
        size, resize = self.card.input_size, self.card.resize
        return [
            part._replace(pixels=to_input(part.pixels, size, resize))
            for part in self._parts(read_photo(photo), photo_name(photo), box, crop)
        ]

    def _parts(self, pixels: Pixels, name: str, box: Box | None, crop: CropMode) -> list[_View]:
        """What to look at on a photo: at least one part, the main car's first."""
        if box is not None:
            box = clip_box(box, pixels.shape[1], pixels.shape[0])
            if box is None:
                raise PhotoError("box_outside", f"{name}: the box lies outside of it")
            return [_View(crop_to_box(pixels, box), box)]
        if crop == "none" or self._detector is None:
            return [_View(pixels, None)]
        found = views(self._detector, pixels)
        if not found:
            return [_View(pixels, None, is_car=False)]
        return [_View(part, where) for part, where in found]

    def _result(
        self,
        name: str,
        views: Sequence[_View],
        logits: Sequence[NDArray[np.float32]],
        top_k: int,
    ) -> Identification:
        main, *further = [
            (
                (self._decider.answer if view.is_car else self._decider.unknown)(row),
                self._decider.candidates(row, top_k),
                view.box,
            )
            for view, row in zip(views, logits, strict=True)
        ]
        return Identification(
            photo=name,
            answer=main[0],
            candidates=main[1],
            box=main[2],
            model=self.info,
            others=tuple(Car(answer, best, box) for answer, best, box in further if box),
        )


def _take(waiting: _Waiting) -> list[tuple[str, Future[list[_View]]]]:
    return [waiting.popleft() for _ in range(min(_BATCH, len(waiting)))]


def _check(top_k: int, box: Box | None, crop: str) -> None:
    if top_k < 1:
        raise UsageError(f"top_k must be at least 1, not {top_k}")
    if box is not None and (box[0] >= box[2] or box[1] >= box[3]):
        raise UsageError(f"the box {box} must have left < right and top < bottom")
    if crop not in get_args(CropMode):
        raise UsageError(f"crop must be {' or '.join(get_args(CropMode))}, not {crop!r}")


def _check_graph(session: ort.InferenceSession, card: Card, path: Path) -> None:
    """Refuse a graph that does not fit its card, before the first photo does."""
    inputs = {node.name: node.shape for node in session.get_inputs()}
    outputs = {node.name: node.shape for node in session.get_outputs()}
    side, classes = card.input_size, len(card.classes)
    fits = (
        list(inputs) == ["pixels"]
        and inputs["pixels"][1:] == [side, side, 3]
        and {"logits", "embedding", "feature_map"} <= set(outputs)
        and outputs["logits"][1:] == [classes]
    )
    if not fits:
        raise ModelFileError(f"{path}: its graph does not fit its card; export it again")


def _likeness(session: ort.InferenceSession, metadata: Mapping[str, str], path: Path) -> Likeness:
    """How photos are compared by a model file."""
    if SPACE_KEY not in metadata:
        return likeness_in(None)
    width = next(node.shape[1] for node in session.get_outputs() if node.name == "embedding")
    return likeness_in(parse_space(metadata[SPACE_KEY], width, str(path)))


def _cores() -> int:
    """Cores that this process may use: fewer than the machine's, in a container or by taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

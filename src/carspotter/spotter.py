"""Recognition: a model file in onnxruntime, from photos to results."""

from __future__ import annotations

import contextlib
import copy
import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args

import numpy as np
import onnxruntime as ort

from carspotter.card import CARD_KEY, HEAD_KEY, Card, parse_card, unsealed
from carspotter.decide import Decider
from carspotter.detect import Detector, load_detector
from carspotter.errors import ModelFileError, UsageError
from carspotter.explain import Explanation, HeatMap, class_map
from carspotter.overlay import drawable
from carspotter.photo import photo_name
from carspotter.preprocess import Box
from carspotter.results import Car, Failure, Identification, ModelInfo
from carspotter.session import open_session
from carspotter.stream import in_batches
from carspotter.views import View, inputs, read_views

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from carspotter.photo import PhotoSource, Pixels

DEFAULT_MODEL = "stanford-cars-lite0"

CropMode: TypeAlias = Literal["auto", "none"]
"""`auto`: each vehicle that a detector finds is looked at by itself; `none`: the whole photo."""

_BATCH = 8

T = TypeVar("T")
R = TypeVar("R")


def shipped_models() -> dict[str, Path]:
    """The models inside the package: name and file."""
    folder = resources.files("carspotter").joinpath("models")
    files = sorted(Path(str(folder)).glob("*.onnx"))
    return {file.stem: file for file in files}


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    detector: str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> Spotter:
    """Load a model for recognition.

    Args:
        model: a shipped model's name or an ONNX file; by default the embedded model.
        detector: an ONNX file that finds the vehicles on a photo, a localiser of carspotter's or
            one in YOLO's form; by default each photo is looked at as a whole.
        threads: how many to compute with; by default one for each core.

    Raises:
        ModelFileError: no such model, or not one of carspotter's, damaged or too new.
        UsageError: a number of threads below 1.
    """
    shipped = shipped_models()
    name = os.fspath(model) if model is not None else DEFAULT_MODEL
    path = shipped.get(name, Path(name))
    if not os.path.isfile(path):
        known = ", ".join(shipped) or "none"
        raise ModelFileError(f"{name}: neither a model file nor a shipped model ({known})")
    found = Spotter(path, threads=threads)
    if detector is None:
        return found
    return found.with_detector(load_detector(detector, threads=threads or _cores()))


class _Drawable(NamedTuple):
    """A photo to be explained: its views, a picture of it to draw on, and its own size."""

    views: list[View]
    picture: Image.Image
    size: tuple[int, int]


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

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """Logits (N, classes) of inputs (N, S, S, 3) uint8, as `preprocess.to_input` makes them."""
        return cast("NDArray[np.float32]", self._session.run(["logits"], {"pixels": pixels})[0])

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
        _, views = self._read(photo, box, crop)
        return self._identified([(photo_name(photo), views)], top_k)[0]

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
        return self._many(
            photos,
            read=lambda photo: self._read(photo, box, crop)[1],
            finish=lambda ready: self._identified(ready, top_k),
            failed=lambda result: result,
        )

    def explain(
        self,
        photo: PhotoSource,
        *,
        label: str | None = None,
        top_k: int = 5,
        box: Box | None = None,
        crop: CropMode = "auto",
    ) -> Explanation:
        """Show where on a photo the model sees what speaks for a class.

        The result is that of `identify`, from the same run of the network.

        Args:
            photo: as for `identify`.
            label: the class to explain, on each car; by default each car's most probable class,
                whatever the level of its answer.
            top_k: as for `identify`.
            box: as for `identify`.
            crop: as for `identify`.

        Raises:
            PhotoError: as for `identify`.
            UsageError: as for `identify`, or the model has no such class.
            ModelFileError: the file does not carry what an exact heat map needs.
        """
        _check(top_k, box, crop)
        wanted = self._explainable(label)
        ready = self._drawable(photo, box, crop)
        return self._explained([(photo_name(photo), ready)], wanted, top_k)[0]

    def explain_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        label: str | None = None,
        top_k: int = 5,
        box: Box | None = None,
        crop: CropMode = "auto",
    ) -> Iterator[Explanation]:
        """Explain many photos, in order, as `identify_many` names them.

        A photo that cannot be used gives an explanation whose `result` has `error`.

        Args:
            photos: as for `identify_many`.
            label: as for `explain`.
            top_k: as for `identify`.
            box: look only here, in each photo.
            crop: as for `identify`.

        Raises:
            UsageError: as for `explain`, before the first photo.
            ModelFileError: as for `explain`, before the first photo.
        """
        _check(top_k, box, crop)
        wanted = self._explainable(label)
        return self._many(
            photos,
            read=lambda photo: self._drawable(photo, box, crop),
            finish=lambda ready: self._explained(ready, wanted, top_k),
            failed=Explanation,
        )

    def with_detector(self, detector: Detector | None) -> Spotter:
        """The same model behind another detector, or behind none."""
        other = copy.copy(self)
        other._detector = detector
        return other

    def _many(
        self,
        photos: Iterable[PhotoSource],
        *,
        read: Callable[[PhotoSource], T],
        finish: Callable[[list[tuple[str, T]]], list[R]],
        failed: Callable[[Identification], R],
    ) -> Iterator[R]:
        """Read photos in threads, finish those that could be read a batch at a time, in order."""
        batches = in_batches(photos, read, threads=self._threads, size=_BATCH)
        with contextlib.closing(batches):
            for batch in batches:
                ready = [(name, it) for name, it in batch if not isinstance(it, Failure)]
                finished = iter(finish(ready))
                for name, it in batch:
                    if isinstance(it, Failure):
                        yield failed(Identification(name, None, (), None, self.info, error=it))
                    else:
                        yield next(finished)

    def _identified(
        self, photos: Sequence[tuple[str, list[View]]], top_k: int
    ) -> list[Identification]:
        every = [view for _, views in photos for view in views]
        rows = (row for batch in inputs(every, _BATCH) for row in self.logits(batch))
        return [
            self._result(name, views, [next(rows) for _ in views], top_k) for name, views in photos
        ]

    def _explained(
        self, photos: Sequence[tuple[str, _Drawable]], wanted: int | None, top_k: int
    ) -> list[Explanation]:
        """Explanations of a class by its number; None: of each car's most probable one."""
        rows: list[tuple[NDArray[np.float32], int, NDArray[np.float32]]] = []
        for batch in inputs([view for _, photo in photos for view in photo.views], _BATCH):
            outputs = self._session.run(["logits", "feature_map", "head"], {"pixels": batch})
            for logits, feature_map in zip(*outputs[:2], strict=True):
                number = int(logits.argmax()) if wanted is None else wanted
                rows.append((logits, number, class_map(feature_map, outputs[2][number])))
        each, found = iter(rows), []
        for name, (views, picture, size) in photos:
            own = [next(each) for _ in views]
            result = self._result(name, views, [logits for logits, *_ in own], top_k)
            cars = tuple(
                HeatMap(self.card.classes[number].label, view.box, view.region, evidence)
                for view, (_, number, evidence) in zip(views, own, strict=True)
            )
            found.append(Explanation(result, cars, picture, size))
        return found

    @property
    def explains(self) -> bool:
        """Whether the file carries what an exact heat map needs."""
        return "head" in {output.name for output in self._session.get_outputs()}

    def _explainable(self, label: str | None) -> int | None:
        """The number of a class that is to be explained, where this model's can be."""
        if not self.explains:
            metadata = self._session.get_modelmeta().custom_metadata_map
            if HEAD_KEY in metadata:
                raise ModelFileError(f"{self.path}: has no exact heat map: {metadata[HEAD_KEY]}")
            raise ModelFileError(
                f"{self.path}: lacks the head's weights, of which a heat map is made, as files of "
                "older versions do; make it again by `carspotter export`"
            )
        if label is None:
            return None
        labels = [name.label for name in self.card.classes]
        if label not in labels:
            like = difflib.get_close_matches(label, labels, 1)
            hint = f"; did you mean {like[0]!r}?" if like else ""
            raise UsageError(f"the model has no class {label!r}{hint}")
        return labels.index(label)

    def _drawable(self, photo: PhotoSource, box: Box | None, crop: CropMode) -> _Drawable:
        pixels, views = self._read(photo, box, crop)
        return _Drawable(views, drawable(pixels), (pixels.shape[1], pixels.shape[0]))

    def _read(
        self, photo: PhotoSource, box: Box | None, crop: CropMode
    ) -> tuple[Pixels, list[View]]:
        detector = self._detector if crop == "auto" else None
        return read_views(photo, self.card, box=box, detector=detector)

    def _result(
        self,
        name: str,
        views: Sequence[View],
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
    if fits and "head" in outputs:
        fits = outputs["head"] == [classes, outputs["feature_map"][1]]
    if not fits:
        raise ModelFileError(f"{path}: its graph does not fit its card; export it again")


def _cores() -> int:
    """Cores that this process may use: fewer than the machine's, in a container or by taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

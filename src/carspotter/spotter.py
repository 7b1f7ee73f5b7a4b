"""Recognition: a model file in onnxruntime, from photos to results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import onnxruntime as ort

from carspotter.card import CARD_KEY, Card, parse_card, unsealed
from carspotter.decide import Decider
from carspotter.errors import ModelFileError, PhotoError, UsageError
from carspotter.photo import photo_name, read_photo
from carspotter.preprocess import Box, clip_box, crop_to_box, to_input
from carspotter.results import Failure, Identification, ModelInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import PhotoSource, Pixels

    _Waiting: TypeAlias = deque[tuple[str, Future[tuple[Pixels, Box | None]]]]

DEFAULT_MODEL = "stanford-cars-lite0"

_BATCH = 8


def shipped_models() -> dict[str, Path]:
    """The models inside the package: name and file."""
    folder = resources.files("carspotter").joinpath("models")
    files = sorted(Path(str(folder)).glob("*.onnx"))
    return {file.stem: file for file in files}


def load(model: str | os.PathLike[str] | None = None, *, threads: int | None = None) -> Spotter:
    """Load a model for recognition.

    Args:
        model: a shipped model's name or an ONNX file; by default the embedded model.
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
    return Spotter(path, threads=threads)


class Spotter:
    """Names the car on photos. Holds no state that a call changes: one serves many threads.

    Args:
        path: a model file.
        threads: how many to compute with; by default one for each core.

    Raises:
        ModelFileError: missing, damaged, too new, or not a model file of carspotter.
        UsageError: a number of threads below 1.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        data, sha256 = unsealed(path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or _cores()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(data, options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise ModelFileError(f"{path}: onnxruntime cannot load it ({error})") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        if CARD_KEY not in metadata:
            raise ModelFileError(f"{path}: has no card; make it by `carspotter export`")
        self.card: Card = parse_card(metadata[CARD_KEY], str(path))
        _check_graph(self._session, self.card, path)
        self._threads = threads or _cores()
        self.path = path
        self.info = ModelInfo(self.card.name, self.card.version, sha256)
        self._decider = Decider(self.card.classes, self.card.temperature, self.card.thresholds)

    def logits(self, inputs: Pixels) -> NDArray[np.float32]:
        """Logits (N, classes) of inputs (N, S, S, 3) uint8, as `preprocess.to_input` makes them."""
        return cast("NDArray[np.float32]", self._session.run(["logits"], {"pixels": inputs})[0])

    def identify(
        self, photo: PhotoSource, *, top_k: int = 5, box: Box | None = None
    ) -> Identification:
        """Name the car on one photo.

        Args:
            photo: a path, bytes, file object, PIL image, or (H, W, 3) uint8 RGB array.
            top_k: how many candidates to give.
            box: look only here; left, top, right, bottom in pixels of the upright photo.

        Raises:
            PhotoError: the photo cannot be used, or the box lies outside of it.
            UsageError: `top_k` is below 1, or the box is turned around.
        """
        _check_top_k(top_k)
        _check_box(box)
        pixels, area = self._input(photo, box)
        return self._result(photo_name(photo), self.logits(pixels[None])[0], top_k, area)

    def identify_many(
        self, photos: Iterable[PhotoSource], *, top_k: int = 5, box: Box | None = None
    ) -> Iterator[Identification]:
        """Name the car on many photos, in order; decoding overlaps with recognition.

        A photo that cannot be used gives a result with `error`; the others are not touched by it.
        Memory stays bounded, however many photos there are.

        Args:
            photos: as for `identify`; taken from the iterable as they are needed.
            top_k: how many candidates to give.
            box: look only here, in each photo.

        Raises:
            UsageError: `top_k` is below 1.
        """
        _check_top_k(top_k)
        _check_box(box)
        return self._identify_many(photos, top_k, box)

    def _identify_many(
        self, photos: Iterable[PhotoSource], top_k: int, box: Box | None
    ) -> Iterator[Identification]:
        waiting: _Waiting = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for photo in photos:
                    waiting.append((photo_name(photo), pool.submit(self._input, photo, box)))
                    if len(waiting) >= 2 * _BATCH:
                        yield from self._finish(_take(waiting), top_k)
                while waiting:
                    yield from self._finish(_take(waiting), top_k)
            finally:
                for _, job in waiting:
                    job.cancel()

    def _finish(
        self, batch: Sequence[tuple[str, Future[tuple[Pixels, Box | None]]]], top_k: int
    ) -> Iterator[Identification]:
        ready: dict[int, tuple[Pixels, Box | None]] = {}
        failures: dict[int, Failure] = {}
        for place, (_, job) in enumerate(batch):
            try:
                ready[place] = job.result()
            except PhotoError as error:
                failures[place] = Failure(error.code, str(error))
        rows = iter(self.logits(np.stack([x for x, _ in ready.values()])) if ready else ())
        for place, (name, _) in enumerate(batch):
            if place in failures:
                yield Identification(name, None, (), None, self.info, failures[place])
            else:
                yield self._result(name, next(rows), top_k, ready[place][1])

    def _input(self, photo: PhotoSource, box: Box | None) -> tuple[Pixels, Box | None]:
        """The model's input, and the part of the box that lies within the photo."""
        pixels = read_photo(photo)
        if box is not None:
            box = clip_box(box, pixels.shape[1], pixels.shape[0])
            if box is None:
                raise PhotoError("box_outside", f"{photo_name(photo)}: the box lies outside of it")
            pixels = crop_to_box(pixels, box)
        return to_input(pixels, self.card.input_size, self.card.resize), box

    def _result(
        self, name: str, logits: NDArray[np.float32], top_k: int, box: Box | None
    ) -> Identification:
        return Identification(
            photo=name,
            answer=self._decider.answer(logits),
            candidates=self._decider.candidates(logits, top_k),
            box=box,
            model=self.info,
        )


def _take(waiting: _Waiting) -> list[tuple[str, Future[tuple[Pixels, Box | None]]]]:
    return [waiting.popleft() for _ in range(min(_BATCH, len(waiting)))]


def _check_box(box: Box | None) -> None:
    if box is not None and (box[0] >= box[2] or box[1] >= box[3]):
        raise UsageError(f"the box {box} must have left < right and top < bottom")


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


def _cores() -> int:
    """Cores that this process may use: fewer than the machine's, in a container or by taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise UsageError(f"top_k must be at least 1, not {top_k}")

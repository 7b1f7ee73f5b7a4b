"""Recognition: a model file in onnxruntime, from photos to results."""

from __future__ import annotations

import contextlib
import copy
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from carspotter.arguments import check_photos, checked_box, whole_number
from carspotter.card import Card
from carspotter.detect import Detector
from carspotter.errors import UsageError
from carspotter.explain import Explanation, class_number
from carspotter.garage import Garage
from carspotter.likeness import Likeness
from carspotter.machine import cores
from carspotter.model_file import ModelFile, Outputs
from carspotter.overlay import drawable
from carspotter.photo import MAX_PIXELS, photo_name
from carspotter.preprocess import Box, part_of
from carspotter.recognition import BATCH, Drawable, Recognition
from carspotter.results import Identification, ModelInfo
from carspotter.stream import read_and_finished
from carspotter.views import (
    Observation,
    View,
    Wish,
    read_views,
    wish_for,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Photo, PhotoSource, Pixels

CropMode: TypeAlias = Literal["auto", "none"]
"""`auto`: each vehicle that a detector finds is looked at by itself; `none`: the whole photo."""

_FEW = 8
"""So many photos are done before there is a second session, which more of them are worth."""

T = TypeVar("T")
R = TypeVar("R")


class Spotter:
    """Names the cars on photos. Holds no state that a call changes: one serves many threads.

    Args:
        path: a model file.
        detector: finds the vehicles on a photo; None: each photo is looked at as a whole.
        threads: how many to compute with; by default one for each core.
        max_pixels: photos of more are refused before they are decoded.
        provider: what computes; see `session.PROVIDERS`.

    Raises:
        ModelFileError: missing, damaged, too new, or not a model file of carspotter.
        UsageError: a number of threads or pixels below 1, or a provider that is not to be had.
    """

    def __init__(
        self,
        path: Path,
        *,
        detector: Detector | None = None,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        provider: str = "cpu",
    ) -> None:
        self._threads = cores() if threads is None else whole_number(threads, "threads")
        self._model = ModelFile(path, self._threads, provider)
        self._detector = detector
        self._max_pixels = whole_number(max_pixels, "max_pixels")
        self._recognition = Recognition(self._model)

    @property
    def path(self) -> Path:
        """The model file."""
        return self._model.path

    @property
    def card(self) -> Card:
        """What the model file says of itself."""
        return self._model.card

    @property
    def info(self) -> ModelInfo:
        """The model's name, version and SHA-256."""
        return self._model.info

    @property
    def likeness(self) -> Likeness:
        """How photos of taught cars are compared."""
        return self._model.likeness

    @property
    def finds_cars(self) -> bool:
        """Whether the cars are looked for on each photo, unless a call says otherwise."""
        return self._detector is not None

    @property
    def explains(self) -> bool:
        """Whether the file carries what an exact heat map needs."""
        return self._model.explains

    @property
    def has_familiarity(self) -> bool:
        """Whether the file says how familiar a picture is; older ones do not."""
        return self._model.has_familiarity

    def familiarity(self, pixels: Pixels) -> NDArray[np.float32]:
        """(N,) how near inputs (N, S, S, 3) are to the cars of the training, -1 to 1."""
        return self._model.familiarity(pixels)

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """Logits (N, classes) of inputs (N, S, S, 3) uint8, as `preprocess.to_input` makes them."""
        return self._model.logits(pixels)

    def outputs(self, pixels: Pixels) -> Outputs:
        """Logits and embedding of inputs (N, S, S, 3) uint8; `logits` gives the first alone."""
        return self._model.outputs(pixels)

    def identify(
        self,
        photo: PhotoSource,
        *,
        top_k: int = 5,
        box: Box | None = None,
        crop: CropMode = "auto",
        coverage: float | None = None,
    ) -> Identification:
        """Name the cars on one photo.

        Args:
            photo: a path, bytes, file object, PIL image, or (H, W, 3) uint8 RGB array.
            top_k: how many candidates to give for each car.
            box: look only here; left, top, right, bottom in pixels of the upright photo.
            crop: "auto": find the cars first, where there is a detector; "none": take the photo
                as a whole.
            coverage: also give each car a set of classes that holds the right one so often, 0.95
                say; for photos like those that the model was validated on.

        Raises:
            PhotoError: the photo cannot be used, or the box lies outside of it.
            UsageError: `top_k` is no number or below 1, the box is none or turned around, another
                `crop`, or a coverage for which the model file has no threshold.
        """
        top_k, box = _checked(top_k, box, crop)
        wish = wish_for(top_k, coverage, self.card, self.path)
        _, views = self._read(photo, box, crop)
        return self._recognition.observed([(photo_name(photo), views)], wish)[0].result

    def identify_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        top_k: int = 5,
        box: Box | None = None,
        crop: CropMode = "auto",
        coverage: float | None = None,
    ) -> Iterator[Identification]:
        """Name the cars on many photos, in order, on all cores.

        A photo that cannot be used gives a result with `error`; the others are not touched by it.
        Memory stays bounded, however many photos there are.

        Args:
            photos: as for `identify`; taken from the iterable as they are needed.
            top_k: how many candidates to give.
            box: look only here, in each photo.
            crop: as for `identify`.
            coverage: as for `identify`.

        Raises:
            UsageError: as for `identify`, or `photos` is one photo.
        """
        top_k, box = _checked(top_k, box, crop)
        check_photos(photos)
        wish = wish_for(top_k, coverage, self.card, self.path)
        return self._many(
            photos,
            read=lambda spotter, photo: spotter._read(photo, box, crop)[1],
            finish=lambda spotter, ready: [
                seen.result for seen in spotter._recognition.observed(ready, wish)
            ],
            failed=lambda result: result,
        )

    def observe_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        top_k: int = 5,
        crop: CropMode = "auto",
        readers: int | None = None,
    ) -> Iterator[Observation]:
        """Name the cars on many photos, as `identify_many` does; with embeddings and times.

        Args:
            photos: as for `identify_many`.
            top_k: as for `identify`.
            crop: as for `identify`.
            readers: threads that read, of which at most as many as the model has compute at the
                same time; by default so many. More help where photos come from afar.

        Raises:
            UsageError: as for `identify_many`.
        """
        top_k, _ = _checked(top_k, None, crop)
        check_photos(photos)
        wish = Wish(top_k)

        def read(spotter: Spotter, photo: PhotoSource) -> tuple[list[View], float]:
            started = time.perf_counter()
            _, views = spotter._read(photo, None, crop)
            return views, time.perf_counter() - started

        def finish(
            spotter: Spotter, ready: list[tuple[str, tuple[list[View], float]]]
        ) -> list[Observation]:
            started = time.perf_counter()
            named = [(name, views) for name, (views, _) in ready]
            seen = spotter._recognition.observed(named, wish)
            share = (time.perf_counter() - started) / max(1, len(ready))
            spent = [seconds + share for _, (_, seconds) in ready]
            return [one._replace(seconds=s) for one, s in zip(seen, spent, strict=True)]

        return self._many(photos, read=read, finish=finish, failed=Observation, readers=readers)

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
            label: the class to explain, on each car; by default the most probable of the model's
                own classes, whatever the level of the answer, and where that is a taught car too.
            top_k: as for `identify`.
            box: as for `identify`.
            crop: as for `identify`.

        Raises:
            PhotoError: as for `identify`.
            UsageError: as for `identify`, or the model has no such class.
            ModelFileError: the file does not carry what an exact heat map needs.
        """
        top_k, box = _checked(top_k, box, crop)
        wanted = self._explainable(label)
        ready = self._drawable(photo, box, crop)
        return self._recognition.explained([(photo_name(photo), ready)], wanted, Wish(top_k))[0]

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
            UsageError: as for `explain`, before the first photo, or `photos` is one photo.
            ModelFileError: as for `explain`, before the first photo.
        """
        top_k, box = _checked(top_k, box, crop)
        check_photos(photos)
        wanted = self._explainable(label)
        return self._many(
            photos,
            read=lambda spotter, photo: spotter._drawable(photo, box, crop),
            finish=lambda spotter, ready: spotter._recognition.explained(
                ready, wanted, Wish(top_k)
            ),
            failed=Explanation,
        )

    def with_detector(self, detector: Detector | None) -> Spotter:
        """The same model behind another detector, or behind none."""
        other = copy.copy(self)
        other._detector = detector
        return other

    def with_min_confidence(self, least: float) -> Spotter:
        """The same model with another least probability of an answer, at whatever level.

        The model file's own is chosen so that 97 of 100 answers are right, on photos like those
        that it was validated on; a higher one makes fewer or coarser answers that are more often
        right.

        Args:
            least: 0 to 1; with 0, each car is answered exactly.

        Raises:
            UsageError: it is not in that range.
        """
        other = copy.copy(self)
        other._recognition = self._recognition.with_min_confidence(least)
        return other

    def with_garage(self, garage: Garage | None) -> Spotter:
        """The same model with other taught cars, or with none.

        Raises:
            GarageError: they were taught to another model.
        """
        other = copy.copy(self)
        other._recognition = self._recognition.with_garage(garage)
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
        _, box = _checked(1, box, crop)
        read, (first, *_) = self._read(photo, box, crop, name)
        return np.asarray(part_of(read, first.region)) if first.is_car else None

    @property
    def _one_thread(self) -> Spotter:
        """The same with one thread to a run of the network, for runs side by side."""
        other = copy.copy(self)
        other._recognition = self._recognition.one_thread
        other._detector = None if self._detector is None else self._detector.one_thread
        return other

    def _many(
        self,
        photos: Iterable[PhotoSource],
        *,
        read: Callable[[Spotter, PhotoSource], T],
        finish: Callable[[Spotter, list[tuple[str, T]]], list[R]],
        failed: Callable[[Identification], R],
        readers: int | None = None,
    ) -> Iterator[R]:
        """Read photos and finish those that could be read, in order; all of it in threads.

        A few photos go one at a time through the network, each with all threads; many side by
        side, each with one.
        """
        rest = iter(photos)
        first = list(islice(rest, _FEW + 1))
        spotter, size, at_once = self, 1, 1
        if len(first) > _FEW:
            spotter, size, at_once = self._one_thread, BATCH, self._threads
        found = read_and_finished(
            chain(first, rest),
            read=functools.partial(read, spotter),
            finish=functools.partial(finish, spotter),
            failed=lambda name, why: failed(
                Identification(name, None, (), None, self.info, error=why)
            ),
            threads=readers or self._threads,
            at_once=at_once,
            size=size,
        )
        with contextlib.closing(found):
            yield from found

    def _explainable(self, label: str | None) -> int | None:
        """The number of a class that is to be explained, where this model's can be."""
        self._model.need_head()
        return None if label is None else class_number(label, self.card.classes)

    def _drawable(self, photo: PhotoSource, box: Box | None, crop: CropMode) -> Drawable:
        read, views = self._read(photo, box, crop, draws=True)
        return Drawable(views, drawable(read.image), read.size)

    def _read(
        self,
        photo: PhotoSource,
        box: Box | None,
        crop: CropMode,
        name: str | None = None,
        *,
        draws: bool = False,
    ) -> tuple[Photo, list[View]]:
        return read_views(
            photo,
            self.card,
            box=box,
            detector=self._detector if crop == "auto" else None,
            name=name,
            max_pixels=self._max_pixels,
            draws=draws,
        )


def _checked(top_k: int, box: Box | None, crop: str) -> tuple[int, Box | None]:
    if crop not in get_args(CropMode):
        raise UsageError(f"crop must be {' or '.join(get_args(CropMode))}, not {crop!r}")
    return whole_number(top_k, "top_k"), None if box is None else checked_box(box)

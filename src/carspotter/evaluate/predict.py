"""Labelled pictures through any recogniser: a checkpoint, an ONNX file, or another's model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from carspotter.data import Crop, Picture, PictureReader, read_pixels
from carspotter.errors import DataError, PhotoError
from carspotter.machine import cores
from carspotter.preprocess import ResizeMode, to_input

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

    Recogniser: TypeAlias = Callable[[Pixels], NDArray[np.float32]]
    """(N, S, S, 3) uint8 RGB in, logits (N, classes) out."""

    Focus: TypeAlias = Callable[[Pixels], Pixels]
    """A picture in, the part of it to look at out; called from several threads."""
else:
    Recogniser = Focus = Callable


WHOLE = Crop()
"""The whole picture."""


@dataclass(frozen=True)
class Predictions:
    """What a recogniser said of labelled pictures.

    Attributes:
        pictures: those that could be read, in the order asked for.
        logits: (N, classes) float32.
        targets: (N,) class numbers.
        broken: why the others could not be read, by key.
    """

    pictures: tuple[Picture, ...]
    logits: NDArray[np.float32]
    targets: NDArray[np.int64]
    broken: dict[str, str]


@dataclass(frozen=True)
class Share:
    """Every `of`-th batch, from batch `rank` on: what one of several processes predicts.

    Whole batches are dealt, so that each picture meets the same ones as in a single process, and
    none twice.
    """

    rank: int = 0
    of: int = 1


@dataclass(frozen=True)
class PartialPredictions:
    """What a recogniser said of a share of the pictures.

    Attributes:
        places: (N,) of those that could be read, in the whole list.
        logits: (N, classes) float32; None where there is none.
        broken: why the others could not be read, by key.
    """

    places: list[int]
    logits: NDArray[np.float32] | None
    broken: dict[str, str]


def predict(
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    recogniser: Recogniser,
    *,
    size: int,
    resize: ResizeMode = "squash",
    crop: Crop = WHOLE,
    focus: Focus | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predictions:
    """Run a recogniser over labelled pictures.

    Args:
        pictures: what to look at.
        class_names: of the recogniser, in the order of its logits.
        recogniser: takes batches of at most `batch_size` inputs.
        size: side of the input, in pixels.
        resize: how pictures are brought to it.
        crop: which part of each picture is taken.
        focus: which part of that is looked at; None: all of it.
        batch_size: pictures at a time.
        progress: called with the number done and the total.

    Raises:
        DataError: a label that the recogniser does not know, or no picture that can be read.
    """
    _class_numbers(pictures, class_names)  # before the long part
    share = predict_share(
        pictures,
        recogniser,
        Share(),
        size=size,
        resize=resize,
        crop=crop,
        focus=focus,
        batch_size=batch_size,
        progress=progress,
    )
    return join([share], pictures, class_names)


def predict_share(
    pictures: Sequence[Picture],
    recogniser: Recogniser,
    share: Share,
    *,
    size: int,
    resize: ResizeMode = "squash",
    crop: Crop = WHOLE,
    focus: Focus | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PartialPredictions:
    """Run a recogniser over one process's share of the pictures; see `predict`."""
    logits: list[NDArray[np.float32]] = []
    places: list[int] = []
    broken: dict[str, str] = {}
    starts = range(share.rank * batch_size, len(pictures), share.of * batch_size)
    for start, batch in _batches(pictures, starts, size, resize, crop, focus, batch_size):
        good = [(place, x) for place, x in batch if not isinstance(x, PhotoError)]
        broken |= {pictures[place].key: str(x) for place, x in batch if isinstance(x, PhotoError)}
        if good:
            logits.append(recogniser(np.stack([x for _, x in good])))
            places += [place for place, _ in good]
        progress(min(start + batch_size, len(pictures)), len(pictures))
    return PartialPredictions(places, np.concatenate(logits) if logits else None, broken)


def join(
    shares: Sequence[PartialPredictions], pictures: Sequence[Picture], class_names: Sequence[str]
) -> Predictions:
    """Put shares together, in the order of the pictures.

    Raises:
        DataError: a label that is not among the classes, or no picture that could be read.
    """
    number = _class_numbers(pictures, class_names)
    broken = {key: reason for share in shares for key, reason in share.broken.items()}
    found = [share.logits for share in shares if share.logits is not None]
    if not found:
        raise DataError(
            "no picture could be read" + "".join(f"; {m}" for m in broken.values())[:500]
        )
    places = np.concatenate([share.places for share in shares]).astype(np.int64)
    order = np.argsort(places)
    kept = tuple(pictures[place] for place in places[order])
    targets = np.array([number[p.label] for p in kept], np.int64)
    return Predictions(kept, np.concatenate(found)[order], targets, broken)


def _class_numbers(pictures: Sequence[Picture], class_names: Sequence[str]) -> dict[str, int]:
    number = {name: index for index, name in enumerate(class_names)}
    unknown = sorted({p.label for p in pictures} - set(number))
    if unknown:
        raise DataError(
            f"{len(unknown)} labels of the data are not among the model's {len(number)} classes, "
            f"{unknown[0]!r} first"
        )
    return number


def _batches(
    pictures: Sequence[Picture],
    starts: Sequence[int],
    size: int,
    resize: ResizeMode,
    crop: Crop,
    focus: Focus | None,
    batch_size: int,
) -> Iterator[tuple[int, list[tuple[int, Pixels | PhotoError]]]]:
    """Decoded batches; the next one is decoded while the caller works on this one."""
    reader = PictureReader()

    def read(place: int) -> tuple[int, Pixels | PhotoError]:
        try:
            pixels = read_pixels(pictures[place], reader, crop)
        except PhotoError as error:
            return place, error
        return place, to_input(pixels if focus is None else focus(pixels), size, resize)

    with ThreadPoolExecutor(cores()) as pool:

        def submit(start: int) -> list[Future[tuple[int, Pixels | PhotoError]]]:
            return [
                pool.submit(read, place)
                for place in range(start, min(start + batch_size, len(pictures)))
            ]

        ahead = submit(starts[0]) if starts else []
        for position, start in enumerate(starts):
            now = ahead
            ahead = submit(starts[position + 1]) if position + 1 < len(starts) else []
            yield start, [job.result() for job in now]

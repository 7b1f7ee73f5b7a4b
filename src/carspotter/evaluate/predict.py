"""Labelled pictures through any recogniser: a checkpoint, an ONNX file, or another's model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from carspotter.data import Crop, Picture, PictureReader, read_pixels
from carspotter.errors import DataError, PhotoError
from carspotter.preprocess import ResizeMode, to_input

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

    Recogniser: TypeAlias = Callable[[Pixels], NDArray[np.float32]]
    """(N, S, S, 3) uint8 RGB in, logits (N, classes) out."""
else:
    Recogniser = Callable


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


def predict(
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    recogniser: Recogniser,
    *,
    size: int,
    resize: ResizeMode = "squash",
    crop: Crop = Crop(),  # noqa: B008 (frozen)
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
        batch_size: pictures at a time.
        progress: called with the number done and the total.

    Raises:
        DataError: a label that the recogniser does not know, or no picture that can be read.
    """
    number = {name: index for index, name in enumerate(class_names)}
    unknown = sorted({p.label for p in pictures} - set(number))
    if unknown:
        raise DataError(
            f"{len(unknown)} labels of the data are not among the model's {len(number)} classes, "
            f"{unknown[0]!r} first"
        )
    logits: list[NDArray[np.float32]] = []
    kept: list[Picture] = []
    broken: dict[str, str] = {}
    for done, batch in _batches(pictures, size, resize, crop, batch_size):
        good = [(p, x) for p, x in batch if not isinstance(x, PhotoError)]
        broken |= {p.key: str(x) for p, x in batch if isinstance(x, PhotoError)}
        if good:
            logits.append(recogniser(np.stack([x for _, x in good])))
            kept += [p for p, _ in good]
        progress(done, len(pictures))
    if not kept:
        raise DataError(
            "no picture could be read" + "".join(f"; {m}" for m in broken.values())[:500]
        )
    targets = np.array([number[p.label] for p in kept], np.int64)
    return Predictions(tuple(kept), np.concatenate(logits), targets, broken)


def _batches(
    pictures: Sequence[Picture], size: int, resize: ResizeMode, crop: Crop, batch_size: int
) -> Iterator[tuple[int, list[tuple[Picture, Pixels | PhotoError]]]]:
    """Decoded batches; the next one is decoded while the caller works on this one."""
    reader = PictureReader()

    def read(picture: Picture) -> tuple[Picture, Pixels | PhotoError]:
        try:
            return picture, to_input(read_pixels(picture, reader, crop), size, resize)
        except PhotoError as error:
            return picture, error

    starts = range(0, len(pictures), batch_size)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ahead = [pool.submit(read, p) for p in pictures[:batch_size]]
        for start in starts:
            now, end = ahead, start + batch_size
            ahead = [pool.submit(read, p) for p in pictures[end : end + batch_size]]
            yield min(end, len(pictures)), [job.result() for job in now]

"""Every picture looked at once: its size, its faults, and what it is compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import imagehash
import numpy as np
from PIL import Image

from carspotter.data import Picture, PictureReader
from carspotter.errors import PhotoError
from carspotter.machine import cores
from carspotter.photo import read_photo
from carspotter.preprocess import clip_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

    Bytes: TypeAlias = NDArray[np.uint8]

THUMBNAIL = 64
"""Side of the grey thumbnails by which pictures are compared, in pixels."""

HASH_SIDE = 16
"""A hash has HASH_SIDE ** 2 bits."""

_PARTS = (
    *((0, 0, 64, 64), (0, 5, 64, 59), (4, 4, 60, 60)),
    *((0, 8, 64, 64), (0, 0, 64, 56), (5, 0, 59, 64)),
)
"""Parts of a thumbnail that are hashed: all of it first, then what a tighter crop would show."""

_GREY = 6
"""Levels (of 255) by which the channels of a greyscale picture may differ, for its compression."""

_AHEAD = 512
"""Pictures that are under way at a time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of a picture that could be decoded; about 4 KB.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        grey: whether it has no colour.
        box_outside: whether its box lies outside of it.
        file_digest: SHA-256 of its file.
        pixel_digest: SHA-256 of its size and its decoded, upright pixels.
        thumbnail: (64, 64) grey levels, the aspect ratio not kept.
        hashes: (views, bits / 8) packed difference hashes; the first is of the whole picture.
    """

    width: int
    height: int
    grey: bool
    box_outside: bool
    file_digest: bytes
    pixel_digest: bytes
    thumbnail: Bytes
    hashes: Bytes


def scan(
    pictures: Sequence[Picture], progress: Callable[[int, int], None]
) -> Iterator[Seen | PhotoError]:
    """Look at each picture, in their order; one that cannot be read is its error."""
    reader = PictureReader()

    def look(picture: Picture) -> Seen | PhotoError:
        try:
            return _look(picture, reader)
        except PhotoError as error:
            return error

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(pictures), _AHEAD):
            for place, seen in enumerate(pool.map(look, pictures[start : start + _AHEAD]), start):
                progress(place + 1, len(pictures))
                yield seen


def _look(picture: Picture, reader: PictureReader) -> Seen:
    data = reader.read(picture)
    pixels = read_photo(data, name=picture.key)
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    thumbnail = small.convert("L")
    return Seen(
        width,
        height,
        is_grey(np.asarray(small)),
        picture.box is not None and clip_box(picture.box, width, height) is None,
        hashlib.sha256(data).digest(),
        _pixel_digest(pixels),
        np.asarray(thumbnail),
        hashes(thumbnail),
    )


def is_grey(pixels: Pixels) -> bool:
    """Whether a picture (H, W, 3) has no colour, but for what compression leaves."""
    return int(np.ptp(pixels, axis=2).max()) <= _GREY


def hashes(thumbnail: Image.Image) -> Bytes:
    """Difference hashes (N. Krawetz, "Kind of Like That", 2013) of a thumbnail and its parts.

    Of the same photo, cut to slightly different boxes, one picture shows nearly what a part of the
    other shows.

    Returns:
        (views, HASH_SIDE ** 2 / 8) packed bits.
    """
    views = [imagehash.dhash(thumbnail.crop(part), HASH_SIDE).hash for part in _PARTS]
    return np.packbits(np.stack(views).reshape(len(views), -1), axis=1)


def _pixel_digest(pixels: Pixels) -> bytes:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()

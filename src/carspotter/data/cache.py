"""Pictures decoded once and kept as raw pixels: two cores cannot decode each in every epoch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from carspotter.data.index import Crop, Picture, PictureReader, read_pixels
from carspotter.errors import DataError, PhotoError
from carspotter.files import by_umask, cache_folder
from carspotter.machine import cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

_FORMAT = 1
_CHUNK = 256
_KEY_LENGTH = 24
_LEFT_OVER_AFTER = 86_400
"""Seconds: a process that decodes writes every few of them."""


@dataclass(frozen=True)
class DecodedPictures:
    """Decoded pictures in one file of raw pixels; cheap to hand to worker processes.

    Attributes:
        folder: where the cache lies.
        offsets: (N + 1,) where each picture starts, in bytes.
        shapes: (N, 2) height and width.
        broken: why pictures could not be decoded, by key; they have no pixels.
        kept: (N,) place of each cached picture in the list that was asked for.
    """

    folder: Path
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int32]
    broken: dict[str, str]
    kept: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Pixels:
        """(H, W, 3) uint8 RGB."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        height, width = self.shapes[index]
        # Read, not memory-mapped: a fault for each page costs more than the copy.
        data = np.fromfile(self.folder / "pixels", np.uint8, end - start, offset=start)
        return data.reshape(int(height), int(width), 3)


def decoded_pictures(
    pictures: Sequence[Picture],
    crop: Crop,
    side: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DecodedPictures:
    """The pictures, decoded; from the cache where they are there, else decoded into it.

    Args:
        pictures: what to decode.
        crop: which part of each picture to keep.
        side: pictures with a longer *shorter* side are scaled down to it, their aspect ratio kept.
        progress: called with the number done and the total.

    Raises:
        DataError: the cache cannot be written, or no picture at all could be decoded.
    """
    folder = cache_folder() / _cache_key(pictures, crop, side)
    if not (folder / "index.json").is_file():
        _build(folder, pictures, crop, side, progress)
    about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    shapes = np.load(folder / "shapes.npy")
    if not len(shapes):
        reason = next(iter(about["broken"].values()), "there is none")
        raise DataError(f"no picture could be decoded: {reason}")
    offsets = np.concatenate([[0], np.cumsum(shapes.astype(np.int64).prod(axis=1) * 3)])
    return DecodedPictures(folder, offsets, shapes, about["broken"], np.load(folder / "kept.npy"))


def _cache_key(pictures: Sequence[Picture], crop: Crop, side: int) -> str:
    """Changes with the list of pictures, with their files, and with how they are kept."""
    digest = hashlib.sha256(repr((_FORMAT, crop, side)).encode())
    for picture in pictures:
        digest.update(repr((picture.key, picture.box, picture.source)).encode())
    for file in dict.fromkeys(_file(picture) for picture in pictures):
        with contextlib.suppress(OSError):  # a missing file is found when it is decoded
            about = file.stat()
            digest.update(repr((about.st_size, about.st_mtime_ns)).encode())
    return digest.hexdigest()[:_KEY_LENGTH]


def _file(picture: Picture) -> Path:
    return picture.source if isinstance(picture.source, Path) else picture.source.file


def _build(
    folder: Path,
    pictures: Sequence[Picture],
    crop: Crop,
    side: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write the cache beside its place and move it there whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(folder.parent)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        part.chmod(by_umask(0o777))  # several users may share a cache
    except OSError as error:
        raise DataError(
            f"the cache of decoded pictures cannot be written ({error}); "
            "name another folder in CARSPOTTER_CACHE"
        ) from error
    try:
        shapes: list[tuple[int, int]] = []
        kept: list[int] = []
        broken: dict[str, str] = {}
        with (part / "pixels").open("wb") as file:
            for place, pixels in enumerate(_decode_all(pictures, crop, side)):
                if isinstance(pixels, PhotoError):
                    broken[pictures[place].key] = str(pixels)
                else:
                    file.write(np.ascontiguousarray(pixels).data)
                    shapes.append((pixels.shape[0], pixels.shape[1]))
                    kept.append(place)
                progress(place + 1, len(pictures))
        np.save(part / "shapes.npy", np.array(shapes, np.int32).reshape(-1, 2))
        np.save(part / "kept.npy", np.array(kept, np.int64))
        (part / "index.json").write_text(json.dumps({"broken": broken}), encoding="utf-8")
        _move(part, folder)
    except OSError as error:
        raise DataError(f"the cache of decoded pictures cannot be written: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _move(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError:
        if not (folder / "index.json").is_file():  # else another process made the same meanwhile
            raise


def _remove_left_overs(cache: Path) -> None:
    """Remove what killed processes left: folders in which nothing was written for a day."""
    for part in cache.glob(f".{'[0-9a-f]' * _KEY_LENGTH}.*"):
        with contextlib.suppress(OSError):  # another process removes it too, or moves it
            written = max(file.stat().st_mtime for file in (part, *part.iterdir()))
            if time.time() - written > _LEFT_OVER_AFTER:
                shutil.rmtree(part, ignore_errors=True)


def _decode_all(
    pictures: Sequence[Picture], crop: Crop, side: int
) -> Iterator[Pixels | PhotoError]:
    reader = PictureReader()

    def decode(picture: Picture) -> Pixels | PhotoError:
        try:
            return _shrink(read_pixels(picture, reader, crop), side)
        except PhotoError as error:
            return error

    # Decoding lets go of the interpreter lock. In chunks, so that memory stays bounded.
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(pictures), _CHUNK):
            yield from pool.map(decode, pictures[start : start + _CHUNK])


def _shrink(pixels: Pixels, side: int) -> Pixels:
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short <= side:
        return pixels
    size = (max(1, round(width * side / short)), max(1, round(height * side / short)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

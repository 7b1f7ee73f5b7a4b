"""Anything that holds a photo, turned into upright RGB pixels, within bounds."""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from carspotter.errors import PhotoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

PhotoSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image"
    " | NDArray[np.uint8]"
)

Detail: TypeAlias = Callable[[int, int], float]
"""For the width and height of an upright photo, which share of its sides is needed."""

PHOTO_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
    | {".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".pbm", ".pgm", ".ppm", ".pnm"}
    | {".heic", ".heif", ".hif"}
)
"""What is taken from a folder, in lower case; a file that is named itself may have any ending."""

MAX_PIXELS = 178_956_970
"""Photos of more pixels are refused before they are decoded. Pillow too refuses those, as bombs;
phones' cameras of 108 megapixels stay below."""

MAX_BYTES = 1 << 30
"""Files of more bytes are refused: nothing that is a photo is that large, but a device may be."""

_STEP = 8 << 20
"""So many bytes of a file are asked for at once. Python makes room for all of them beforehand; a
photo seldom has more."""

MIN_SIDE = 16
"""Photos with a shorter side, in pixels, are refused: no car can be told on them."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a photo of an EXIF orientation upright."""

_ON_ITS_SIDE = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange width and height

_REDUCIBLE = frozenset({"JPEG", "MPO"})  # whose decoder can leave detail out; MPO holds JPEGs

_PNG_START = b"\x89PNG\r\n\x1a\n"

_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


class Photo(NamedTuple):
    """A photo that was perhaps decoded at a part of its size.

    Attributes:
        image: upright, RGB. Pillow's own image and not an array, for which each pixel would be
            copied, with Python's lock held, and once more to scale it.
        size: width and height of the upright photo itself, in pixels.
    """

    image: Image.Image
    size: tuple[int, int]


def read_photo(
    source: PhotoSource, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Read one photo as upright RGB pixels.

    EXIF rotation is applied, transparency is laid over white, 16-bit and CMYK pictures are brought
    to 8-bit RGB, and of an animation the first frame is taken. The source is never changed.

    Args:
        source: a path, the bytes of a file, a binary file object, a PIL image, or an
            (H, W, 3) uint8 RGB array.
        name: how errors call the photo; by default its path, or its kind where it has none.
        max_pixels: photos of more are refused before they are decoded; at most `MAX_PIXELS`.

    Returns:
        (H, W, 3) uint8 RGB pixels, 0 to 255, row 0 at the top.

    Raises:
        PhotoError: the photo is missing, unreadable, empty, no image, broken, too large or small,
            or the source of none of these kinds.
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source, name or photo_name(source), max_pixels)
    return np.asarray(read_reduced(source, None, name=name, max_pixels=max_pixels).image)


def read_reduced(
    source: PhotoSource,
    detail: Detail | None,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Photo:
    """Read one photo with as many pixels as are needed; otherwise as `read_photo`.

    A JPEG file is decoded at a half, a quarter or an eighth of its size where that keeps the
    detail (by its decoder, from fewer of the coefficients, which costs a part of the time). All
    else is decoded in full.

    Args:
        source: as for `read_photo`.
        detail: least share of the sides that is needed, of a photo of this width and height in
            pixels, upright; None: all.
        name: as for `read_photo`.
        max_pixels: as for `read_photo`; it is the file's pixels that count.

    Raises:
        PhotoError: as for `read_photo`.
    """
    name = name if name is not None else photo_name(source)
    if isinstance(source, np.ndarray):
        array = _checked_array(source, name, max_pixels)
        return Photo(Image.fromarray(array), (array.shape[1], array.shape[0]))
    if isinstance(source, Image.Image):
        # An image of the caller's is left as it is.
        return _photo(source, name, max_pixels, None, is_ours=False)
    data = photo_bytes(source, name)
    if not data:
        raise PhotoError("empty", f"{name}: the file is empty")
    try:
        return _decoded(data, name, max_pixels, detail)
    except PhotoError as error:
        # Pillow gives a PNG up for texts that are long, or that it cannot read. No pixel needs any.
        lean = _without_texts(data) if error.code in ("broken", "not_an_image") else data
        if len(lean) == len(data):
            raise
    return _decoded(lean, name, max_pixels, detail)


def photo_name(source: PhotoSource) -> str:
    """How results and errors call a photo: its path, or its kind in angle brackets."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    if isinstance(source, np.ndarray):
        return "<array>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    if not hasattr(source, "read"):
        return f"<{type(source).__name__}>"  # nothing that a photo can be read from
    named = getattr(source, "name", None)
    return named if isinstance(named, str) else "<file>"


def photo_bytes(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes], name: str
) -> bytes:
    """The bytes of a photo's file.

    Raises:
        PhotoError: it is missing, cannot be read, or is too large, or the source is of none of
            these kinds.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if not isinstance(source, (str, os.PathLike)) and not hasattr(source, "read"):
        raise PhotoError("unreadable", f"{name}: neither a path nor bytes, a file or an image")
    try:
        if isinstance(source, (str, os.PathLike)):
            with Path(source).open("rb") as file:
                data = _whole(file)
        else:
            data = _whole(source)
    except FileNotFoundError:
        raise PhotoError("not_found", f"{name}: no such file") from None
    except PermissionError:
        raise PhotoError("unreadable", f"{name}: no permission to read it") from None
    except IsADirectoryError:
        raise PhotoError(
            "unreadable", f"{name}: a folder, not a photo, or one without photos"
        ) from None
    except Exception as error:  # a file object of the caller's raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError("unreadable", f"{name}: cannot be read ({reason})") from error
    if len(data) > MAX_BYTES:
        raise PhotoError("too_large", f"{name}: more than {MAX_BYTES >> 20} MiB; scale it down")
    return data


def _whole(file: IO[bytes] | io.TextIOBase) -> bytes:
    """What a file holds, up to a byte more than is allowed."""
    if isinstance(file, io.TextIOBase):
        raise TypeError("open it in binary mode, 'rb'")
    parts: list[bytes] = []
    left = MAX_BYTES + 1
    # A pipe gives what it has at the time: only nothing is the end.
    while left > 0 and (part := file.read(min(_STEP, left))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _decoded(data: bytes, name: str, max_pixels: int, detail: Detail | None) -> Photo:
    """The photo in a file of these bytes."""
    heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if heif:
        _register_heif()
    try:
        image = Image.open(io.BytesIO(data), formats=_formats(heif))
    except UnidentifiedImageError:
        raise PhotoError(
            "not_an_image", f"{name}: not an image, or of a format that is not supported"
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(name, "", max_pixels) from None
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise _broken(name, error) from error
    # Pillow hands its decoders 64 KiB at a time otherwise, and waits for Python's lock each time.
    image.decodermaxblock = len(data)
    with image:
        return _photo(image, name, max_pixels, detail)


def _without_texts(data: bytes) -> bytes:
    """A PNG file without its texts and its colour profile; any other file as it is."""
    if not data.startswith(_PNG_START):
        return data
    kept, start = [_PNG_START], len(_PNG_START)
    while start < len(data):
        # Length, kind, content, checksum.
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in _PNG_TEXTS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def _photo(
    image: Image.Image,
    name: str,
    max_pixels: int,
    detail: Detail | None,
    *,
    is_ours: bool = True,
) -> Photo:
    """An opened image: bounded, decoded, upright, 8-bit RGB; one that is ours may be changed."""
    width, height = image.size
    if width * height > min(max_pixels, MAX_PIXELS):
        raise _too_large(name, f"{width}x{height}, ", max_pixels)
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            "too_small",
            f"{name}: {width}x{height} pixels; a photo needs at least {MIN_SIDE} on each side",
        )
    try:
        if detail is not None and image.format in _REDUCIBLE:
            turned = _orientation(image) in _ON_ITS_SIDE
            share = detail(*((height, width) if turned else (width, height)))
            if share < 1:
                image.draft(None, (math.ceil(width * share), math.ceil(height * share)))
        image.load()
        orientation = _orientation(image)
        if orientation in _TURNS:
            image = image.transpose(_TURNS[orientation])
        elif not is_ours:
            image = image.copy()
        image = _to_rgb(image)
    except (MemoryError, Image.DecompressionBombError):
        raise _too_large(name, f"{width}x{height}, ", max_pixels) from None
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise _broken(name, error) from error
    return Photo(image, (height, width) if orientation in _ON_ITS_SIDE else (width, height))


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation; None where it has none that can be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # on damaged EXIF data Pillow raises nearly anything
        return None
    return found if isinstance(found, int) else None


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if "A" in mode or "a" in mode or "transparency" in image.info:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(grey: NDArray[np.generic]) -> Pixels:
    """Bring (H, W) grey levels of 16 bits, or floats, to 0 to 255."""
    levels = grey.astype(np.float64)
    if np.issubdtype(grey.dtype, np.floating):
        # Floating-point pictures hold either 0 to 1 or 0 to 255.
        top = 1.0 if np.nanmax(levels, initial=0.0) <= 1.0 else 255.0
    else:
        top = 65535.0
    scaled = np.clip(np.nan_to_num(levels) / top, 0.0, 1.0) * 255.0
    return np.rint(scaled).astype(np.uint8)


def _checked_array(array: NDArray[np.uint8], name: str, max_pixels: int) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise PhotoError(
            "not_an_image",
            f"{name}: must be an (H, W, 3) uint8 RGB array, is {array.shape} {array.dtype}",
        )
    height, width = array.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise PhotoError(
            "too_small",
            f"{name}: {width}x{height} pixels; a photo needs at least {MIN_SIDE} on each side",
        )
    if height * width > min(max_pixels, MAX_PIXELS):
        raise _too_large(name, f"{width}x{height}, ", max_pixels)
    return array


def _broken(name: str, error: Exception) -> PhotoError:
    reason = " ".join(str(error).split())  # some decoders report on several lines
    return PhotoError("broken", f"{name}: the image is broken ({reason})")


def _too_large(name: str, size: str, max_pixels: int) -> PhotoError:
    most = f"{min(max_pixels, MAX_PIXELS) / 1e6:.3g}"
    return PhotoError("too_large", f"{name}: {size}more than {most} megapixels; scale it down")


def _formats(heif: bool) -> list[str]:
    """What photos come in. Pillow knows more, of which some start other programs (EPS)."""
    common = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF", "PPM", "ICO"]
    return [*common, "HEIF"] if heif else common


@functools.cache
def _register_heif() -> None:
    # Imported on the first HEIC photo only: it is not needed for any other.
    import pillow_heif

    pillow_heif.register_heif_opener()

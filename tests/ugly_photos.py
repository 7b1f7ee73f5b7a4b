"""Photos made to cause trouble, and the trouble that they cause."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from conftest import draw_car, encoded

from carspotter.errors import PhotoError
from carspotter.photo import PhotoSource, read_photo

CAR = draw_car(0)
PIXELS = np.asarray(CAR)
LOSSLESS = encoded(CAR, "PNG")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes, *, at_the_end: bool = False) -> bytes:
    """A PNG file with one part more, before its pixels or after them."""
    place = png.index(b"IEND" if at_the_end else b"IDAT") - 4
    return png[:place] + chunk(kind, data) + png[place:]


def hand_made_png(width: int, height: int) -> bytes:
    """A black PNG of one bit a pixel, made row by row: only its few compressed bytes are held."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def icon(png: bytes) -> bytes:
    """An ICO file that says nothing of the size of the PNG inside."""
    return struct.pack("<3H4B2H2I", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(png), 22) + png


def refusal(source: PhotoSource, name: str | None = None) -> PhotoError:
    with pytest.raises(PhotoError) as raised:
        read_photo(source, name=name)
    assert raised.value.code in PhotoError.CODES
    return raised.value

"""Photos to ask with, and what becomes of them in malicious hands."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pillow_heif
from PIL import Image

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM", "ICO", "HEIF")
_BOUNDARY = b"fuzz-boundary"


class Case(NamedTuple):
    """A request of the fuzz.

    Attributes:
        kind: how it was made.
        media_type: what it says it is.
        body: of the request.
    """

    kind: str
    media_type: str
    body: bytes


def seeds(seed: int) -> list[bytes]:
    """Small pictures in every format, whole."""
    pillow_heif.register_heif_opener()
    rng = np.random.default_rng(seed)
    found = []
    for form in _FORMATS:
        for mode in ("RGB", "L", "P") if form in ("PNG", "GIF", "TIFF") else ("RGB",):
            pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(buffer, form)
            found.append(buffer.getvalue())
    return found


def cases(count: int, seed: int) -> Iterator[Case]:
    """Requests, the same ones for the same seed."""
    draw, whole = random.Random(seed), seeds(seed)
    makers = (_raw, _parts, _frame)
    for _ in range(count):
        yield draw.choice(makers)(draw, whole)


def _raw(draw: random.Random, whole: list[bytes]) -> Case:
    return Case("raw", draw.choice(("image/jpeg", "image/png", "application/octet-stream")),
                mutated(draw, draw.choice(whole), whole))  # fmt: skip


def _parts(draw: random.Random, whole: list[bytes]) -> Case:
    """A sound frame around mutated pictures."""
    photos = [mutated(draw, draw.choice(whole), whole) for _ in range(draw.randint(1, 4))]
    return Case("parts", _multipart(), _framed(photos))


def _frame(draw: random.Random, whole: list[bytes]) -> Case:
    """A mutated frame around sound pictures."""
    body = bytearray(_framed([draw.choice(whole)]))
    head = body.index(b"\r\n\r\n") + 4
    body[:head] = mutated(draw, bytes(body[:head]), [_BOUNDARY, b"\r\n--", b'name="photo"', b"\0"])
    tail = mutated(draw, bytes(body[-40:]), [_BOUNDARY, b"--\r\n"])
    media_type = draw.choice(
        (_multipart(), _multipart(), "multipart/form-data; boundary=" + "x" * draw.randint(0, 300))
    )
    return Case("frame", media_type, bytes(body[:-40]) + tail)


def _multipart() -> str:
    return f"multipart/form-data; boundary={_BOUNDARY.decode()}"


def _framed(photos: list[bytes]) -> bytes:
    head = b'Content-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    pieces = [b"--" + _BOUNDARY + b"\r\n" + head + photo + b"\r\n" for photo in photos]
    return b"".join(pieces) + b"--" + _BOUNDARY + b"--\r\n"


def mutated(draw: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Some bytes changed, taken away, doubled, or put in from elsewhere."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at = draw.randrange(len(data))
        if draw.random() < 0.5:
            at %= 200  # heads of files decide most
            at = min(at, len(data) - 1)
        length = min(draw.choice((1, 2, 4, 8, 64, 512)), len(data) - at)
        change = draw.randrange(7)
        if change == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif change == 1:
            data[at : at + length] = draw.randbytes(length)
        elif change == 2:
            data[at : at + length] = draw.choice((b"\0", b"\xff", b"\x7f")) * length
        elif change == 3:
            del data[at : at + length]
        elif change == 4:
            del data[at:]
        elif change == 5:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
        else:
            other = draw.choice(others)
            start = draw.randrange(len(other))
            data[at:at] = other[start : start + length]
    return bytes(data)

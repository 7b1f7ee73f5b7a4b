"""What calls in Python are given: checked before any work, since Python lets all of it pass."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING

from PIL import Image

from carspotter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carspotter.photo import PhotoSource
    from carspotter.preprocess import Box


def check_photos(photos: Iterable[PhotoSource]) -> None:
    """Refuse one photo where many are expected: of a path, each letter would be taken for one.

    Raises:
        UsageError: it is one.
    """
    one = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)
    if isinstance(photos, one) or hasattr(photos, "read"):
        raise UsageError(f"photos must be a list or the like, not one {type(photos).__name__}")


def whole_number(value: object, what: str) -> int:
    """A number from 1 on, as Python's own: of numpy's no JSON could be made.

    Args:
        value: what was given.
        what: its name, for the error.

    Raises:
        UsageError: it is no whole number, or below 1.
    """
    number = _whole(value)
    if number is None:
        raise UsageError(f"{what} must be a whole number, not {value!r}")
    if number < 1:
        raise UsageError(f"{what} must be at least 1, not {number}")
    return number


def checked_box(box: object) -> Box:
    """A box of four of Python's whole numbers.

    Raises:
        UsageError: it is none, or turned around.
    """
    try:
        numbers = [_whole(value) for value in box]  # type: ignore[attr-defined]  # or it raises
    except TypeError:
        numbers = []
    if len(numbers) != 4 or None in numbers:
        raise UsageError(f"the box {box!r} must be four whole numbers: left, top, right, bottom")
    left, top, right, bottom = (number for number in numbers if number is not None)
    if left >= right or top >= bottom:
        raise UsageError(f"the box {box!r} must have left < right and top < bottom")
    return left, top, right, bottom


def _whole(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # or it raises
    except TypeError:
        return None

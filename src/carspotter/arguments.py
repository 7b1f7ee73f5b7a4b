"""What calls in Python are given: checked before any work, since Python lets all of it pass."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from PIL import Image

from carspotter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carspotter.photo import PhotoSource


def check_photos(photos: Iterable[PhotoSource]) -> None:
    """Refuse one photo where many are expected: of a path, each letter would be taken for one.

    Raises:
        UsageError: it is one.
    """
    one = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)
    if isinstance(photos, one) or hasattr(photos, "read"):
        raise UsageError(f"photos must be a list or the like, not one {type(photos).__name__}")

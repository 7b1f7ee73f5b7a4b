"""Photos to measure on: drawn, so that everyone measures on the same ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_FINE = 8
"""So many pixels lie between two of the coarse picture that is scaled up."""


def write_photos(folder: Path, megapixels: float, count: int) -> list[Path]:
    """Write JPEG files of 4 to 3, of about a byte for each two pixels, as cameras do.

    Soft forms with fine noise: what a decoder has to do depends on how much detail there is.

    Args:
        folder: it must exist.
        megapixels: of each.
        count: how many, each another.

    Returns:
        Their paths.
    """
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(megapixels * 1e6 / height)
    return [_write(folder / f"{megapixels:g}mp-{n}.jpg", width, height, n) for n in range(count)]


def _write(file: Path, width: int, height: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (height // _FINE + 1, width // _FINE + 1, 3), np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-12, 13, (height, width, 1), np.int16)
    pixels = np.clip(np.asarray(soft, np.int16) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, quality=90)
    return file

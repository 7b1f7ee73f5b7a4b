"""Drawn pictures that differ as photos do, and data sets of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("Amber Arrow Coupe 2001", "Beige Bus Van 2005")


def scenery(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """Coarse and fine structure in colour, another one for each seed."""
    rng = np.random.default_rng(seed)
    layers = []
    for cells, strength in ((5, 1.0), (14, 0.8), (40, 0.5)):
        noise = rng.normal(0, 50 * strength, (cells, cells, 3))
        channels = [
            np.asarray(Image.fromarray(noise[..., c].astype(np.float32)).resize(size, 3))
            for c in range(3)
        ]
        layers.append(np.stack(channels, axis=-1))
    return Image.fromarray(np.clip(128 + sum(layers), 0, 255).astype(np.uint8))


def put(root: Path, split: str, label: str, name: str, image: Image.Image) -> Path:
    """Write a picture into class folders; the ending says how."""
    file = root / split / label / name
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, quality=90)
    return file


def clean(root: Path, *, train: int = 4, test: int = 2, start: int = 0) -> Path:
    """Class folders with nothing wrong in them, but that they are few."""
    seed = start
    for split, count in (("train", train), ("test", test)):
        for label in NAMES:
            for number in range(count):
                put(root, split, label, f"{split}{seed}-{number}.jpg", scenery(seed))
                seed += 1
    return root

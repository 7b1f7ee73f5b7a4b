"""The one way from pixels to model input: evaluation, export and recognition all use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from carspotter.photo import Photo, Pixels

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the upright photo; right and bottom lie outside."""

_GAP = 2.0
"""Pictures of four times the input's sides and more are averaged over blocks of pixels first, down
to no less than so many times: a third faster, and less than a level of 256 different on average."""

ResizeMode: TypeAlias = Literal["squash"]
"""`squash`: the whole picture is brought to the input's size, its aspect ratio not kept."""


def to_input(
    picture: Pixels | Image.Image, size: int | tuple[int, int], resize: ResizeMode = "squash"
) -> Pixels:
    """Bring a picture to the model's input size.

    Bilinear with antialiasing, as the pictures are scaled in training.

    Args:
        picture: (H, W, 3) uint8 RGB, or such an image.
        size: side of the square input, or width and height, in pixels.
        resize: how the aspect ratio is treated.

    Returns:
        (height, width, 3) uint8 RGB. Mean and standard deviation are applied by the model itself.

    Raises:
        ValueError: an unknown resize mode.
    """
    if resize != "squash":
        raise ValueError(f"unknown resize mode {resize!r}")
    wanted = (size, size) if isinstance(size, int) else size
    if isinstance(picture, np.ndarray):
        if picture.shape[1::-1] == wanted:
            return picture
        picture = Image.fromarray(picture)
    return np.asarray(picture.resize(wanted, Image.Resampling.BILINEAR, reducing_gap=_GAP))


def crop_to_box(pixels: Pixels, box: Box, margin: int = 0) -> Pixels:
    """Cut a box out of a picture.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        box: what to cut; parts outside of the picture are dropped.
        margin: pixels to add on each side.

    Returns:
        (h, w, 3) uint8 RGB view.

    Raises:
        ValueError: nothing of the box lies within the picture.
    """
    height, width = pixels.shape[:2]
    wide = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
    inside = clip_box(wide, width, height)
    if inside is None:
        raise ValueError(f"the box {box} lies outside of the picture ({width}x{height})")
    left, top, right, bottom = inside
    return pixels[top:bottom, left:right]


def clip_box(box: Box, width: int, height: int) -> Box | None:
    """The part of a box that lies within a picture of this size; None where there is none."""
    left, top = max(0, box[0]), max(0, box[1])
    right, bottom = min(width, box[2]), min(height, box[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def part_of(photo: Photo, region: Box) -> Image.Image:
    """What a photo shows of a region, RGB, in as many pixels as were decoded.

    Args:
        photo: perhaps decoded at a part of its size.
        region: in pixels of the upright photo, within it.
    """
    box = scaled_box(region, photo.size, photo.image.size)
    return photo.image if box == (0, 0, *photo.image.size) else photo.image.crop(box)


def scaled_box(box: Box, old: tuple[int, int], new: tuple[int, int]) -> Box:
    """A box in a picture that was scaled; at least a pixel wide and high, as far as it was.

    Args:
        box: in pixels of the picture as it was, and within it.
        old: its width and height then.
        new: its width and height now.
    """
    if old == new:
        return box
    left, right = _scaled(box[0], box[2], old[0], new[0])
    top, bottom = _scaled(box[1], box[3], old[1], new[1])
    return left, top, right, bottom


def _scaled(first: int, last: int, old: int, new: int) -> tuple[int, int]:
    low = min(round(first * new / old), new - 1)
    return low, min(new, max(round(last * new / old), low + 1))

"""Drawing on a photo: heat maps, and the boxes of cars with their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from carspotter.preprocess import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import ImageFont

    from carspotter.photo import Pixels

LONGEST, SHORTEST = 1600, 640
"""Long side of a drawn photo, in pixels: larger ones are scaled down; smaller ones are scaled up,
since no name could be read on them."""

_COLOURS = np.array(
    [
        (24, 14, 64),
        (74, 1, 114),
        (127, 3, 123),
        (184, 1, 114),
        (231, 42, 86),
        (254, 98, 48),
        (254, 154, 56),
        (255, 199, 84),
        (255, 242, 63),
    ]
)
"""From violet over red to yellow. CIELAB lightness rises by the same 10.8 from each to the next,
so that equal steps of heat look equal, on a grey printer and to the colour-blind too."""

_BLEND = 0.55
"""How much the colour map covers the photo."""

_MAIN, _FURTHER, _DARK = (0, 229, 255), (255, 255, 255), (16, 16, 16)

_Extent = tuple[float, float, float, float]


class Tag(NamedTuple):
    """What is written on a photo about one car.

    Attributes:
        box: its frame, in pixels of the picture that is drawn on; None: it is the whole picture.
        lines: its name, and what else there is to say.
    """

    box: Box | None
    lines: tuple[str, ...]


def drawable(photo: Image.Image) -> Image.Image:
    """A copy of a photo in a size to draw on, between `SHORTEST` and `LONGEST`."""
    width, height = photo.size
    long = max(height, width)
    scale = min(max(long, SHORTEST), LONGEST) / long
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return photo.copy() if scale == 1 else photo.resize(size, Image.Resampling.BICUBIC)


def scaled(box: Box, scale: tuple[float, float]) -> Box:
    """A box on a picture that was scaled by these factors; at least one pixel wide and high."""
    left, top = round(box[0] * scale[0]), round(box[1] * scale[1])
    right, bottom = round(box[2] * scale[0]), round(box[3] * scale[1])
    return left, top, max(right, left + 1), max(bottom, top + 1)


def coloured(heat: NDArray[np.float32]) -> Pixels:
    """Colours (H, W, 3) uint8 of heat (H, W), 0 to 1."""
    steps = np.linspace(0, 1, len(_COLOURS))
    table = np.stack(
        [np.interp(np.linspace(0, 1, 256), steps, channel) for channel in _COLOURS.T], axis=1
    )
    colours: Pixels = np.rint(table).astype(np.uint8)[np.rint(255 * heat).astype(np.uint8)]
    return colours


def draw(
    photo: Image.Image, heats: Sequence[tuple[Box, NDArray[np.float32]]], tags: Sequence[Tag]
) -> Image.Image:
    """A photo with heat maps and tags on it, as a new picture.

    Args:
        photo: RGB; it is not changed.
        heats: the place of each heat map on it, and the heat (h, w) of that size, 0 to 1. Where
            two overlap, the greater heat is shown; where there is none, the photo stays.
        tags: the main car's first. A further car's name is left out where there is no room for it
            that covers no other car and no other name; its frame is drawn.
    """
    total = np.full((photo.height, photo.width), -1, np.float32)
    for (left, top, right, bottom), heat in heats:
        part = total[top:bottom, left:right]
        np.maximum(part, heat[: part.shape[0], : part.shape[1]], out=part)
    hot = Image.blend(photo, Image.fromarray(coloured(np.maximum(total, 0))), _BLEND)
    image = photo.copy()
    image.paste(hot, mask=Image.fromarray(total >= 0))
    _draw_tags(image, tags)
    return image


def _draw_tags(image: Image.Image, tags: Sequence[Tag]) -> None:
    from PIL import ImageDraw, ImageFont  # here: most calls draw nothing, and start sooner

    canvas = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 400))
    for index, tag in reversed(list(enumerate(tags))):  # the main car's frame lies on top
        if tag.box is not None:
            left, top, right, bottom = tag.box
            frame = (left, top, max(left, right - 1), max(top, bottom - 1))
            canvas.rectangle(_grown(frame, 1), outline=_DARK, width=line + 2)
            canvas.rectangle(frame, outline=_FURTHER if index else _MAIN, width=line)
    font = ImageFont.load_default(max(14, round(max(image.size) / 55)))
    pad = 2 * line
    frames = [_grown(tag.box, line) for tag in tags if tag.box is not None]
    labels: list[tuple[Tag, _Extent, str]] = []
    for tag in tags:
        text = "\n".join(_wrapped(tag.lines, font, image.width - 2 * pad))
        size = canvas.multiline_textbbox((0, 0), text, font)
        wide = size[2] + 2 * pad, size[3] + 2 * pad
        places = _places(tag.box, wide, image.size)
        taken = [*frames, *(place for _, place, _ in labels)]
        free = (p for p in places if not any(_overlap(p, other) for other in taken))
        place = next(free, None if labels else places[0])
        if place is not None:
            labels.append((tag, place, text))
    for index, (tag, place, _) in enumerate(labels):
        if tag.box is not None:
            canvas.line(_between(place, tag.box), _FURTHER if index else _MAIN, max(1, line // 2))
    for index, (_, place, text) in enumerate(labels):
        canvas.rectangle(place, fill=_DARK)
        at = place[0] + pad, place[1] + pad
        canvas.multiline_text(at, text, _FURTHER if index else _MAIN, font)


def _grown(extent: _Extent, by: float) -> _Extent:
    return extent[0] - by, extent[1] - by, extent[2] + by, extent[3] + by


def _wrapped(
    lines: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> list[str]:
    """Lines broken between words where they are wider than this, in pixels."""
    done: list[str] = []
    for line in lines:
        row = ""
        for word in line.split():
            if row and font.getlength(f"{row} {word}") > width:
                done.append(row)
                row = word
            else:
                row = f"{row} {word}" if row else word
        done.append(row)
    return done


def _places(box: Box | None, size: tuple[float, float], picture: tuple[int, int]) -> list[_Extent]:
    """Where a label of this size may go, those nearest to its box first."""
    width, height = size
    if box is None:
        return [(0, 0, width, height)]
    most = max(0, picture[0] - width), max(0, picture[1] - height)
    corners = [
        (min(max(0, x), most[0]), min(max(0, y), most[1]))
        for row in range(0, picture[1], max(1, round(height / 4)))
        for y in (box[1] - height - 2 - row, box[3] + 2 + row)
        for x in (box[0], box[2] - width, (box[0] + box[2] - width) / 2)
    ]
    places = [(x, y, x + width, y + height) for x, y in corners]
    return sorted(places, key=lambda place: _distance(place, box))


def _between(label: _Extent, box: _Extent) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of a line from a label to its box."""
    x = min(max((label[0] + label[2]) / 2, box[0]), box[2])
    y = min(max((label[1] + label[3]) / 2, box[1]), box[3])
    return (min(max(x, label[0]), label[2]), min(max(y, label[1]), label[3])), (x, y)


def _distance(one: _Extent, other: _Extent) -> float:
    across = max(0, one[0] - other[2], other[0] - one[2])
    down = max(0, one[1] - other[3], other[1] - one[3])
    return across + down


def _overlap(one: _Extent, other: _Extent) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

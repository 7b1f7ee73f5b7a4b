"""Pages of HTML that open without a network: their templates, and the pictures inside them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

if TYPE_CHECKING:
    from carspotter.photo import Pixels

_SIDE = 176
"""Longest side of a picture in a page, in pixels."""

_QUALITY = 72
"""Of the JPEG."""


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package; what is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("carspotter.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["interval"] = _interval
    return environment.get_template(template).render(**values)


def data_uri(pixels: Pixels) -> str:
    """A picture (H, W, 3) uint8, shrunk, as a `data:` URI."""
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(share: float | None, digits: int = 2) -> str:
    return "" if share is None else f"{100 * share:.{digits}f} %"


def _interval(bounds: Sequence[float] | None, digits: int = 1) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}"

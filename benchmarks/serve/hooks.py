"""What schemathesis is told of photos: that half of the bodies are some."""

from __future__ import annotations

import io
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

_COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


def _photo(colour: tuple[int, int, int], form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(buffer, form)
    return buffer.getvalue()


_PHOTOS = st.builds(_photo, _COLOURS, st.sampled_from(("JPEG", "PNG", "WEBP")))

for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, st.one_of(_PHOTOS, st.binary(max_size=200)))


@schemathesis.hook
def flatmap_body(context: Any, body: Any) -> st.SearchStrategy[Any]:
    """Photos in the place of random bytes, in half of the multipart bodies.

    What breaks the schema stays: a part that holds a number would be a photo all at once, and
    rightly be taken.
    """
    found = body.get("photo") if isinstance(body, dict) else None
    photos: st.SearchStrategy[Any]
    if isinstance(found, bytes) and context.operation.path == "/v1/explain":
        photos = _PHOTOS
    elif isinstance(found, list) and all(isinstance(photo, bytes) for photo in found):
        photos = st.lists(_PHOTOS, min_size=1, max_size=3)
    else:
        return st.just(body)
    return st.one_of(st.just(body), photos.map(lambda photo: {**body, "photo": photo}))

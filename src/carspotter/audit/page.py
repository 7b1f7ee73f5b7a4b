"""check.html: the findings on one page that opens without a network, of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carspotter.audit.check import EXTREME, TINY, Check
from carspotter.audit.counts import FEW
from carspotter.audit.duplicates import Group
from carspotter.data import Picture, PictureReader
from carspotter.errors import PhotoError
from carspotter.pages import data_uri, render
from carspotter.photo import read_photo

_BUDGET = 6_000_000
"""Bytes of pictures in a page."""

_GROUPS = 400
_IN_GROUP = 8
_SUSPECTS = 60
_LINES = 300
"""Most that is listed of each; check.json has them all."""


class _Thumbnails:
    """Small pictures as `data:` URIs, until there is no room for more."""

    def __init__(self) -> None:
        self._reader = PictureReader()
        self._left = _BUDGET

    def of(self, picture: Picture) -> str | None:
        """None where there is no room, or the picture can no longer be read."""
        if self._left <= 0:
            return None
        try:
            pixels = read_photo(self._reader.read(picture), name=picture.key)
        except PhotoError:
            return None
        source = data_uri(pixels)
        self._left -= len(source)
        return source


def page(check: Check) -> str:
    """The findings as HTML."""
    thumbnails = _Thumbnails()
    groups = check.duplicates.groups
    kinds = {
        "Contradictory: one photo under several labels": [g for g in groups if g.contradictory],
        "Leaks: one photo in several splits": [g for g in groups if not g.contradictory and g.leak],
        "Other copies": [g for g in groups if not (g.contradictory or g.leak)],
    }
    room = _GROUPS
    sections = []
    for title, some in kinds.items():
        sections.append(
            {
                "title": title,
                "number": len(some),
                "groups": [_group(group, thumbnails) for group in some[:room]],
            }
        )
        room -= len(some[:room])
    return render(
        "check.html.j2",
        title=f"Check of {check.data.root.resolve().name}",
        check=check,
        document=check.to_dict(),
        sections=sections,
        suspects=_suspects(check, thumbnails),
        lines=_LINES,
        tiny=TINY,
        extreme=EXTREME,
        few=FEW,
    )


def _group(group: Group, thumbnails: _Thumbnails) -> dict[str, Any]:
    shown = group.pictures[:_IN_GROUP]
    return {
        "group": group,
        "more": len(group.pictures) - len(shown),
        "pictures": [{"picture": p, "source": thumbnails.of(p)} for p in shown],
    }


def _suspects(check: Check, thumbnails: _Thumbnails) -> Sequence[dict[str, Any]]:
    if check.labels is None:
        return ()
    return [
        {"suspect": s, "source": thumbnails.of(check.data.pictures[check.places[s.picture]])}
        for s in check.labels.suspects[:_SUSPECTS]
    ]

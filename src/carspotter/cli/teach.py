"""`carspotter teach`: from a few photos to a car in a garage."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from carspotter.cli.identify import parse_box
from carspotter.cli.output import in_json
from carspotter.errors import UsageError
from carspotter.garage import in_photos
from carspotter.listing import expand
from carspotter.loading import load
from carspotter.names import name_of
from carspotter.spotter import CropMode
from carspotter.teaching import teach

if TYPE_CHECKING:
    from carspotter.teaching import Lesson


def run(
    label: str,
    photos: Sequence[str],
    garage: Path,
    *,
    make: str | None,
    body: str | None,
    year: int | None,
    add: bool,
    model: str | None,
    box: str | None,
    crop: str,
    detector: str | None,
    threads: int | None,
    provider: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Teach a car; returns the exit code."""
    name = name_of(label, make=make, body=body, year=year)
    if crop not in get_args(CropMode):
        raise UsageError(f"--crop {crop}: must be {' or '.join(get_args(CropMode))}")
    if photos.count("-") > 1:
        raise UsageError("- stands for one photo on stdin; give it once")
    lesson = teach(
        load(model, detector=detector, threads=threads, provider=provider),
        garage,
        name,
        expand(photos),
        add=add,
        box=None if box is None else parse_box(box),
        crop=cast("CropMode", crop),
    )
    for _, failure in lesson.failed:
        print(f"carspotter: {failure.message}", file=sys.stderr)
    if not quiet:
        _note(lesson)
    if as_json:
        print(in_json({"garage": str(garage), **lesson.to_dict()}))
    elif not lesson.photos:
        print(f"{garage}: {lesson.name.label} was not taught: none of its photos can be used")
    else:
        known = in_photos(lesson.photos)
        print(f"{garage}: {lesson.name.label}, {known}, {len(lesson.added)} of them new")
    return 1 if lesson.failed else 0


def _note(lesson: Lesson) -> None:
    for photo in lesson.skipped:
        print(f"{photo}: taught already, does not count twice", file=sys.stderr)
    for photo, taken in lesson.taken_for:
        print(
            f"{photo}: without this lesson it is {taken.label} ({100 * taken.confidence:.0f} %); "
            "is it the right photo?",
            file=sys.stderr,
        )

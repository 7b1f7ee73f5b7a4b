"""`carspotter identify`: from arguments to printed results."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from carspotter.cli.explain import HeatMapFolder
from carspotter.cli.output import in_json
from carspotter.errors import UsageError
from carspotter.listing import expand
from carspotter.loading import load
from carspotter.results import in_percent
from carspotter.spotter import CropMode

if TYPE_CHECKING:
    from carspotter.preprocess import Box
    from carspotter.results import Answer, Identification, LabelSet

Style: TypeAlias = Literal["text", "json", "csv"]

_COVERAGE = 0.95
"""Of sets, as --sets gives them."""

_CSV_COLUMNS = ("photo", "level", "label", "make", "model", "body", "year", "confidence", "error")


def run(
    photos: Sequence[str],
    *,
    style: Style,
    both: bool,
    top: int,
    model: str | None,
    box: str | None,
    crop: str | None,
    detector: str | None,
    explain: Path | None,
    garage: Path | None,
    sets: bool,
    min_confidence: float | None,
    threads: int | None,
    provider: str,
    quiet: bool,
) -> int:
    """Print a result for each photo; returns the exit code."""
    if both:
        raise UsageError("--json and --csv exclude each other")
    if photos.count("-") > 1:
        raise UsageError("- stands for one photo on stdin; give it once")
    if "-" in photos and sys.stdin is None:
        raise UsageError("- stands for a photo on stdin, but stdin is closed")
    if sys.stdout is None:
        raise UsageError("results are printed on stdout, but stdout is closed")
    if sets and explain is not None:
        raise UsageError("--sets and --explain exclude each other")
    area = None if box is None else parse_box(box)
    if crop not in (None, *get_args(CropMode)):
        raise UsageError(f"--crop {crop}: must be {' or '.join(get_args(CropMode))}")
    mode = cast("CropMode", crop or "auto")
    spotter = load(
        model,
        detector=detector,
        garage=garage,
        min_confidence=min_confidence,
        threads=threads,
        provider=provider,
    )
    if crop == "auto" and detector is None and not (spotter.finds_cars or area or quiet):
        print(
            f"{model}: a file has no detector, so each photo is taken as a whole; --detector "
            "embedded finds the cars",
            file=sys.stderr,
        )
    if explain is None:
        results = spotter.identify_many(
            expand(photos), top_k=top, box=area, crop=mode, coverage=_COVERAGE if sets else None
        )
    else:
        # All names now: what is written must not meet a photo, nor be taken for one.
        sources = list(expand(photos))
        explained = spotter.explain_many(sources, top_k=top, box=area, crop=mode)
        results = HeatMapFolder(explain, sources).written(explained)
    looks_for_cars = spotter.finds_cars and area is None and mode == "auto"
    least = {float(key): value for key, value in spotter.card.sets.items()}.get(_COVERAGE, 0.0)
    show = _printer(style, looks_for_cars, least)
    failed = 0
    with _Counter(quiet) as count:
        for result in results:
            failed += result.error is not None
            show(result)
            count()
    return 1 if failed else 0


def parse_box(text: str) -> Box:
    """Read "X1,Y1,X2,Y2".

    Raises:
        UsageError: not four whole numbers, or right of left or bottom of top are not in order.
    """
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--box {text}: needs four whole numbers, X1,Y1,X2,Y2") from None
    if left >= right or top >= bottom:
        raise UsageError(f"--box {text}: X1 must be left of X2 and Y1 above Y2")
    return left, top, right, bottom


def _printer(style: Style, looks_for_cars: bool, least: float) -> Callable[[Identification], None]:
    if style == "json":
        return lambda found: _tell(in_json(found.to_dict()))
    if style == "csv":
        writer = csv.DictWriter(sys.stdout, _CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        return lambda found: writer.writerow(_csv_row(found))
    return lambda found: _tell("\n".join(_text(found, looks_for_cars, least)))


def _tell(text: str) -> None:
    """Print a result at once. `print` writes the end of the line apart: Ctrl-C may fall between."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _csv_row(found: Identification) -> dict[str, object]:
    answer = {} if found.answer is None else found.answer.to_dict()
    error = "" if found.error is None else f"{found.error.code}: {found.error.message}"
    return {"photo": found.photo, **answer, "error": error}


def _text(found: Identification, looks_for_cars: bool, least: float) -> list[str]:
    if found.answer is None:
        assert found.error is not None
        return [f"{found.photo}: error: {found.error.message.removeprefix(f'{found.photo}: ')}"]
    if looks_for_cars and found.box is None:
        return [f"{found.photo}: no car found"]
    place = _place(found.box) if found.others else ""
    return [
        f"{found.photo}: {_in_words(found.answer)}{place}",
        *_set_in_words(found.label_set, least),
        *(f"  {100 * c.confidence:5.1f} %  {c.label}" for c in found.candidates),
        *(f"  also: {_in_words(car.answer)}{_place(car.box)}" for car in found.others),
    ]


def _set_in_words(found: LabelSet | None, least: float) -> list[str]:
    """A set, where the probability of what is in it is to be `least` at least."""
    if found is None:
        return []
    names = [candidate.label for candidate in found.candidates]
    promise = in_percent(found.coverage)
    if found.candidates[0].confidence < least:
        return [f"  the most probable one, but none is probable enough for a set at {promise}"]
    if len(names) == 1:
        return [f"  this one alone, {promise}"]
    return [f"  one of these {len(names)}, {promise}: {'; '.join(names)}"]


def _place(box: Box | None) -> str:
    return "" if box is None else f" at {','.join(map(str, box))}"


def _in_words(answer: Answer) -> str:
    percent = in_percent(answer.confidence)
    if answer.level == "exact":
        return f"{answer.label}, {percent}"
    if answer.level == "model":
        return f"{answer.label}, {percent} (body style and year are not clear)"
    if answer.level == "make":
        return f"{answer.label}, {percent} (the model is not clear)"
    return "not clear which car this is"


class _Counter:
    """A count of photos on stderr, where that is a terminal and there is more than one."""

    def __init__(self, quiet: bool) -> None:
        self._shown = sys.stderr.isatty() and not sys.stdout.isatty() and not quiet
        self._done = 0

    def __enter__(self) -> Callable[[], None]:
        return self._count

    def _count(self) -> None:
        self._done += 1
        if self._shown:
            print(f"\r{self._done} photos", end="", file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        if self._shown and self._done:
            print(file=sys.stderr)

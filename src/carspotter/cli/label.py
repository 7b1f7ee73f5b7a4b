"""`carspotter label` and `carspotter similar`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from carspotter.cli.output import in_json
from carspotter.errors import UsageError
from carspotter.garage import in_photos
from carspotter.label import Request, Settings, Summary, find_similar, label_archive
from carspotter.label.archive import Engine
from carspotter.label.archive import Progress as Count
from carspotter.label.job import Recogniser
from carspotter.loading import load
from carspotter.spotter import CropMode

_MIB = 1 << 20

_INTERRUPTED = 130
"""What shells give a program that Ctrl-C ended."""


def run_label(
    sources: Sequence[str],
    out: Path,
    *,
    resume: bool,
    engine: str,
    actors: int | None,
    ray_address: str | None,
    embeddings: bool,
    column: str | None,
    chunk: int,
    max_file_mb: int,
    model: str | None,
    crop: str,
    detector: str | None,
    garage: Path | None,
    min_confidence: float | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Label an archive and say what came of it; returns the exit code."""
    if engine not in get_args(Engine):
        raise UsageError(f"--engine {engine}: must be {' or '.join(get_args(Engine))}")
    if engine != "ray" and (actors is not None or ray_address is not None):
        raise UsageError("--actors and --ray-address are for --engine ray")
    request = Request(
        tuple(sources),
        out,
        Recogniser(
            model, detector, None if garage is None else str(garage), min_confidence, _mode(crop)
        ),
        column,
        embeddings,
    )
    settings = Settings(
        cast("Engine", engine),
        resume,
        threads,
        actors,
        ray_address,
        chunk,
        max_file_mb * _MIB,
    )
    try:
        with _bar(quiet) as count:
            summary = label_archive(request, settings, count)
    except KeyboardInterrupt:
        print(
            f"carspotter: interrupted; what is finished is kept in {out}.work: go on by --resume",
            file=sys.stderr,
        )
        return _INTERRUPTED
    print(json.dumps(summary.to_dict()) if as_json else _in_words(summary))
    return 1 if summary.failed else 0


def run_similar(
    photo: str,
    results: Path,
    *,
    top: int,
    model: str | None,
    crop: str,
    detector: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Print the photos that are most similar."""
    spotter = load(model, detector=detector, threads=threads)
    for match in find_similar(spotter, photo, results, top=top, crop=_mode(crop)):
        if as_json:
            print(in_json(match.to_dict()))
        else:
            print(f"{match.similarity:6.3f}  {match.photo}  {match.label}")


def _mode(crop: str) -> CropMode:
    if crop not in get_args(CropMode):
        raise UsageError(f"--crop {crop}: must be {' or '.join(get_args(CropMode))}")
    return cast("CropMode", crop)


def _in_words(summary: Summary) -> str:
    levels = ", ".join(f"{count} {level}" for level, count in summary.levels.items())
    said = f"{summary.out}: {in_photos(summary.photos)}, {summary.failed} failed"
    if not summary.new:
        return f"{said}; it was complete ({levels or 'no answers'})"
    rate = summary.new / max(summary.seconds, 1e-9)
    now = f"{summary.new} now, in {summary.seconds:.0f} s, {rate:.1f} photos/s"
    return f"{said} ({levels or 'no answers'}); {now}"


@contextlib.contextmanager
def _bar(quiet: bool) -> Iterator[Count]:
    """A bar with rate and time left, where stderr is a terminal."""
    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("photos"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal and not quiet
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=None, rate="")
        began: tuple[int, float] | None = None

        def count(done: int, total: int | None) -> None:
            nonlocal began
            if began is None:
                began = done, time.monotonic()  # what earlier calls did says nothing of this rate
            passed = time.monotonic() - began[1]
            rate = f"{(done - began[0]) / passed:.1f} photos/s" if passed > 1 else ""
            progress.update(task, completed=done, total=total, rate=rate)

        yield count

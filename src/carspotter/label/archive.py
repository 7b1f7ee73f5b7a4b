"""Labelling an archive: from sources to results, by either engine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from carspotter.errors import DataError, MissingExtraError, UsageError
from carspotter.label.assembly import assemble, form_of, read_about, tally
from carspotter.label.job import Job, Recogniser
from carspotter.label.labeller import Labeller
from carspotter.label.pieces import Piece, pieces
from carspotter.label.rows import schema_of
from carspotter.label.sources import entries
from carspotter.label.storage import is_address
from carspotter.label.work import Plan, Run, Work
from carspotter.results import ModelInfo

Engine: TypeAlias = Literal["local", "ray"]

Progress: TypeAlias = Callable[[int, "int | None"], None]
"""Called with the photos done, those of earlier calls too, and all, where that is known."""

CHUNK = 500
"""Photos of a piece."""

MOST_BYTES = 1 << 30
"""Of a parquet file of the results."""


@dataclass(frozen=True)
class Request:
    """What is to be labelled.

    Attributes:
        sources: files, folders, globs and addresses.
        out: the results; its ending says the form.
        recogniser: how photos are looked at.
        column: of the photos or images in tables and parquet files; None: found by itself.
        embeddings: whether the results hold the embeddings, for `find_similar`.
    """

    sources: tuple[str, ...]
    out: Path
    recogniser: Recogniser = field(default_factory=Recogniser)
    column: str | None = None
    embeddings: bool = False


@dataclass(frozen=True)
class Settings:
    """How it is done; none of it changes the results.

    Attributes:
        engine: this process, or Ray.
        resume: whether to go on with what is there.
        threads: to compute with, of each actor; None: all cores, or one of an actor.
        actors: of Ray; None: as many as there are cores for.
        ray_address: of a cluster; None: a Ray of its own on this machine.
        chunk: photos of a piece: so many are done again after a crash, at most, for each actor.
        most_bytes: of a parquet file; larger results become a folder of files.
    """

    engine: Engine = "local"
    resume: bool = False
    threads: int | None = None
    actors: int | None = None
    ray_address: str | None = None
    chunk: int = CHUNK
    most_bytes: int = MOST_BYTES


@dataclass(frozen=True)
class Summary:
    """What came of it.

    Attributes:
        out: the results.
        photos: how many rows they have.
        failed: how many of these have an error.
        levels: how often each level was answered.
        new: how many photos were looked at in this call.
        seconds: that this call took.
    """

    out: Path
    photos: int
    failed: int
    levels: dict[str, int]
    new: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "photos": self.photos,
            "failed": self.failed,
            "levels": self.levels,
            "new": self.new,
            "seconds": round(self.seconds, 3),
        }


def label_archive(
    request: Request,
    settings: Settings | None = None,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Name the car on every photo of an archive.

    Work goes on in pieces of a frozen plan, in a folder beside the results; a piece is finished
    when its part is there, whole. After a crash, `resume` does what is missing.

    Args:
        request: what.
        settings: how.
        progress: called as it goes on.

    Raises:
        UsageError: the results exist, or unfinished ones and `resume` is not set, or they are of
            another model, source or options; an ending or an address that nothing here can write
            or open.
        DataError: a source is missing or has no photos.
        CarspotterError: the model cannot be loaded, as for `carspotter.load`.
        OSError: nothing can be written; finished parts are kept.
    """
    settings = settings or Settings()
    started = time.monotonic()
    _check(request)
    run_on_ray = _ray() if settings.engine == "ray" else None
    spotter = request.recogniser.load(settings.threads)
    job, work = _job(request, spotter.info), Work(request.out)
    counts = _finished_before(request.out, job, work, resume=settings.resume)
    if counts is not None:
        return Summary(request.out, **counts, new=0, seconds=time.monotonic() - started)
    schema = schema_of(as_lines=form_of(request.out) == "jsonl", embeddings=request.embeddings)
    _make_folder(work, request.out)
    with work.locked(), _unless_begun(work):  # without the lock, it is another process's
        plan, base = _planned(work, job, request, settings.chunk)
        run = Run(work, plan, request.recogniser, base, schema, work.finished())
        before = sum(run.finished.values())
        progress(before, plan.photos)
        if run_on_ray is None:
            _run_here(run, Labeller(spotter, request.recogniser.crop, base, schema), progress)
        else:
            run_on_ray(run, spotter.info, settings, progress)
        counts = _finish(run, request.out, job, settings.most_bytes)
    return Summary(
        request.out,
        **counts,
        new=counts["photos"] - before,
        seconds=time.monotonic() - started,
    )


def _check(request: Request) -> None:
    form = form_of(request.out)
    if request.embeddings and form != "parquet":
        raise UsageError(f"--out {request.out}: embeddings are kept in .parquet alone")
    if not request.out.parent.is_dir():
        raise DataError(f"--out {request.out}: no such folder")


def _ray() -> Callable[[Run, ModelInfo, Settings, Progress], None]:
    try:
        from carspotter.label.ray_engine import run_on_ray
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "carspotter":
            raise
        raise MissingExtraError("label --engine ray", "ray") from error
    return run_on_ray


def _job(request: Request, model: ModelInfo) -> Job:
    sources = tuple(
        source if is_address(source) else str(Path(source).resolve()) for source in request.sources
    )
    options = {
        **request.recogniser.options(),
        "column": request.column,
        "embeddings": request.embeddings,
    }
    return Job(model, options, sources, os.getcwd())  # noqa: PTH109  # paths stay strings


def _finished_before(out: Path, job: Job, work: Work, *, resume: bool) -> dict[str, Any] | None:
    """The counts of results that are there already, of this job; None where there are none."""
    if not os.path.lexists(out):
        if work.is_begun and not resume:
            raise UsageError(
                f"{work.path} holds unfinished results; go on with them by --resume, or delete it "
                "to begin anew"
            )
        return None
    if not resume:
        raise UsageError(f"{out} exists already; name another --out, or delete it")
    about = read_about(out)
    job.check_same(about, out)
    work.remove()  # of a process that was killed at the very end
    return {key: about[key] for key in ("photos", "failed", "levels")}


def _make_folder(work: Work, out: Path) -> None:
    try:
        work.path.mkdir(exist_ok=True)
    except OSError as error:
        raise OSError(f"{out}: cannot be written there ({error.strerror})") from error


@contextlib.contextmanager
def _unless_begun(work: Work) -> Iterator[None]:
    """Leave no folder behind where work did not even begin."""
    try:
        yield
    finally:
        if not work.is_begun:
            work.remove()


def _planned(work: Work, job: Job, request: Request, chunk: int) -> tuple[Plan, str]:
    if work.is_begun:
        return work.resume(job)
    found = entries(request.sources, job.base, request.column)
    plan = work.begin(job, _some_good(pieces(found, job.base, request.column, chunk)))
    return plan, job.base


def _some_good(found: Iterator[Piece]) -> Iterator[Piece]:
    good, reason = False, "SOURCE holds no photos"
    for piece in found:
        if piece.kind == "broken":
            reason = piece.message
        else:
            good = True
        yield piece
    if not good:
        raise DataError(reason)


def _run_here(run: Run, labeller: Labeller, progress: Progress) -> None:
    done = sum(run.finished.values())

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, run.plan.photos)

    for number, piece in run.work.pieces():
        if number not in run.finished:
            labeller.label(piece, run.work.part(number), count)


def _finish(run: Run, out: Path, job: Job, most_bytes: int) -> dict[str, Any]:
    parts = [run.work.part(number) for number in range(run.plan.pieces)]
    counts = tally(parts)
    if run.plan.photos not in (None, counts["photos"]):
        raise RuntimeError(f"{run.work.path}: {counts['photos']} rows of {run.plan.photos} photos")
    about = {**job.to_dict(), **counts}
    try:
        assemble(parts, out, about, run.schema, scratch=run.work.path, most_bytes=most_bytes)
    except OSError as error:
        raise OSError(
            f"{out}: cannot be written ({error.strerror or error}); all {counts['photos']} photos "
            f"are done and kept in {run.work.path}: make room, then go on by --resume"
        ) from error
    run.work.remove()
    return counts

"""One call of `carspotter label` in a process of its own, watched from outside."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

_LOOK_EVERY = 0.2


@dataclass(frozen=True)
class Measured:
    """What a call took.

    Attributes:
        engine: "local" or "ray".
        actors: of Ray; 0 for the local engine.
        photos: rows of the results.
        failed: rows with an error.
        seconds: from the start of the process to its end.
        planned_after: seconds until the work had begun.
        per_second: photos by the seconds between the first and the last finished chunk.
        cpu_seconds: of the process and all below it, as far as they were seen.
        peak_mib: the most resident memory of the process and all below it, pages that they share
            counted once in each.
    """

    engine: str
    actors: int
    photos: int
    failed: int
    seconds: float
    planned_after: float
    per_second: float
    cpu_seconds: float
    peak_mib: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def call(source: Path, out: Path, *more: str, actors: int = 0) -> Measured:
    """Label a list, and watch.

    Raises:
        RuntimeError: the call failed.
    """
    engine = ["--engine", "ray", "--actors", str(actors)] if actors else []
    command = [sys.executable, "-m", "carspotter", "label", str(source), "--out", str(out)]
    work = out.with_name(f"{out.name}.work")
    started = time.monotonic()
    log = out.with_name(f"{out.name}.log")
    with log.open("wb") as errors:
        run = psutil.Popen(
            [*command, *engine, *more, "--json"], stdout=subprocess.PIPE, stderr=errors
        )
    planned: float | None = None
    peak, spent = 0, {}
    marks: list[tuple[float, int]] = []
    try:
        while run.poll() is None:
            now = time.monotonic() - started
            if planned is None and (work / "job.json").exists():
                planned = now
            parts = len(list((work / "parts").glob("*.parquet"))) if planned is not None else 0
            if parts and (not marks or parts > marks[-1][1]):
                marks.append((now, parts))
            used, cpu = _tree(run)
            peak = max(peak, used)
            spent.update(cpu)
            time.sleep(_LOOK_EVERY)
    finally:
        for process in [*_below(run), run]:  # still there only where this was interrupted
            with contextlib.suppress(psutil.Error):
                process.kill()
    seconds = time.monotonic() - started
    assert run.stdout is not None
    said = run.stdout.read()
    if run.returncode not in (0, 1) or not said:
        raise RuntimeError(f"{' '.join(command)}: exit code {run.returncode}; see {log}")
    summary = json.loads(said)
    share = (marks[-1][1] - marks[0][1]) / max(1, marks[-1][1]) if marks else 0.0
    between = marks[-1][0] - marks[0][0] if marks else 0.0
    return Measured(
        engine="ray" if actors else "local",
        actors=actors,
        photos=summary["photos"],
        failed=summary["failed"],
        seconds=round(seconds, 2),
        planned_after=round(planned or seconds, 2),
        per_second=round(summary["photos"] * share / between, 2) if between else 0.0,
        cpu_seconds=round(sum(spent.values()), 1),
        peak_mib=round(peak / (1 << 20)),
    )


def planned_after(source: Path, out: Path, *more: str) -> float:
    """Seconds until the work on a list has begun; it is ended then."""
    command = [sys.executable, "-m", "carspotter", "label", str(source), "--out", str(out), *more]
    job = out.with_name(f"{out.name}.work") / "job.json"
    started = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        while not job.exists():
            if run.poll() is not None:
                raise RuntimeError(f"{' '.join(command)}: exit code {run.returncode}")
            time.sleep(0.02)
        taken = time.monotonic() - started
        run.kill()
    return round(taken, 2)


def different_rows(one: Path, other: Path) -> int:
    """Rows of two results that are not the same; their times do not count."""
    tables = [pq.read_table(file).drop_columns(["seconds"]) for file in (one, other)]
    if tables[0].num_rows != tables[1].num_rows:
        return int(max(table.num_rows for table in tables))
    return sum(a != b for a, b in zip(*map(_rows, tables), strict=True))


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _tree(run: psutil.Popen) -> tuple[int, dict[int, float]]:
    """Resident bytes and processor seconds of a process and all below it."""
    used, cpu = 0, {}
    for process in [run, *_below(run)]:
        try:
            times = process.cpu_times()
            used += process.memory_info().rss
            cpu[process.pid] = times.user + times.system
        except psutil.Error:  # it has ended meanwhile
            continue
    return used, cpu


def _below(run: psutil.Popen) -> list[psutil.Process]:
    try:
        return list(run.children(recursive=True))
    except psutil.Error:
        return []

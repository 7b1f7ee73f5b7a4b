"""`carspotter bench`: this machine's speed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carspotter.bench.contenders import OURS, PEERS, Contest, contest, peers_python
from carspotter.bench.measure import Measured, Sizes, machine, measure
from carspotter.errors import DataError, UsageError
from carspotter.files import write_text
from carspotter.loading import load

_HEAD = ("photo", "cold start", "to bare", "p50", "p99", "photos/s", "memory")
_FIGURES = (
    "megapixels",
    "cold_seconds",
    "p50_ms",
    "p99_ms",
    "photos_per_second",
    "peak_mib",
)
_PEERS_HEAD = ("photo", "who", "cold start", "p50", "p99", "photos/s", "memory")


def run(
    sizes: Sizes,
    *,
    model: str | None,
    detector: str | None,
    threads: int | None,
    provider: str,
    peers: Sequence[str] | None,
    peers_environment: str | None,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure and print; returns the exit code.

    Args:
        sizes: how much.
        model: as for `load`.
        detector: as for `load`.
        threads: as for `load`.
        provider: as for `load`; peers compute on the CPU.
        peers: whom to measure beside; empty: all; None: nobody.
        peers_environment: the Python that has what they need; None: an environment is made.
        report: a file for the JSON; None: none.
        as_json: print that JSON.
        quiet: say nothing on stderr.
    """
    unknown = [name for name in peers or () if name not in PEERS]
    if unknown:
        raise UsageError(f"--peer {unknown[0]}: must be one of {', '.join(PEERS)}")
    if report is not None and not report.parent.is_dir():
        raise DataError(f"{report.parent}: no such folder")
    spotter = load(
        model, detector=detector, threads=threads, provider=provider
    )  # what is wrong is said before

    def step(what: str) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"measuring {what} ...", file=sys.stderr)

    said: dict[str, Any] = {"model": spotter.info.to_dict(), "machine": machine()}
    contests: list[Contest] = []
    if peers is not None:
        contests = contest(
            sizes,
            peers or list(PEERS),
            peers_python(peers_environment, step),
            model=model,
            onnx=spotter.path,
            threads=threads,
            provider=provider,
            step=step,
        )
        said["peers"] = _with_ratios(contests)
        table = [_PEERS_HEAD, *_peer_rows(said["peers"])]
    else:
        found = measure(
            sizes, model=model, detector=detector, threads=threads, provider=provider, step=step
        )
        said["photos"] = [one.to_dict() for one in found]
        table = [_HEAD, *map(_row, found)]
    if report is not None:
        write_text(report, json.dumps(said, indent=1) + "\n")
    if as_json:
        print(json.dumps(said))
    else:
        print(f"{spotter.info.name}, {said['machine']['cores']} cores")
        _print_table(table)
    for one in contests:
        if one.error:
            who = f"{PEERS[one.contender]}, {one.megapixels:g} MP"
            print(f"carspotter: {who}: {one.error}", file=sys.stderr)
    return 1 if any(one.error for one in contests) else 0


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _with_ratios(contests: Sequence[Contest]) -> list[dict[str, Any]]:
    ours = {one.megapixels: one for one in contests if one.contender == OURS}
    return [one.to_dict(ours[one.megapixels]) for one in contests]


def _peer_rows(contests: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Carspotter's own figures; of each peer, how many times those it takes."""
    rows: list[tuple[str, ...]] = []
    for one in contests:
        name, photo = one["contender"], f"{one['megapixels']:g} MP"
        if one["error"]:
            rows.append((photo, PEERS[name], "failed", *[""] * (len(_PEERS_HEAD) - 3)))
        elif name == OURS:
            own = Measured(bare_seconds=1.0, **{k: one[k] for k in _FIGURES})
            _, cold, _, *others = _row(own)
            rows.append((photo, name, cold, *others))
        else:
            times = [one["times_ours"].get(key) for key in _FIGURES[1:]]
            shown = ("-" if value is None else f"{value:.2f} x" for value in times)
            rows.append((photo, PEERS[name], *shown))
    return rows


def _row(one: Measured) -> tuple[str, ...]:
    memory = "-" if one.peak_mib is None else f"{one.peak_mib:.0f} MiB"
    return (
        f"{one.megapixels:g} MP",
        f"{one.cold_seconds:.2f} s",
        f"{one.cold_seconds / one.bare_seconds:.2f} x",
        f"{one.p50_ms:.1f} ms",
        f"{one.p99_ms:.1f} ms",
        f"{one.photos_per_second:.0f}",
        memory,
    )

"""`carspotter bench`: this machine's speed."""

from __future__ import annotations

import json
import sys

from carspotter.bench.measure import Measured, Sizes, machine, measure
from carspotter.loading import load

_HEAD = ("photo", "cold start", "to bare", "p50", "p99", "photos/s", "memory")


def run(
    sizes: Sizes,
    *,
    model: str | None,
    detector: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure and print."""
    spotter = load(model, detector=detector, threads=threads)  # what is wrong is said before

    def step(what: str) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"measuring {what} ...", file=sys.stderr)

    found = measure(sizes, model=model, detector=detector, threads=threads, step=step)
    if as_json:
        said = {
            "model": spotter.info.to_dict(),
            "machine": machine(),
            "photos": [one.to_dict() for one in found],
        }
        print(json.dumps(said))
        return
    print(f"{spotter.info.name}, {machine()['cores']} cores")
    rows = [_HEAD, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


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

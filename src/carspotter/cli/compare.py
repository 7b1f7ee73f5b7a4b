"""`carspotter compare`: several evaluations side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from carspotter.files import write_text
from carspotter.report.compare import Comparison, Pairing, compare, page

_SHOWN = 5
"""Classes shown of those that lose and of those that win most."""


def run(reports: Sequence[Path], out: Path | None, *, as_json: bool) -> None:
    """Compare, print, and write compare.json and compare.html where a folder is given."""
    found = compare(reports)
    result = found.to_dict()
    if out is not None:
        write_text(out / "compare.html", page(found))
        write_text(out / "compare.json", json.dumps(result, indent=1) + "\n")
    if as_json:
        print(json.dumps(result))
    else:
        _print(found)


def _print(found: Comparison) -> None:
    console = Console()
    table = Table(title=f"{found.pictures} pictures, the same for all", title_justify="left")
    table.add_column("model")
    for column in ("top-1 %", "model %", "make %", "top-5 %", "macro F1 %", "ECE %"):
        table.add_column(column, justify="right")
    for side in found.sides:
        exact, model, make = side.metrics
        figures = (exact.top1, model.top1, make.top1, exact.top5, exact.macro_f1, side.ece)
        table.add_row(side.name, *(f"{100 * figure:.2f}" for figure in figures))
    console.print(table)
    for note in found.notes:
        console.print(f"take care: {note}", highlight=False, soft_wrap=True)
    for pair in found.pairings:
        for line in _in_words(pair):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _in_words(pair: Pairing) -> list[str]:
    total = pair.total
    low, high = (100 * bound for bound in total.interval)
    lines = [
        f"{pair.second.name} against {pair.first.name}: {100 * total.gain:+.2f} points "
        f"({low:+.2f} to {high:+.2f}, 95 %), p = {total.p_value:.2g} (exact McNemar test)",
        f"  right: both {total.both_right}, only {pair.second.name} {total.second_only}, "
        f"only {pair.first.name} {total.first_only}, neither {total.both_wrong}",
    ]
    lost = [one for one in pair.classes if one.second_only < one.first_only][:_SHOWN]
    won = [one for one in reversed(pair.classes) if one.second_only > one.first_only][:_SHOWN]
    for word, classes in (("loses most", lost), ("wins most", won)):
        if classes:
            named = ", ".join(
                f"{one.name} {one.second_only - one.first_only:+d} of {one.pictures}"
                for one in classes
            )
            lines.append(f"  {word}: {named}")
    return lines

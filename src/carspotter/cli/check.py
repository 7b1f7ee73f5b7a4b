"""`carspotter data check`: what a data set holds and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from carspotter.audit import Check, check_data_set, exclusions, page
from carspotter.audit.check import EXTREME, TINY
from carspotter.audit.counts import FEW, UNEVEN
from carspotter.audit.duplicates import Group
from carspotter.data import open_data_set, write_exclusions
from carspotter.data.exclusions import HEADER, is_exclusions
from carspotter.errors import UsageError
from carspotter.files import write_text
from carspotter.train.progress import counting

_LINES = 12
"""Most that is listed of each thing."""


def run(
    root: Path,
    predictions: Path | None,
    report: Path | None,
    fix: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check, print, and write what is asked for; 1 if pictures were broken, else 0."""
    _need_free(root, report, fix)
    data = open_data_set(root)
    console = Console(stderr=True, quiet=quiet)

    def count(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return counting(what, console)

    check = check_data_set(data, predictions, count)
    if report is not None:
        write_text(report / "check.json", json.dumps(check.to_dict(), indent=1) + "\n")
        write_text(report / "check.html", page(check))
        _say(console, f"{report / 'check.html'}, {report / 'check.json'}")
    if fix is not None:
        listed = exclusions(check)
        write_exclusions(fix, listed)
        _say(
            console,
            f"{fix}: {len(listed)} training and validation pictures; "
            f"leave them out by `carspotter train … --set exclude={fix}`",
        )
    if as_json:
        print(json.dumps(check.to_dict()))
    else:
        _print(check)
    return 1 if check.broken else 0


def _need_free(root: Path, report: Path | None, fix: Path | None) -> None:
    """Refuse to write over the user's files, or between the data set's.

    Raises:
        UsageError: a file or folder to write is one of them.
    """
    inside = root.resolve()
    for option, path in (("--report", report), ("--fix", fix)):
        if path is not None and path.resolve().is_relative_to(inside):
            # A table or a folder more, and the data set would be read in another way.
            raise UsageError(f"{option} {path}: lies in the data set; name a place outside of it")
    if fix is not None and (fix.is_dir() or (fix.exists() and not is_exclusions(fix))):
        raise UsageError(
            f"--fix {fix}: is there already, and is no list of exclusions (its first line would "
            f"be `{','.join(HEADER)}`); name another file"
        )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _print(check: Check) -> None:
    console = Console()
    about = f"{len(check.data.pictures)} pictures of {len(check.data.class_names)} classes"
    _say(console, f"{check.data.root}: {about}, layout {check.data.layout}")
    for note in check.data.notes:
        _say(console, f"  {note}")
    console.print(_split_table(check))
    console.print(_finding_table(check))
    _list_classes(console, check)
    _list(console, "broken", map(str, check.broken.values()), len(check.broken))
    for fault, keys in check.faults.items():
        _list(console, fault.replace("_", " "), keys, len(keys))
    groups = check.duplicates.groups
    for title, some in (
        ("contradictory copies", [g for g in groups if g.contradictory]),
        ("leaks of one label", [g for g in groups if g.leak and not g.contradictory]),
        ("other copies", [g for g in groups if not (g.leak or g.contradictory)]),
    ):
        _list(console, title, map(_in_words, some), len(some))
    if check.labels:
        suspects = check.labels.suspects
        lines = (
            f"{s.picture}: {s.label} ({100 * s.probability:.1f} %)? rather {s.guess} "
            f"({100 * s.guess_probability:.1f} %)"
            for s in suspects
        )
        _list(console, "likely label errors", lines, len(suspects))
        if "train" in check.labels.pictures:
            _say(
                console,
                "predictions of pictures that the model was trained on say little of their labels",
            )


def _split_table(check: Check) -> Table:
    table = Table(title="Classes", title_justify="left")
    columns = ("split", "pictures", "smallest", "largest", "times", "none", f"< {FEW}")
    for column in columns:
        table.add_column(column, justify="left" if column == "split" else "right")
    for split in check.counts:
        numbers = (split.pictures, split.smallest, split.largest, f"{split.imbalance:.1f}")
        table.add_row(split.split, *map(str, (*numbers, len(split.none), len(split.few))))
    return table


def _finding_table(check: Check) -> Table:
    said = {
        "broken": "cannot be read or decoded",
        "tiny": f"shorter side below {TINY} pixels",
        "extreme_aspect": f"one side more than {EXTREME:g} times the other",
        "grey": "without colour",
        "odd_size": "another size than nearly all",
        "box_outside": "the box lies outside of the picture",
        "duplicates_exact": "groups of pictures with equal pixels",
        "duplicates_near": "groups of crops or copies of one photo",
        "contradictory": "of these groups, with several labels",
        "leaks": "of these groups, in several splits",
        "classes_without_picture": "over all splits",
        "classes_with_few": f"fewer than {FEW} pictures",
        "uneven_splits": f"largest class at least {UNEVEN} times the smallest",
        "label_suspects": "labels that the predictions speak against",
    }
    table = Table(title="Findings", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_column("")
    for name, number in check.summary().items():
        if name == "label_suspects" and check.labels is None:
            continue
        table.add_row(name.replace("_", " "), str(number), said[name])
    return table


def _list_classes(console: Console, check: Check) -> None:
    for split in check.counts:
        _list(console, f"no picture in {split.split}", split.none, len(split.none))
        few = (f"{name}: {number}" for name, number in split.few.items())
        _list(console, f"fewer than {FEW} pictures in {split.split}", few, len(split.few))


def _list(console: Console, title: str, lines: Iterable[str], number: int) -> None:
    if not number:
        return
    _say(console, f"{title} ({number}):")
    for place, line in enumerate(lines):
        if place == _LINES:
            _say(console, f"  and {number - _LINES} more: --json or --report")
            break
        _say(console, f"  {line}")


def _in_words(group: Group) -> str:
    how = "exact" if group.kind == "exact" else f"near {group.similarity:.2f}"
    if group.contradictory:
        return f"{how}: " + " = ".join(f"{p.key} ({p.label})" for p in group.pictures)
    return f"{how}: " + " = ".join(p.key for p in group.pictures) + f" ({group.pictures[0].label})"

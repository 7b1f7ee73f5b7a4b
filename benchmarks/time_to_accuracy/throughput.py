"""Training pictures per second, contender against contender, in rounds that take turns.

Other work on the machine slows down whoever runs just then; within a round all meet about the same
of it, and the ratio of each round is what counts.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

from benchmarks.time_to_accuracy.contenders import Contender, ContenderError
from benchmarks.time_to_accuracy.machine import load, machine, versions
from benchmarks.time_to_accuracy.marks import Mark
from benchmarks.time_to_accuracy.record import shown
from benchmarks.time_to_accuracy.watch import Limits, watch
from carspotter.errors import UsageError
from carspotter.files import write_text

Clock: TypeAlias = Literal["wall", "cpu"]


@dataclass(frozen=True)
class Rate:
    """One contender's rate in one round.

    Attributes:
        round: from 1.
        size: side of the pictures.
        contender: its name.
        pictures_per_second: of each epoch after the first, which warms up.
        per_cpu_second: pictures per second of processor time, likewise; all that the process and
            its workers did between two epochs' ends counts, testing left out.
        load: the machine's load average afterwards.
    """

    round: int
    size: int
    contender: str
    pictures_per_second: tuple[float, ...]
    per_cpu_second: tuple[float, ...]
    load: tuple[float, ...]

    def value(self, clock: Clock) -> float:
        """The median of its epochs, by wall or processor time."""
        is_wall = clock == "wall"
        return statistics.median(self.pictures_per_second if is_wall else self.per_cpu_second)


@dataclass(frozen=True)
class Ratio:
    """How many times as many pictures per second the first contender takes as another.

    Attributes:
        size: side of the pictures.
        contender: the other one.
        median: over the rounds.
        low: the least of a round.
        high: the greatest of a round.
        rounds: how many there were.
    """

    size: int
    contender: str
    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        contenders: by name and size; the first name is the one that the others are compared with.
        pictures: that each takes in an epoch, by name.
        rounds: how often each is run.
        places: what commands show in the place of a folder's path.
        about: batch size, pictures, epochs: what makes two measurements one.
    """

    contenders: Mapping[tuple[str, int], Contender]
    pictures: Mapping[str, int]
    rounds: int
    places: Mapping[str, str]
    about: Mapping[str, object]


def measure_rates(plan: Plan, work: Path, say: Callable[[str], None]) -> Path:
    """Run what `work/throughput.json` lacks, and put it there; each run is kept at once.

    Raises:
        ContenderError: a process failed, did one epoch only, or epochs too short to be timed.
        UsageError: the file is of another plan.
    """
    file = work / "throughput.json"
    folder = work / "runs" / "throughput"
    commands = {
        f"{name}, {size} px": list(shown(contender.command(folder.resolve()), plan.places))
        for (name, size), contender in plan.contenders.items()
    }
    about = {**plan.about, "commands": commands}
    rates = _known_rates(file, about)
    for number in range(1, plan.rounds + 1):
        for name, size in _turn(list(plan.contenders), number):
            if any((r.round, r.contender, r.size) == (number, name, size) for r in rates):
                continue
            contender = plan.contenders[name, size]
            marks = watch(contender, folder, Limits(target=2.0, cap_minutes=60)).marks
            found = contender.rates(folder)[1:]
            by_cpu = _per_cpu_second(marks, plan.pictures[name], f"{name} at {size} px")
            rates.append(Rate(number, size, name, tuple(found), by_cpu, tuple(load())))
            say(f"round {number}: {name} at {size} px: {rates[-1].value('wall'):.1f} pictures/s")
            document = {
                "about": about,
                "machine": machine(),
                "versions": versions(),
                "first": next(iter(plan.contenders))[0],
                "rates": [asdict(rate) for rate in rates],
            }
            write_text(file, json.dumps(document, indent=1) + "\n")
    return file


def ratios(rates: Sequence[Rate], first: str, clock: Clock) -> list[Ratio]:
    """The first contender against each other one, round by round, at each size."""
    by_place = {(r.contender, r.size, r.round): r.value(clock) for r in rates}
    others = dict.fromkeys((r.size, r.contender) for r in rates if r.contender != first)
    found = []
    for size, other in others:
        each = [
            by_place[first, size, number] / value
            for (name, at, number), value in by_place.items()
            if (name, at) == (other, size) and (first, size, number) in by_place
        ]
        if each:
            median = statistics.median(each)
            found.append(Ratio(size, other, median, min(each), max(each), len(each)))
    return found


def read_rates(document: Mapping[str, Any]) -> list[Rate]:
    """The rates of a `throughput.json`."""
    return [
        Rate(
            **{
                **rate,
                "pictures_per_second": tuple(rate["pictures_per_second"]),
                "per_cpu_second": tuple(rate["per_cpu_second"]),
                "load": tuple(rate["load"]),
            }
        )
        for rate in document["rates"]
    ]


def _per_cpu_second(marks: Sequence[Mark], pictures: int, what: str) -> tuple[float, ...]:
    spent = [after.cpu_seconds - before.cpu_seconds for before, after in pairwise(marks)]
    if not all(seconds > 0 for seconds in spent):
        raise ContenderError(
            f"{what} did two epochs between two looks at it; give it more pictures (--per-class)"
        )
    return tuple(pictures / seconds for seconds in spent)


def _known_rates(file: Path, about: Mapping[str, object]) -> list[Rate]:
    if not file.is_file():
        return []
    document = json.loads(file.read_text(encoding="utf-8"))
    if document["about"] != about:
        raise UsageError(f"{file} was measured in another way; remove it, or use another folder")
    return read_rates(document)


def _turn(contenders: Sequence[tuple[str, int]], number: int) -> list[tuple[str, int]]:
    """Size by size; who begins changes from round to round."""
    turned = []
    for size in dict.fromkeys(size for _, size in contenders):
        names = [name for name, at in contenders if at == size]
        start = (number - 1) % len(names)
        turned += [(name, size) for name in names[start:] + names[:start]]
    return turned

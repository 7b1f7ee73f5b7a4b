"""Runs a contender once and keeps its outcome; what was measured is not measured again."""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.time_to_accuracy.contenders import Contender
from benchmarks.time_to_accuracy.machine import load, machine, versions
from benchmarks.time_to_accuracy.marks import Outcome
from benchmarks.time_to_accuracy.watch import Limits, watch
from carspotter.errors import UsageError
from carspotter.files import write_text


def outcome_file(work: Path, name: str) -> Path:
    """Where a contender's outcome is kept."""
    return work / "results" / f"{name}.json"


def outcomes(work: Path) -> list[Outcome]:
    """All that were kept, by name."""
    files = sorted((work / "results").glob("*.json"))
    return [Outcome.from_dict(json.loads(file.read_text(encoding="utf-8"))) for file in files]


def measure(
    name: str,
    contender: Contender,
    work: Path,
    limits: Limits,
    *,
    about: Mapping[str, object],
    places: Mapping[str, str],
    say: Callable[[str], None],
) -> Outcome:
    """Run a contender, unless its outcome is there; then test what it does not test itself.

    Args:
        name: of the outcome.
        contender: what to run, in `work/runs/NAME`.
        work: the work folder.
        limits: the target and the cap.
        about: what the outcome says beside machine, load and versions; JSON values.
        places: what the command shows in the place of a folder's path.
        say: called with messages.

    Raises:
        ContenderError: its process failed.
        UsageError: there is an outcome of another command, recipe, target or cap.
    """
    file, folder = outcome_file(work, name), work / "runs" / name
    command = shown(contender.command(folder.resolve()), places)
    if file.is_file():
        outcome = Outcome.from_dict(json.loads(file.read_text(encoding="utf-8")))
        _need_same(outcome, command, limits, about, file)
    else:
        began = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        before = load()
        say(f"{name}: {' '.join(command)}")
        found = watch(contender, folder, limits)
        outcome = Outcome(
            name=name,
            rule=contender.rule,
            command=command,
            target=limits.target,
            cap_minutes=limits.cap_minutes,
            ending=found.ending,
            end=found.end,
            marks=found.marks,
            about={
                **about,
                "began": began,
                "load_before": before,
                "load_after": load(),
                "niceness": os.nice(0),
                "machine": machine(),
                "versions": {**versions(), **_extra_versions(contender)},
            },
        )
        _keep(outcome, file)
    return _scored(outcome, contender, folder, file, say)


def shown(command: Sequence[str], places: Mapping[str, str]) -> tuple[str, ...]:
    """A command without this machine's folders; longer paths are replaced first."""
    words = []
    for word in command:
        text = "python" if word == sys.executable else word
        for path in sorted(places, key=len, reverse=True):
            text = text.replace(path, places[path])
        words.append(text)
    return tuple(words)


def _need_same(
    outcome: Outcome,
    command: tuple[str, ...],
    limits: Limits,
    about: Mapping[str, object],
    file: Path,
) -> None:
    more_time = outcome.ending == "cap" and limits.cap_minutes > outcome.cap_minutes
    differing = {
        "command": outcome.command != command,
        "target": outcome.target != limits.target,
        "cap": more_time,
        **{key: outcome.about.get(key) != value for key, value in about.items()},
    }
    if any(differing.values()):
        raise UsageError(
            f"{file} is there already; it differs in: "
            f"{', '.join(key for key, differs in differing.items() if differs)}; "
            "give this run another name (--as), or remove the file"
        )


def _scored(
    outcome: Outcome,
    contender: Contender,
    folder: Path,
    file: Path,
    say: Callable[[str], None],
) -> Outcome:
    """The outcome with the accuracies that are measured after the run; kept after each."""
    if contender.rule == "first epoch":
        return outcome
    if outcome.end.accuracy is None:
        accuracy = contender.score(folder, None)
        outcome = replace(outcome, end=replace(outcome.end, accuracy=accuracy))
        _keep(outcome, file)
    for place, mark in enumerate(outcome.marks):
        if mark.accuracy is None:
            say(f"{outcome.name}: testing what it had after epoch {mark.epoch}")
            found = replace(mark, accuracy=contender.score(folder, mark.epoch))
            marks = (*outcome.marks[:place], found, *outcome.marks[place + 1 :])
            outcome = replace(outcome, marks=marks)
            _keep(outcome, file)
    return outcome


def _extra_versions(contender: Contender) -> dict[str, str]:
    version = getattr(contender, "version", None)
    return {} if version is None else {"timm train.py": version()}


def _keep(outcome: Outcome, file: Path) -> None:
    write_text(file, json.dumps(outcome.to_dict(), indent=1) + "\n")

"""All that was measured in one report: JSON, Markdown and a picture."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.time_to_accuracy.marks import Outcome
from benchmarks.time_to_accuracy.throughput import Clock, Ratio, ratios, read_rates
from carspotter.errors import DataError
from carspotter.files import replacing, write_text

FORMAT_VERSION = 1

_CLOCKS: tuple[Clock, ...] = ("wall", "cpu")

RULES = """\
**What is timed.** Wall time from the start of a contender's process: imports, decoding, training,
its own validation, checkpoints. Testing on the test split is left out for every contender.

**When the clock stops.** carspotter looks at the test split once its run is over: its time is that
of the whole run, whose length the recipe fixes beforehand, and the accuracy is that of the weights
it hands over, which its validation part chose. A part of the training pictures is set aside for
that. The others train on all training pictures, and their clock stops at the first epoch after
which the test split says that they are there. That favours them: choosing an epoch on the test
split is what carspotter never does.

**What is equal.** The pictures, the backbone, its ImageNet weights, the machine. timm and the plain
loop read class folders with the same bytes; writing these is not timed.
"""


def write_report(outcomes: Sequence[Outcome], throughput: Path | None, out: Path) -> None:
    """Write report.json, report.md and, where accuracies were measured, accuracy.png.

    Args:
        outcomes: of the contenders.
        throughput: a `throughput.json`; None: the report is silent on it.
        out: the folder to write.

    Raises:
        DataError: there is nothing to report, or outcomes of different targets.
    """
    rates = json.loads(throughput.read_text(encoding="utf-8")) if throughput else None
    if not outcomes and rates is None:
        raise DataError("nothing was measured yet: `run` or `throughput` comes first")
    if len({outcome.target for outcome in outcomes}) > 1:
        raise DataError("the outcomes are of different targets; report them from folders apart")
    # Whole runs first: they are what the others are compared with.
    ordered = sorted(outcomes, key=lambda o: (o.rule != "whole run", o.name))
    has_curves = any(mark.accuracy is not None for o in ordered for mark in o.marks)
    document = {
        "format_version": FORMAT_VERSION,
        "outcomes": [{**o.to_dict(), "verdict": o.verdict()} for o in ordered],
        "throughput": rates,
    }
    if has_curves:
        draw(ordered, out / "accuracy.png")
    write_text(out / "report.md", markdown(ordered, rates, has_curves=has_curves))
    write_text(out / "report.json", json.dumps(document, indent=1) + "\n")


def markdown(
    outcomes: Sequence[Outcome], rates: Mapping[str, Any] | None, *, has_curves: bool
) -> str:
    """The report as Markdown."""
    parts = []
    if outcomes:
        parts += [f"# Time to {100 * outcomes[0].target:.2f} % top-1 on the test split", ""]
        parts += [_time_table(outcomes), RULES]
        if has_curves:
            parts += ["![test accuracy against minutes](accuracy.png)", ""]
    if rates is not None:
        parts += ["# Training throughput", "", *_throughput_section(rates)]
    parts += ["# How it was measured", ""]
    parts += [_conditions(outcome) for outcome in outcomes]
    if rates is not None:
        parts += [_commands("throughput", rates["about"]["commands"]), _machine_line(rates)]
    return "\n".join(parts).rstrip() + "\n"


def _time_table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| contender | minutes | test top-1 then | epochs | CPU minutes | against the first "
        "| testing, left out |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    first = outcomes[0].reached
    for outcome in outcomes:
        at = outcome.reached
        if at is None:
            best = outcome.best_accuracy
            figure = "-" if best is None else f"best {100 * best:.2f} %"
            cells = [f"not reached in {outcome.end.seconds / 60:.1f}", figure]
            at, against = outcome.end, "-"
            if first is not None and first.seconds:
                against = f"> {at.seconds / first.seconds:.1f} times"
        else:
            cells = [f"{at.seconds / 60:.1f}", f"{100 * (at.accuracy or 0.0):.2f} %"]
            against = f"{at.seconds / first.seconds:.1f} times" if first is not None else "-"
        cells += [str(at.epoch), f"{at.cpu_seconds / 60:.1f}", against]
        cells.append(f"{at.testing_seconds / 60:.1f}")
        lines.append(f"| {outcome.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _throughput_section(document: Mapping[str, Any]) -> list[str]:
    rates = read_rates(document)
    first = document["first"]
    about = document["about"]
    lines = [
        f"Pictures per second, batch {about['batch_size']}, on a sample of {about['pictures']} "
        "training pictures, of which carspotter sets some aside. The whole backbone is trained, "
        "save by `as the recipe`, which freezes what the recipe freezes. The first epoch of a run "
        "is left out; the contenders take turns, and ratios are taken round by round. By wall "
        "time, a rate is the program's own, of training alone. By processor time it is seen from "
        "outside, of the process and its workers, carspotter's validation included: slower than "
        "it is, but steady where other work slows down the machine.",
        "",
        f"| pixels | contender | pictures/s (rounds) | {first} against it | pictures per processor "
        f"second (rounds) | {first} against it |",
        "| --: | --- | --: | --: | --: | --: |",
    ]
    for size, name in dict.fromkeys((rate.size, rate.contender) for rate in rates):
        cells = []
        for clock in _CLOCKS:
            values = [r.value(clock) for r in rates if (r.size, r.contender) == (size, name)]
            middle = statistics.median(values)
            cells.append(f"{middle:.1f} ({min(values):.1f} to {max(values):.1f})")
            of_clock = {(r.size, r.contender): r for r in ratios(rates, first, clock)}
            cells.append(_ratio(of_clock.get((size, name))))
        lines.append(f"| {size} | {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio.median:.2f} times ({ratio.low:.2f} to {ratio.high:.2f})"


def _conditions(outcome: Outcome) -> str:
    about = outcome.about
    text = _commands(outcome.name, {outcome.name: outcome.command})
    if not about:
        return text
    text += (
        f"Began {about['began']}, seed {about['seed']}, ended: {_ENDINGS[outcome.ending]}. "
        f"Load average {_numbers(about['load_before'])} before, {_numbers(about['load_after'])} "
        f"after; niceness {about['niceness']}.\n\n"
    )
    return text + _machine_line(about)


_ENDINGS = {
    "finished": "by itself",
    "target": "stopped, the target reached",
    "cap": "stopped at the cap",
}


def _commands(title: str, commands: Mapping[str, Sequence[str]]) -> str:
    lines = [f"**{title}**", "", "```"]
    for name, command in commands.items():
        lines += [f"# {name}"] if len(commands) > 1 else []
        lines.append(shlex.join(command))
    return "\n".join([*lines, "```", "", ""])


def _machine_line(about: Mapping[str, Any]) -> str:
    on = about["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    bf16 = "computes in bf16" if on["bf16"] else "no bf16"
    return (
        f"{on['processor']}, {on['cores']} cores ({bf16}), {on['system']}, trained on "
        f"{on['device']}. {versions}.\n"
    )


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:.1f}" for value in values)


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Test accuracy against minutes, with the target; a PNG file."""
    from matplotlib.figure import Figure  # slow to import, and only the report needs it

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for outcome in outcomes:
        points = [(m.seconds / 60, 100 * m.accuracy) for m in outcome.marks if m.accuracy]
        if outcome.rule == "whole run" and outcome.end.accuracy:
            points.append((outcome.end.seconds / 60, 100 * outcome.end.accuracy))
        if not points:
            continue
        (line,) = axes.plot(*zip(*points, strict=True), marker=".", label=outcome.name)
        if (at := outcome.reached) is not None and at.accuracy is not None:
            axes.plot(at.seconds / 60, 100 * at.accuracy, "o", color=line.get_color())
    if outcomes:
        target = 100 * outcomes[0].target
        axes.axhline(target, color="grey", linestyle="--", label=f"{target:.2f} %")
    axes.set_xlabel("minutes since the start, testing left out")
    axes.set_ylabel("top-1 on the test split, %")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)

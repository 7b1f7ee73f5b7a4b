"""The figures of a study's report, each a PNG file in memory.

Drawn on figures of their own: Optuna's own plots change matplotlib's style for the whole process.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from carspotter.tune.space import Distribution
from carspotter.tune.trials import Outcome, best_trial, curve, outcome, row, value

_COLOURS = {
    Outcome.COMPLETE: "tab:blue",
    Outcome.PRUNED: "tab:orange",
    Outcome.FAILED: "tab:red",
}
_BEST = "tab:green"
_ACCURACY = "top-1 on validation, %"


def history(trials: Sequence[FrozenTrial]) -> bytes:
    """Accuracy of each trial, in order, and the best so far."""
    figure, axes = _one()
    _dots(axes, [(t.number, t) for t in trials])
    best: list[tuple[int, float]] = []
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            so_far = max(best[-1][1] if best else 0.0, 100 * value(trial))
            best.append((trial.number, so_far))
    axes.step(*_columns(best), where="post", color=_BEST, label="best so far")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return _png(figure)


def learning_curves(trials: Sequence[FrozenTrial]) -> bytes:
    """Accuracy of each trial after each of its epochs."""
    figure, axes = _one()
    best = best_trial(trials)
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        colour = _BEST if is_best else _COLOURS.get(outcome(trial), "tab:gray")
        axes.plot(
            *_columns([(epoch, 100 * reached) for epoch, reached in curve(trial)]),
            color=colour,
            alpha=1.0 if is_best else 0.5,
            linewidth=2.5 if is_best else 1.0,
            marker=".",
            zorder=3 if is_best else 2,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def importance_bars(importances: Mapping[str, float]) -> bytes:
    """How much of the differences in accuracy goes back to each key."""
    figure, axes = _one(height=0.9 + 0.35 * len(importances))
    keys = list(importances)[::-1]
    axes.barh(keys, [100 * importances[key] for key in keys])
    axes.set_ylabel("")
    axes.set_xlabel("share of importance (PED-ANOVA), %")
    return _png(figure)


def slices(trials: Sequence[FrozenTrial], over: Mapping[str, Distribution]) -> bytes:
    """Accuracy against the value of each key."""
    columns = min(3, len(over))
    rows = math.ceil(len(over) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (key, values) in zip(grid, over.items(), strict=False):
        if isinstance(values, CategoricalDistribution):
            places = {choice: place for place, choice in enumerate(values.choices)}
            axes.set_xticks(list(places.values()), [str(c) for c in places], rotation=20)
            axes.set_xlim(-0.5, len(places) - 0.5)
            _dots(axes, [(places[t.params[key]], t) for t in trials if key in t.params])
        else:
            if values.log:
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
            _dots(axes, [(t.params[key], t) for t in trials if key in t.params])
        axes.set_xlabel(key)
        axes.grid(alpha=0.3)
    for axes in grid[len(over) :]:
        axes.remove()
    return _png(figure)


def _one(height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel(_ACCURACY)
    axes.grid(alpha=0.3)
    return figure, axes


def _dots(axes: Axes, points: Sequence[tuple[float, FrozenTrial]]) -> None:
    """A dot for each trial that reached an accuracy, coloured by what came of it."""
    for kind, colour in _COLOURS.items():
        found = [(x, row(t, ())["val_accuracy"]) for x, t in points if outcome(t) is kind]
        shown = [(x, 100 * reached) for x, reached in found if reached is not None]
        if shown:
            axes.scatter(*_columns(shown), color=colour, s=24, label=str(kind), zorder=3)
    axes.set_ylabel(_ACCURACY)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()

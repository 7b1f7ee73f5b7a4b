"""The report of a study: one HTML file, figures inside, that opens without a network."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from carspotter.files import write_text
from carspotter.tune import figures
from carspotter.tune.study import Plan
from carspotter.tune.trials import Outcome, best_trial, count, row, shown, value

_ENOUGH = 5
"""Complete trials below which importances are noise."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem;
  color: #222; background: #fff }
img { max-width: 100%; height: auto }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right;
  white-space: nowrap }
th { position: sticky; top: 0; background: #fff }
td:last-child, th:last-child { text-align: left; white-space: normal }
tr.best { background: #e4f4e4 }
tr.failed, tr.lost { color: #a33 }
"""


def write_report(file: Path, study: Study, plan: Plan, trials: Sequence[FrozenTrial]) -> None:
    """Draw the report anew, whole or not at all."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    name = escape(study.study_name)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>Study {name}</title>',
        '<meta name="viewport" content="width=device-width">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Study {name}</h1>",
        *_summary(plan, ended),
        *_figures(study, plan, ended),
        "<h2>Search space</h2>",
        *_table([_space_row(plan, key) for key in plan.space.distributions]),
        "<h2>Trials</h2>",
        *_table(*_trial_rows(plan, ended)),
        "</body></html>",
    ]
    write_text(file, "\n".join(parts) + "\n")


def _summary(plan: Plan, trials: Sequence[FrozenTrial]) -> Iterable[str]:
    base, best = plan.space.base, best_trial(trials)
    counts = ", ".join(
        f"{number} {kind}"
        for kind in (Outcome.COMPLETE, Outcome.PRUNED, Outcome.FAILED, Outcome.LOST)
        if (number := count(trials, kind))
    )
    yield f"<p>Recipe <b>{escape(base.name)}</b>; trials: {counts or 'none yet'}.</p>"
    if best is not None:
        drawn = ", ".join(f"{key} = {shown(x)}" for key, x in best.params.items())
        yield (
            f"<p>Best: trial {best.number}, <b>{100 * value(best):.2f} %</b> top-1 on the "
            f"validation part. {escape(drawn)}.</p>"
        )
    yield (
        "<p>Trials are compared on a validation part of the training split; the test split is "
        "never opened. The best of many is a little lucky: expect less of it elsewhere.</p>"
    )


def _figures(study: Study, plan: Plan, trials: Sequence[FrozenTrial]) -> Iterable[str]:
    yield from _image("History", figures.history(trials))
    yield from _image("Learning curves", figures.learning_curves(trials))
    yield from _image("Slices", figures.slices(trials, plan.space.distributions))
    yield from _importances(study, count(trials, Outcome.COMPLETE))


def _importances(study: Study, done: int) -> Iterable[str]:
    if done < _ENOUGH:
        yield f"<h2>Importances</h2><p>Not before {_ENOUGH} complete trials; there are {done}.</p>"
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except UserWarning as said:  # trials that are too much alike: no figure is better than a guess
        yield f"<h2>Importances</h2><p>{escape(str(said))}</p>"
        return
    yield from _image("Importances", figures.importance_bars(found))


def _image(title: str, png: bytes) -> Iterable[str]:
    yield f"<h2>{title}</h2>"
    data = base64.b64encode(png).decode("ascii")
    yield f'<img alt="{title}" src="data:image/png;base64,{data}">'


def _space_row(plan: Plan, key: str) -> dict[str, Any]:
    own = getattr(plan.space.base, key)
    return {"key": key, "recipe": own, "searched": plan.space.describe(key)}


def _trial_rows(
    plan: Plan, trials: Sequence[FrozenTrial]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows, the best first, and the style of each."""
    keys = list(plan.space.distributions)
    order = list(Outcome)
    rows = [row(trial, keys) for trial in trials]
    rows.sort(key=lambda x: (order.index(x["outcome"]), -(x["val_accuracy"] or 0.0), x["trial"]))
    for one in rows:
        reached = one["val_accuracy"]
        one["val_accuracy"] = "" if reached is None else f"{100 * reached:.2f} %"
    best = best_trial(trials)
    number = None if best is None else best.number
    return rows, ["best" if one["trial"] == number else one["outcome"] for one in rows]


def _table(rows: Sequence[dict[str, Any]], styles: Sequence[str] = ()) -> Iterable[str]:
    if not rows:
        return
    yield '<div class="wide"><table><tr>'
    yield from (f"<th>{escape(key.replace('_', ' '))}</th>" for key in rows[0])
    yield "</tr>"
    for place, one in enumerate(rows):
        cells = "".join(f"<td>{escape(shown(cell))}</td>" for cell in one.values())
        yield f'<tr class="{styles[place] if styles else ""}">{cells}</tr>'
    yield "</table></div>"

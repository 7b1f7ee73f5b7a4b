"""What a study leaves in its folder: the best recipe, the table of trials, the report."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path

from optuna import Study
from optuna.trial import FrozenTrial

from carspotter.files import write_text
from carspotter.tune.folder import StudyFolder
from carspotter.tune.report import write_report
from carspotter.tune.study import Plan
from carspotter.tune.trials import best_trial, row, value

_REPORT_SECONDS = 60
"""A report's figures take seconds to draw: while trials go on, they are drawn no more often."""


def write_results(folder: StudyFolder, study: Study, plan: Plan, *, at_end: bool) -> None:
    """Bring the folder's files up to what the study knows, and spare the disk.

    Trials are read below the lock: a slower worker never puts an older state in place of a newer.
    """
    with folder.lock():
        trials = study.get_trials(deepcopy=False)
        best = best_trial(trials)
        if best is not None:
            write_text(folder.best, _best_text(study.study_name, best, plan))
        write_text(folder.table, _table_text(trials, list(plan.space.distributions)))
        if at_end or _age(folder.report) > _REPORT_SECONDS:
            write_report(folder.report, study, plan, trials)
        _spare_the_disk(folder, trials, best)


def _best_text(name: str, best: FrozenTrial, plan: Plan) -> str:
    assert best.datetime_complete is not None
    header = (
        f"# Found by carspotter tune: study {json.dumps(name)}, trial {best.number}, "
        f"{best.datetime_complete:%Y-%m-%d}.\n"
        f"# {100 * value(best):.2f} % top-1 on the validation part.\n"
        "#\n"
        "#   carspotter train best.toml --data DATA --out RUN\n\n"
    )
    return header + plan.space.recipe(best.params).to_toml()


def _table_text(trials: Sequence[FrozenTrial], keys: Sequence[str]) -> str:
    rows = [row(t, keys) for t in trials if t.state.is_finished()]
    fields = list(rows[0]) if rows else ["trial", "outcome", "val_accuracy"]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _age(file: Path) -> float:
    """Seconds since the file was written; endless where there is none."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return float("inf")


def _spare_the_disk(
    folder: StudyFolder, trials: Sequence[FrozenTrial], best: FrozenTrial | None
) -> None:
    """Delete the checkpoints of trials that are over, save the best and what is yet to go on."""
    needed = {best.number} if best is not None else set()
    for trial in trials:
        if not trial.state.is_finished():
            needed |= {trial.number, *trial.system_attrs.get("retry_history", ())}
    for trial in trials:
        if trial.number not in needed:
            for file in folder.run(trial.number).path.glob("*.ckpt"):
                file.unlink(missing_ok=True)

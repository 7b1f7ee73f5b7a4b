"""The folder of an evaluation: metrics.json, predictions.parquet and report.html."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carspotter.evaluate.recorded import Recorded, write_recorded
from carspotter.files import write_text
from carspotter.report.document import about
from carspotter.report.evaluation import Evaluation
from carspotter.report.page import page

if TYPE_CHECKING:
    from carspotter.photo import Pixels


def write_report(
    folder: Path,
    found: Evaluation,
    document: Mapping[str, Any],
    heat: Callable[[Pixels, int], Pixels] | None = None,
) -> None:
    """Write the three files, each whole or not at all.

    Args:
        folder: made where it is not there.
        found: the evaluation.
        document: the content of metrics.json.
        heat: as for `page.page`.
    """
    pictures = found.found.pictures
    recorded = Recorded(
        class_names=found.subject.class_names,
        pictures=tuple(picture.key for picture in pictures),
        split=found.protocol.split,
        labels=tuple(picture.label for picture in pictures),
        probabilities=found.probabilities,
        about=about(found),
    )
    write_recorded(folder / "predictions.parquet", recorded, found.found.logits, found.answers)
    write_text(folder / "report.html", page(found, document, heat))
    write_text(folder / "metrics.json", json.dumps(document, indent=1) + "\n")

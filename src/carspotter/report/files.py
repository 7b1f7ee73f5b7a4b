"""The folder of an evaluation: metrics.json, predictions.parquet and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carspotter.evaluate.recorded import Recorded, write_recorded
from carspotter.files import write_text
from carspotter.report.document import about
from carspotter.report.evaluation import Evaluation
from carspotter.report.page import page


def write_report(
    folder: Path,
    found: Evaluation,
    document: Mapping[str, Any],
) -> None:
    """Write the three files, each whole or not at all.

    Args:
        folder: made where it is not there.
        found: the evaluation.
        document: the content of metrics.json.
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
    write_text(folder / "report.html", page(found, document))
    write_text(folder / "metrics.json", json.dumps(document, indent=1) + "\n")

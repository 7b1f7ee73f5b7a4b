"""report.html: an evaluation on one page that opens without a network."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from carspotter.pages import render
from carspotter.report import plots
from carspotter.report.evaluation import Evaluation
from carspotter.report.gallery import Gallery


def page(
    found: Evaluation,
    document: Mapping[str, Any],
) -> str:
    """The report as HTML.

    Args:
        found: the evaluation.
        document: the content of its metrics.json.
    """
    gallery = Gallery(found)
    drawings = {
        "reliability": plots.reliability_diagram(document["calibration"]),
        "coverage": plots.coverage_curve(found),
        "confusion": plots.confusion(found),
    }
    if found.robustness is not None:
        drawings["robustness"] = plots.robustness(found.robustness)
    return render(
        "report.html.j2",
        title=f"{document['model']['name']} on {document['data']['split']}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        document=document,
        script=plots.script(),
        drawings={name: plots.to_div(drawing, name) for name, drawing in drawings.items()},
        worst=gallery.worst(),
        pairs=gallery.pairs(),
        suspects=gallery.suspects(),
    )

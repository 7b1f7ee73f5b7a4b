"""The drawings of a report, by Plotly: they can be zoomed, and say their figures when touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from carspotter.evaluate.confusion import by_make, confusion_matrix
from carspotter.evaluate.reliability import risk_coverage, thinned
from carspotter.names import split_name
from carspotter.report.evaluation import Evaluation, Robustness

Drawing: TypeAlias = go.Figure

BLUE, ORANGE, GREY = "#2563a8", "#c2560a", "#7a7f87"
_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
    "font": {"family": "system-ui, sans-serif", "size": 13},
    "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "dragmode": False,
}
_APART = 5
"""Rows of the confusion matrix between two names at its edge."""

_PERCENT = {"tickformat": ".0%"}


def script() -> str:
    """The library that draws them, to be put into the page once."""
    return str(get_plotlyjs())


def to_div(drawing: Drawing, name: str) -> str:
    """A drawing as a piece of HTML; the page must hold `script` before it."""
    return str(
        drawing.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config={"responsive": True, "displaylogo": False, "displayModeBar": False},
        )
    )


def _figure(height: int | None, **layout: Any) -> Drawing:
    return go.Figure(layout={**_LAYOUT, "height": height, **layout})


def reliability_diagram(calibration: Mapping[str, Any]) -> Drawing:
    """Accuracy over confidence, and how many pictures there are at each."""
    bins = [one for one in calibration["bins"] if one["pictures"]]
    width = [one["high"] - one["low"] for one in bins]
    middle = [(one["high"] + one["low"]) / 2 for one in bins]
    total = sum(one["pictures"] for one in bins)
    drawing = _figure(
        340,
        xaxis={"title": "confidence", "range": [0, 1], **_PERCENT},
        yaxis={"title": "right", "range": [0, 1.02], **_PERCENT},
        barmode="overlay",
    )
    drawing.add_bar(
        x=middle,
        y=[one["accuracy"] for one in bins],
        width=width,
        name="right",
        marker={"color": BLUE, "opacity": 0.75},
        customdata=[one["pictures"] for one in bins],
        hovertemplate="right %{y:.1%} of %{customdata} pictures<extra></extra>",
    )
    drawing.add_bar(
        x=middle,
        y=[one["pictures"] / total for one in bins],
        width=[w * 0.4 for w in width],
        name="share of the pictures",
        marker={"color": GREY, "opacity": 0.7},
        hovertemplate="%{y:.1%} of the pictures<extra></extra>",
    )
    drawing.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": ORANGE, "dash": "dash"}
    )
    return drawing


def coverage_curve(found: Evaluation) -> Drawing:
    """Wrong answers over answers given, as ever less sure pictures are answered."""
    curve = thinned(risk_coverage(found.probabilities.max(axis=1), found.right))
    drawing = _figure(
        340,
        xaxis={"title": "pictures answered", "range": [0, 1], **_PERCENT},
        yaxis={"title": "wrong among them", "rangemode": "tozero", "tickformat": ".1%"},
    )
    drawing.add_scatter(
        x=curve.coverage,
        y=curve.risk,
        mode="lines",
        name="most probable class",
        line={"color": BLUE},
        hovertemplate="%{x:.1%} answered, %{y:.2%} wrong<extra></extra>",
    )
    if found.answers is not None and found.answers_right is not None:
        given = np.array([answer.level != "unknown" for answer in found.answers])
        if given.any():
            drawing.add_scatter(
                x=[given.mean()],
                y=[1 - found.answers_right[given].mean()],
                mode="markers",
                name="answers, at the level given",
                marker={"color": ORANGE, "size": 11},
                hovertemplate="%{x:.1%} answered, %{y:.2%} wrong<extra></extra>",
            )
    return drawing


def confusion(found: Evaluation) -> Drawing:
    """Every class against every class, in the order of the makes; what is never taken is blank."""
    names = found.subject.class_names
    order = by_make(names)
    matrix = confusion_matrix(found.guesses, found.found.targets, len(names))
    matrix = matrix[np.ix_(order, order)]
    labels = [names[k] for k in order]
    ticks, makes = _first_of_each([split_name(label).make or label for label in labels])
    drawing = _figure(
        None,  # as high as it is wide: the page says how wide
        dragmode="zoom",
        margin={"l": 76, "r": 8, "t": 8, "b": 84},
        xaxis={
            "title": "taken for",
            "tickvals": ticks,
            "ticktext": makes,
            "tickangle": 90,
            "tickfont": {"size": 10},
            "showgrid": False,
            "zeroline": False,
            "constrain": "domain",
        },
        yaxis={
            "title": "is",
            "tickvals": ticks,
            "ticktext": makes,
            "tickfont": {"size": 10},
            "showgrid": False,
            "zeroline": False,
            "autorange": "reversed",
            "scaleanchor": "x",
            "constrain": "domain",
        },
    )
    for part, colours in (
        (np.diag(np.diag(matrix)), [[0, "#c9d7e6"], [1, BLUE]]),
        (matrix - np.diag(np.diag(matrix)), [[0, "#f0a868"], [1, "#7a1408"]]),
    ):
        drawing.add_heatmap(
            z=_blank_where_zero(part), colorscale=colours, showscale=False, hoverinfo="skip"
        )
    rows, columns = np.nonzero(matrix)
    # Only what was taken for something gets a text: 38,416 cells of text would be megabytes.
    drawing.add_scatter(
        x=columns,
        y=rows,
        mode="markers",
        marker={"size": 7, "opacity": 0},
        showlegend=False,
        text=[
            f"{matrix[r, c]} pictures of {labels[r]}<br>taken for {labels[c]}"
            if r != c
            else f"{matrix[r, c]} pictures of {labels[r]}<br>named rightly"
            for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    return drawing


def _blank_where_zero(matrix: Any) -> list[list[float | None]]:
    """The logarithm, so that a single mistake is seen beside forty right answers."""
    return [
        [round(float(np.log1p(value)), 2) if value else None for value in row]
        for row in matrix.tolist()
    ]


def _first_of_each(makes: Sequence[str]) -> tuple[list[int], list[str]]:
    """Where each make begins; of names that would overlap, the first is kept."""
    places: list[int] = []
    for k, make in enumerate(makes):
        begins = k == 0 or make != makes[k - 1]
        if begins and (not places or k - places[-1] >= _APART):
            places.append(k)
    return places, [makes[k] for k in places]


def robustness(found: Robustness) -> Drawing:
    """Accuracy over the strength of each corruption."""
    drawing = _figure(
        420,
        xaxis={"title": "strength", "dtick": 1},
        yaxis={"title": "top-1", "range": [0, 1.02], **_PERCENT},
    )
    for name, values in found.top1.items():
        drawing.add_scatter(
            x=list(range(len(values) + 1)),
            y=[found.clean, *values],
            mode="lines+markers",
            name=name,
            hovertemplate=f"{name}, strength %{{x}}: %{{y:.1%}}<extra></extra>",
        )
    return drawing

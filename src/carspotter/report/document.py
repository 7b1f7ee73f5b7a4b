"""metrics.json: an evaluation as plain values."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np

from carspotter.data.index import fingerprint
from carspotter.evaluate import measure_by
from carspotter.evaluate.bootstrap import share_intervals
from carspotter.evaluate.conformal import measure_sets
from carspotter.evaluate.confusion import confusion_matrix, most_confused
from carspotter.evaluate.metrics import measure_classes
from carspotter.evaluate.reliability import reliability, risk_coverage, thinned
from carspotter.names import LEVELS, split_name
from carspotter.report.evaluation import Evaluation

FORMAT_VERSION = 2

_PAIRS = 40
"""Confused pairs that are listed."""

_VERSIONS = ("carspotter", "numpy", "onnxruntime", "pillow", "torch")


def about(found: Evaluation) -> dict[str, Any]:
    """The model and the data: what says whether two evaluations can be compared."""
    protocol = found.protocol
    return {
        "model": {**found.subject.about, "bytes": found.subject.file_size},
        "data": {
            "layout": protocol.data.layout,
            "split": protocol.split,
            "crop": protocol.taken,
            "pictures": len(found.found.pictures),
            "fingerprint": fingerprint(found.found.pictures),
        },
    }


def document(found: Evaluation) -> dict[str, Any]:
    """The content of metrics.json."""
    return {
        "format_version": FORMAT_VERSION,
        **about(found),
        "input_size": found.subject.size,
        "metrics": {
            m.level: {**m.to_dict(), "interval": found.intervals[m.level]} for m in found.metrics
        },
        "calibration": {
            "temperature": found.subject.temperature,
            **reliability(found.probabilities, found.found.targets).to_dict(),
        },
        "coverage": asdict(thinned(risk_coverage(found.probabilities.max(axis=1), found.right))),
        "answers": _answers(found),
        "sets": {
            coverage: measure_sets(found.probabilities, found.found.targets, least).to_dict()
            for coverage, least in found.subject.sets.items()
        },
        "by_body": _groups(found, "body"),
        "by_make": _groups(found, "make"),
        "by_class": _classes(found),
        "most_confused": _confused(found),
        "robustness": None if found.robustness is None else asdict(found.robustness),
        "no_cars": None if found.no_cars is None else found.no_cars.to_dict(),
        "speed": asdict(found.speed),
        "broken": found.found.broken,
        "seconds": round(found.seconds, 1),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _VERSIONS},
        },
    }


def _answers(found: Evaluation) -> dict[str, Any] | None:
    """How many pictures are answered at each level, and how many of these answers are right."""
    if found.answers is None or found.answers_right is None:
        return None
    levels = np.array([answer.level for answer in found.answers])
    right = found.answers_right
    given = levels != "unknown"
    return {
        **{
            level: {
                "share": float((levels == level).mean()),
                "right": float(right[levels == level].mean()) if (levels == level).any() else None,
            }
            for level in LEVELS
        },
        "unknown": {"share": float((~given).mean())},
        "right_of_answered": float(right[given].mean()) if given.any() else None,
        "thresholds": dict(found.subject.thresholds or {}),
    }


def _groups(found: Evaluation, part: Any) -> list[dict[str, Any]]:
    names, targets = found.subject.class_names, found.found.targets
    groups = measure_by(part, found.found.logits, targets, names)
    number = {group.name: place for place, group in enumerate(groups)}
    of_class = [getattr(split_name(name), part) or "" for name in names]
    places = np.array([number[of_class[target]] for target in targets])
    intervals = share_intervals(found.right, places, len(groups))
    return [
        {**group.to_dict(), "exact_interval": interval}
        for group, interval in zip(groups, intervals, strict=True)
    ]


def _classes(found: Evaluation) -> list[dict[str, Any]]:
    names, targets = found.subject.class_names, found.found.targets
    intervals = share_intervals(found.right, targets, len(names))
    return [
        {**one.to_dict(), "recall_interval": interval}
        for one, interval in zip(
            measure_classes(found.guesses, targets, names), intervals, strict=True
        )
    ]


def _confused(found: Evaluation) -> list[dict[str, Any]]:
    names = found.subject.class_names
    matrix = confusion_matrix(found.guesses, found.found.targets, len(names))
    return [
        {"classes": [names[k] for k in pair.classes], "mistaken": list(pair.mistaken)}
        for pair in most_confused(matrix, _PAIRS)
    ]

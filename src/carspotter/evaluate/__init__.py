"""Measuring: one path from pictures to logits, and from logits to figures."""

from carspotter.evaluate.metrics import GroupMetrics, Metrics, measure, measure_by
from carspotter.evaluate.predict import (
    PartialPredictions,
    Predictions,
    Recogniser,
    Share,
    join,
    predict,
    predict_share,
)

__all__ = [
    "GroupMetrics",
    "Metrics",
    "PartialPredictions",
    "Predictions",
    "Recogniser",
    "Share",
    "join",
    "measure",
    "measure_by",
    "predict",
    "predict_share",
]

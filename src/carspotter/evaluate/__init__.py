"""Measuring: one path from pictures to logits, and from logits to figures."""

from carspotter.evaluate.metrics import Metrics, measure
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
    "Metrics",
    "PartialPredictions",
    "Predictions",
    "Recogniser",
    "Share",
    "join",
    "measure",
    "predict",
    "predict_share",
]

"""Measuring: one path from pictures to logits, and from logits to figures."""

from carspotter.evaluate.metrics import Metrics, measure
from carspotter.evaluate.predict import Predictions, Recogniser, predict

__all__ = ["Metrics", "Predictions", "Recogniser", "measure", "predict"]

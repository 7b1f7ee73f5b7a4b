"""Evaluations: what is measured of a model, its files, its page, and the comparison of several."""

from carspotter.report.evaluation import Evaluation, Protocol, Robustness, evaluate
from carspotter.report.subject import Subject, load_subject

__all__ = ["Evaluation", "Protocol", "Robustness", "Subject", "evaluate", "load_subject"]

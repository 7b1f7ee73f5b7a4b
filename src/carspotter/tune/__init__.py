"""Tuning: an Optuna study over a recipe, shared by any number of workers."""

from carspotter.tune.space import SearchSpace, default_space, load_space
from carspotter.tune.worker import Tuned, tune

__all__ = ["SearchSpace", "Tuned", "default_space", "load_space", "tune"]

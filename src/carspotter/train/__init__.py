"""Training: from a recipe and a data set to a run folder with checkpoints."""

from carspotter.train.checkpoint import Checkpoint, load_checkpoint
from carspotter.train.loop import train
from carspotter.train.recipe import Recipe, load_recipe, shipped_recipes
from carspotter.train.run import RunFolder
from carspotter.train.soup_of_runs import soup_of_runs

__all__ = [
    "Checkpoint",
    "Recipe",
    "RunFolder",
    "load_checkpoint",
    "load_recipe",
    "shipped_recipes",
    "soup_of_runs",
    "train",
]

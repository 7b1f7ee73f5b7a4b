"""Training: recipes, the classifier, augmentation, the loop, and its run folder."""

from carspotter.train.checkpoint import Checkpoint, load_checkpoint
from carspotter.train.loop import train
from carspotter.train.recipe import Recipe, load_recipe, shipped_recipes

__all__ = ["Checkpoint", "Recipe", "load_checkpoint", "load_recipe", "shipped_recipes", "train"]

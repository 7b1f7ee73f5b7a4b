"""A run folder as training leaves it, of a network that learned nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from conftest import CLASSES

from carspotter.data import open_data_set, stratified_split
from carspotter.data.index import fingerprint
from carspotter.train import Recipe, checkpoint
from carspotter.train.model import CarClassifier

SIZE = 64

RECIPE = Recipe(
    name="tiny",
    backbone="test_efficientnet",
    weights="none",
    epochs=1,
    sizes=(SIZE,),
    eval_size=SIZE,
    lr=1e-3,
    val_fraction=0.25,
)


def classifier(seed: int = 3) -> CarClassifier:
    """A network whose answers differ from picture to picture, though it never learned."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CarClassifier(RECIPE, len(CLASSES)).train()
        # Batch norm learns the statistics of noise, so that features do not fade.
        with torch.no_grad():
            for _ in range(20):
                model(torch.randint(0, 256, (16, 3, SIZE, SIZE), dtype=torch.uint8))
            model.head[-1].weight.mul_(4)
    return model.eval()


def make_run(folder: Path, data_root: Path, recipe: Recipe = RECIPE, seed: int = 3) -> Path:
    """A run folder as training leaves it, without the training; the seed draws its weights."""
    data = open_data_set(data_root)
    train, val = stratified_split(data.split("train"), recipe.val_fraction, recipe.split_seed)
    folder.mkdir()
    with (folder / "split.csv").open("w", newline="") as file:
        rows = [(p.key, p.label, name) for name, ps in (("train", train), ("val", val)) for p in ps]
        csv.writer(file).writerows([("key", "label", "part"), *rows])
    content = {
        "model": classifier(seed).state_dict(),
        "recipe": recipe.model_dump(),
        "class_names": list(CLASSES),
        "trained_on": {
            "layout": data.layout,
            "pictures": len(train),
            "val_fraction": recipe.val_fraction,
            "split_seed": recipe.split_seed,
            "fingerprint": fingerprint(train),
        },
        "epoch": 1,
        "val_accuracy": 0.5,
    }
    checkpoint.save(folder / "best.ckpt", content)
    return folder

"""A classifier's figures on the validation part, in one process or shared by several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch.nn import functional

from carspotter.data import Crop, Picture
from carspotter.evaluate import Share, join, measure, predict_share
from carspotter.train.checkpoint import recognise
from carspotter.train.model import CarClassifier
from carspotter.train.processes import gather


@dataclass(frozen=True)
class Validation:
    """The validation part, and how it is looked at.

    Attributes:
        pictures: of the validation part.
        class_names: in the order of the logits.
        crop: which part of each picture is taken.
        fabric: the processes that share the work; the pictures that each takes are no other's.
            None: this process does it all.
        leave_out: hears why pictures could not be read.
    """

    pictures: Sequence[Picture]
    class_names: Sequence[str]
    crop: Crop
    fabric: Fabric | None
    leave_out: Callable[[Iterable[str]], None]

    def __call__(self, model: CarClassifier, size: int) -> dict[str, float]:
        """Figures at a size in pixels: the same in each process, and for any number of them."""
        fabric = self.fabric
        own = predict_share(
            self.pictures,
            lambda pixels: recognise(model, pixels),
            Share(fabric.global_rank, fabric.world_size) if fabric else Share(),
            size=size,
            crop=self.crop,
        )
        shares = gather(fabric, own) if fabric else [own]
        found = join(shares, self.pictures, self.class_names)
        self.leave_out(found.broken.values())
        exact = measure(found.logits, found.targets, self.class_names)[0]
        loss = functional.cross_entropy(
            torch.from_numpy(found.logits), torch.from_numpy(found.targets)
        )
        return {
            "val_loss": float(loss),
            "val_accuracy": exact.top1,
            "val_top5": exact.top5,
            "val_macro_f1": exact.macro_f1,
        }

    def accuracy(self, model: CarClassifier, size: int) -> float:
        """Top-1 accuracy, 0 to 1, at a size in pixels."""
        return self(model, size)["val_accuracy"]

"""The training of a localiser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from carspotter.data import open_data_set, training_parts
from carspotter.data.index import fingerprint
from carspotter.errors import ModelFileError
from carspotter.localise.composites import Scene, SceneParts
from carspotter.localise.measure import (
    LEAST_COUNTED,
    Counted,
    Found,
    curve,
    large_enough,
    shorter_side,
)
from carspotter.localise.model import LocaliserNetwork, Places
from carspotter.localise.recipe import LocaliserRecipe
from carspotter.localise.scenes import (
    TrainingScenes,
    collate,
    scene_parts,
    validation_scenes,
)
from carspotter.train import checkpoint
from carspotter.train.batches import EpochBatches, stream_seed
from carspotter.train.loggers import loggers, need_trackers
from carspotter.train.processes import agree, alike, make_fabric, one_message
from carspotter.train.progress import counting
from carspotter.train.run import RunFolder
from carspotter.train.task import Loss
from carspotter.train.trainer import Trainer


@dataclass(frozen=True, eq=False)
class TrainedLocaliser:
    """A localiser and what it knows of itself.

    Attributes:
        network: in eval mode.
        recipe: how it was trained.
        trained_on: what it says of the data.
        epoch: from 1.
        val_ap: average precision on the validation scenes, 0 to 1.
    """

    network: LocaliserNetwork
    recipe: LocaliserRecipe
    trained_on: dict[str, Any]
    epoch: int
    val_ap: float


class LocaliserTask:
    """A `task.Task`: scenes in, boxes of vehicles out.

    Args:
        recipe: how.
        rank: which process this is.
        world: how many there are.
        cars: how many pictures of cars there are.
        trained_on: what the checkpoints say of the data.

    Raises:
        RecipeError: the recipe's backbone or weights cannot be had.
        DataError: too few pictures for one step.
    """

    score = "ap"
    train_figure = "giou"
    collate: Callable[[list[Any]], Any] | None = staticmethod(collate)

    def __init__(
        self,
        recipe: LocaliserRecipe,
        rank: int,
        world: int,
        cars: int,
        trained_on: dict[str, Any],
    ) -> None:
        self._recipe = recipe
        self._trained_on = trained_on
        self.batches = EpochBatches(recipe.scenes or cars, recipe, rank, world)
        torch.manual_seed(stream_seed(recipe.seed, 0))
        self.network = LocaliserNetwork(recipe)
        self.model: nn.Module = self.network

    def loss(self, model: nn.Module, batch: tuple[Tensor, list[Tensor]]) -> Loss:
        """The loss of scenes (N, 3, H, W) uint8 and their boxes."""
        pixels, boxes = batch
        places = model(pixels.float().contiguous(memory_format=torch.channels_last))
        losses = self.network.losses(places, boxes)
        overlap = 1 - float(losses["bbox_regression"].detach())
        return Loss(torch.stack(list(losses.values())).sum(), overlap * len(pixels), len(pixels))

    def save(self, path: Path, model: nn.Module, epoch: int, score: float) -> None:
        """Write a checkpoint, whole or not at all."""
        content = {
            "kind": "localiser",
            "model": model.state_dict(),
            "recipe": self._recipe.model_dump(),
            "trained_on": self._trained_on,
            "epoch": epoch,
            "val_ap": score,
        }
        checkpoint.save(path, content)


def load_localiser(path: Path) -> TrainedLocaliser:
    """Load the trained localiser of a run folder or of a checkpoint.

    Raises:
        ModelFileError: no such file, or not the checkpoint of a localiser.
    """
    content = checkpoint.load(path / "best.ckpt" if path.is_dir() else path)
    try:
        recipe = LocaliserRecipe.model_validate(content["recipe"])
        network = LocaliserNetwork(recipe, pretrained=False)
        network.load_state_dict(content["model"])
        found = TrainedLocaliser(
            network.to(memory_format=torch.channels_last).eval(),
            recipe,
            content["trained_on"],
            content["epoch"],
            content["val_ap"],
        )
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"{path}: not a localiser of this version ({reason})") from error
    return found


def train_localiser(
    recipe: LocaliserRecipe,
    data_root: Path,
    out: Path,
    *,
    resume: bool = False,
    devices: int | None = None,
    nodes: int | None = None,
    console: Console,
) -> RunFolder:
    """Train a localiser on scenes that are made of a data set's training split.

    Args:
        recipe: how; names the backgrounds and the frames.
        data_root: a data set with a `train` split of pictures of one car each.
        out: the run folder.
        resume: go on with the run that `out` holds.
        devices: as in `train.train`.
        nodes: machines.
        console: for progress and messages.

    Raises:
        DataError: data, backgrounds or frames cannot be used.
        RecipeError: the recipe's backbone or weights cannot be had, or its loss diverges.
        UsageError: `out` holds a run and `resume` is not set, or the other way round.
    """
    folder = RunFolder(out)
    with one_message():
        fabric = make_fabric(recipe, devices, nodes)
        fabric.launch()
        if not fabric.is_global_zero:
            console = Console(quiet=True)
        _train(recipe, data_root, folder, fabric, resume, console)
    return folder


def _train(
    recipe: LocaliserRecipe,
    data_root: Path,
    folder: RunFolder,
    fabric: Fabric,
    resume: bool,
    console: Console,
) -> None:
    need_trackers(recipe)
    data = alike(fabric, lambda: open_data_set(data_root))
    train, val = alike(
        fabric,
        lambda: training_parts(data, recipe.val_fraction, recipe.split_seed, recipe.exclude),
    )
    cars = {"train": train, "val": val}
    agree(fabric, lambda: folder.check(recipe, cars, resume=resume), first=True)

    def parts_of(part: str) -> SceneParts:
        with counting("decoding", console) as count:
            return scene_parts(data, cars[part], recipe, part, count)

    parts = alike(fabric, lambda: parts_of("train"))
    scenes = validation_scenes(alike(fabric, lambda: parts_of("val")), recipe)
    trained_on = {
        "layout": data.layout,
        "cars": len(parts.cars),
        "backgrounds": len(parts.backgrounds),
        "frames": len(parts.frames or ()),
        "fingerprint": fingerprint(train),
    }
    task = LocaliserTask(recipe, fabric.global_rank, fabric.world_size, len(parts.cars), trained_on)
    trainer = Trainer(recipe, fabric, task, folder, console)
    if resume:
        trainer.resume()
    else:
        agree(fabric, lambda: folder.begin(recipe, data_root, cars), first=True)
    with contextlib.ExitStack() as stack:
        opened = loggers(recipe, folder, trainer.progress.epoch, console)
        log = agree(fabric, lambda: stack.enter_context(opened), first=True)
        trainer.fit(
            TrainingScenes(parts, recipe),
            lambda network: figures(network, scenes),
            log or (lambda line: None),
            lambda line: None,
        )


@torch.no_grad()
def figures(network: LocaliserNetwork, scenes: Sequence[Scene]) -> dict[str, float]:
    """Loss, and average precision at an overlap of one half, of vehicles of a size that counts.

    `val_ap` is the mean of the kinds of scenes that have vehicles, each with what is found on empty
    ones: a frame shows many vehicles, and would count for more than all others. That of each kind
    stands beside it as `val_ap_…`.
    """
    total = 0.0
    counted: dict[str, list[Counted]] = {}
    device = network.mean.device
    for scene in scenes:
        pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1)[None].to(device).float()
        places: Places = network(pixels)
        truth = torch.from_numpy(scene.boxes).to(device)
        total += float(sum(network.losses(places, [truth]).values()))
        boxes, scores = network.vehicles(places)
        found = Found(boxes.cpu().numpy(), scores.cpu().numpy())
        one = large_enough(scene.boxes, found, LEAST_COUNTED, shorter_side)
        counted.setdefault(scene.kind, []).append(one)
    empty = counted.pop("empty", [])
    each = {
        f"val_ap_{kind}": curve(*zip(*some, *empty, strict=True))[0]
        for kind, some in counted.items()
        if any(len(one.truth) for one in some)
    }
    score = sum(each.values()) / len(each) if each else 0.0
    return {"val_loss": total / len(scenes), "val_ap": score, **each}

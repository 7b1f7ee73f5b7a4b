"""The training loop: epochs over augmented pictures, averaged weights, validation, checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from lightning_fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader

from carspotter.errors import DataError
from carspotter.train import checkpoint
from carspotter.train.allocator import keep_freed_memory
from carspotter.train.augment import BatchMixer, EpochBatches, TrainingPictures, stream_seed
from carspotter.train.model import CarClassifier, keep_depthwise_in_float32, make_optimizer
from carspotter.train.progress import TrainingBar
from carspotter.train.recipe import Recipe
from carspotter.train.run import RunFolder

if TYPE_CHECKING:
    from rich.console import Console


Precision: TypeAlias = Literal["32-true", "bf16-mixed", "16-mixed"]

_PRECISIONS: dict[str, Precision] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


@dataclass
class Progress:
    """Where a run is; saved with every checkpoint.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch under way.
        best_accuracy: best validation accuracy so far, 0 to 1.
        best_epoch: the epoch it was reached in, from 1.
        seconds: time spent so far, over all sessions of the run.
        loss_sum: sum of the loss over the steps of the epoch under way.
        right: pictures of the epoch under way whose class was the most probable.
        seen: pictures of the epoch under way.
        updates: optimiser steps of the whole run.
    """

    epoch: int = 0
    step: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    right: int = 0
    seen: int = 0
    updates: int = 0


def choose_precision(recipe: Recipe, device: torch.device) -> Precision:
    """Fabric's name of the precision: "auto" takes bf16 where the processor computes in it."""
    if recipe.precision != "auto":
        return _PRECISIONS[recipe.precision]
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"


def lr_factor(recipe: Recipe, position: float) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine down to the final share.

    Args:
        position: epochs done, with fractions.
    """
    if position < recipe.warmup_epochs:
        return max(0.01, position / recipe.warmup_epochs)
    rest = max(1e-9, recipe.epochs - recipe.warmup_epochs)
    part = min(1.0, (position - recipe.warmup_epochs) / rest)
    low = recipe.final_lr_scale
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * part))


class Trainer:
    """Trains one classifier; its whole state goes into the run's last checkpoint.

    Args:
        recipe: how.
        class_names: in the order of the logits.
        trained_on: what the checkpoints say of the data.
        folder: where checkpoints and metrics go.
        console: for messages.

    Raises:
        RecipeError: the recipe's model or weights cannot be had.
    """

    def __init__(
        self,
        recipe: Recipe,
        class_names: tuple[str, ...],
        trained_on: dict[str, Any],
        folder: RunFolder,
        console: Console,
    ) -> None:
        self.recipe = recipe
        self.class_names = class_names
        self.trained_on = trained_on
        self.folder = folder
        self.console = console
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        precision = choose_precision(recipe, device)
        if device.type == "cpu":
            keep_freed_memory()
        self.fabric = Fabric(accelerator=device.type, devices=1, precision=precision)
        torch.manual_seed(stream_seed(recipe.seed, 0))
        self.model = CarClassifier(recipe, len(class_names))
        self.model.to(memory_format=torch.channels_last)
        if device.type == "cpu" and precision == "bf16-mixed":
            keep_depthwise_in_float32(self.model)
        optimizer = make_optimizer(self.model, recipe)
        self.wrapped, self.optimizer = self.fabric.setup(self.model, optimizer)
        self.averaged = (
            ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
            if recipe.ema_decay
            else None
        )
        self.mix = BatchMixer(recipe, len(class_names))
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.progress = Progress()
        self._clock = time.monotonic()

    @property
    def result(self) -> CarClassifier:
        """The model that is validated and kept: the averaged weights, where there are any."""
        model = self.model if self.averaged is None else self.averaged.module
        assert isinstance(model, CarClassifier)
        return model.eval()

    def resume(self) -> None:
        """Take up the state of the last checkpoint."""
        state = checkpoint.load(self.folder.last)
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        at = self.progress
        self.folder.log(f"resumed in epoch {at.epoch + 1} after {at.step} steps", self.console)

    def fit(
        self,
        pictures: TrainingPictures,
        validate: Callable[[CarClassifier], dict[str, float]],
        watch: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Train to the end of the recipe, or until patience runs out.

        Args:
            pictures: the training part.
            validate: figures of a model on the validation part, `val_accuracy` among them.
            watch: called after each epoch, once its checkpoint is written.
        """
        at, recipe = self.progress, self.recipe
        batches = EpochBatches(len(pictures), recipe)
        loader = self._loader(pictures, batches)
        lines = [line for line in self.folder.read_metrics() if line["epoch"] <= at.epoch]
        self._clock = time.monotonic()
        with TrainingBar(recipe.epochs * len(batches), self.console) as bar:
            while at.epoch < recipe.epochs and not self._out_of_patience():
                batches.start_at(at.epoch, at.step)
                line = self._epoch(loader, len(batches), bar)
                line |= validate(self.result)
                self._end_epoch(line["val_accuracy"])
                lines.append({"epoch": at.epoch, **line, "seconds": round(at.seconds, 1)})
                self.folder.write_metrics(lines)
                self.folder.log(_epoch_text(lines[-1]), self.console)
                # Last: a resumed run drops lines beyond the checkpoint, but writes none anew.
                self._save_last()
                watch(lines[-1])
        self.folder.log(
            f"best: {100 * at.best_accuracy:.2f} % on validation, in epoch {at.best_epoch}; "
            f"{at.seconds / 60:.1f} minutes in all",
            self.console,
        )

    def _loader(
        self, pictures: TrainingPictures, batches: EpochBatches
    ) -> Iterable[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            pictures,
            batch_sampler=batches,
            num_workers=min(8, os.cpu_count() or 1),
            persistent_workers=True,
            prefetch_factor=4,
        )
        ready = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        return cast("Iterable[tuple[Tensor, Tensor]]", ready)  # one loader in, one out

    def _epoch(
        self, loader: Iterable[tuple[Tensor, Tensor]], steps: int, bar: TrainingBar
    ) -> dict[str, float]:
        """One pass over the training pictures, from the step at which the run stands."""
        at, recipe = self.progress, self.recipe
        size, seconds_before, seen_before = recipe.size_at(at.epoch), at.seconds, at.seen
        saved = time.monotonic()
        rate = 0.0
        self.wrapped.train()
        for pictures, targets in loader:
            loss, right = self._step(pictures, targets, at.epoch + at.step / steps)
            at.step += 1
            at.loss_sum += loss
            at.right += right
            at.seen += len(targets)
            self._tick()
            rate = (at.seen - seen_before) / max(1e-9, at.seconds - seconds_before)
            bar.advance(
                at.epoch * steps + at.step,
                f"epoch {at.epoch + 1}/{recipe.epochs} at {size} px",
                at.loss_sum / at.step,
                at.right / at.seen,
                rate,
            )
            if time.monotonic() - saved > 60 * recipe.checkpoint_minutes:
                self._save_last()
                saved = time.monotonic()
        return {
            "size": size,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": at.loss_sum / steps,
            "train_accuracy": at.right / max(1, at.seen),
            "pictures_per_second": round(rate, 1),
        }

    def _step(self, pictures: Tensor, targets: Tensor, position: float) -> tuple[float, int]:
        """One optimiser step; returns the loss and how many pictures were right."""
        recipe, at = self.recipe, self.progress
        torch.manual_seed(stream_seed(recipe.seed, 3, at.epoch, at.step))
        factor = lr_factor(recipe, position)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * group["lr_scale"] * factor
        batch = pictures.float().contiguous(memory_format=torch.channels_last)
        mixed, goal = self.mix(batch, targets)
        logits = self.wrapped(mixed)
        loss = self.criterion(logits, goal)
        if not math.isfinite(value := loss.item()):
            raise DataError(
                f"the loss is {value} in epoch {at.epoch + 1}, step {at.step}: lower lr, or set "
                "clip_norm or precision = 'fp32'; the last checkpoint is kept"
            )
        self.fabric.backward(loss)
        if recipe.clip_norm:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaged is not None:
            at.updates += 1
            self.averaged.update(self.model, step=at.updates)
        return value, int((logits.argmax(dim=1) == targets).sum())

    def _end_epoch(self, accuracy: float) -> None:
        at = self.progress
        at.epoch += 1
        at.step = at.right = at.seen = 0
        at.loss_sum = 0.0
        self._tick()
        if accuracy > at.best_accuracy:
            at.best_accuracy, at.best_epoch = accuracy, at.epoch
            self._save_best()

    def _save_best(self) -> None:
        content = {
            "model": self.result.state_dict(),
            "recipe": self.recipe.model_dump(),
            "class_names": list(self.class_names),
            "trained_on": self.trained_on,
            "epoch": self.progress.epoch,
            "val_accuracy": self.progress.best_accuracy,
        }
        checkpoint.save(self.folder.best, content)

    def _save_last(self) -> None:
        content = {
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        checkpoint.save(self.folder.last, content)

    def _out_of_patience(self) -> bool:
        at = self.progress
        return 0 < self.recipe.patience <= at.epoch - at.best_epoch

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now


def _epoch_text(line: dict[str, Any]) -> str:
    return (
        f"epoch {line['epoch']} at {line['size']} px: loss {line['train_loss']:.3f}, "
        f"validation {100 * line['val_accuracy']:.2f} % (loss {line['val_loss']:.3f}), "
        f"{line['pictures_per_second']:.0f} pictures/s, {line['seconds'] / 60:.1f} minutes so far"
    )

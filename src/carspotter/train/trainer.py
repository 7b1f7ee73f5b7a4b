"""The training loop: epochs, averaged weights, validation, checkpoints; of whatever is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from carspotter.errors import ModelFileError, RecipeError, UsageError
from carspotter.train import checkpoint
from carspotter.train.allocator import keep_freed_memory
from carspotter.train.batches import stream_seed
from carspotter.train.depthwise import speed_up_depthwise
from carspotter.train.model import make_optimizer, not_in_place
from carspotter.train.processes import agree, loading_processes
from carspotter.train.progress import TrainingBar
from carspotter.train.run import RunFolder
from carspotter.train.schedule import Schedule
from carspotter.train.task import Task

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Progress:
    """Where a run is; saved with every checkpoint.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch under way.
        best_accuracy: score on the validation part of the epoch that is kept, 0 to 1: the best
            so far, or the last one, as the recipe says.
        best_epoch: that epoch, from 1.
        seconds: time spent so far, over all sessions of the run.
        loss_sum: sum of the loss over the steps of the epoch under way.
        right: how right the pictures of the epoch under way were answered, summed.
        seen: pictures of the epoch under way.
        updates: optimiser steps of the whole run.
    """

    epoch: int = 0
    step: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    right: float = 0
    seen: int = 0
    updates: int = 0


def lr_factor(recipe: Schedule, position: float) -> float:
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
    """Trains the model of one task; its whole state goes into the run's last checkpoint.

    Args:
        recipe: how.
        fabric: launched; says on what.
        task: what.
        folder: where checkpoints and metrics go.
        console: for messages.
    """

    def __init__(
        self, recipe: Schedule, fabric: Fabric, task: Task, folder: RunFolder, console: Console
    ) -> None:
        self.recipe = recipe
        self.fabric = fabric
        self.task = task
        self.folder = folder
        self.console = console
        on_cpu = fabric.device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
            speed_up_depthwise(task.model)
        self.model = task.model.to(memory_format=torch.channels_last)
        self._precision = fabric.strategy.precision
        if on_cpu and isinstance(self._precision, MixedPrecision):
            not_in_place(self.model)
        if recipe.compile:
            self.model.compile()
        # A fused step would divide the gradients by the loss's scale itself, after the clipping.
        scaled = isinstance(self._precision, MixedPrecision) and self._precision.scaler is not None
        optimizer = make_optimizer(self.model, recipe, fused=not (scaled and recipe.clip_norm))
        self.wrapped, self.optimizer = fabric.setup(self.model, optimizer)
        self.averaged = (
            ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
            if recipe.ema_decay
            else None
        )
        self.progress = Progress()
        self._clock = time.monotonic()

    @property
    def result(self) -> nn.Module:
        """The model that is validated and kept: the averaged weights, where there are any."""
        model = self.model if self.averaged is None else self.averaged.module
        assert isinstance(model, nn.Module)
        return model.eval()

    def resume(self) -> None:
        """Take up the state of the last checkpoint, if there is one; the first process reads it.

        Raises:
            ModelFileError: it is damaged, or of another version.
            UsageError: it was trained by another number of processes.
        """
        last = self.folder.last
        state = agree(
            self.fabric, lambda: checkpoint.load(last) if last.is_file() else None, first=True
        )
        state = self.fabric.broadcast(state)
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            if self.averaged is not None:
                self.averaged.module.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._precision.load_state_dict(state["precision"])
            at = self.progress = Progress(**state["progress"])
            processes = int(state["processes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"{last}: no run of this version of carspotter and its packages ({error!r}); "
                "start a new one"
            ) from error
        if processes != self.fabric.world_size:
            # Its steps would mean other pictures, and its rates another batch.
            raise UsageError(
                f"{last} was trained by {processes} processes, these are "
                f"{self.fabric.world_size}: resume with as many (--devices, --nodes)"
            )
        self._log(f"resumed in epoch {at.epoch + 1} after {at.step} steps")

    def fit(
        self,
        pictures: Dataset[Any],
        validate: Callable[[Any], dict[str, float]],
        log: Callable[[Mapping[str, Any]], None],
        watch: Callable[[Mapping[str, Any]], None],
        *,
        keep_epochs: int = 1,
    ) -> None:
        """Train to the end of the recipe, or until patience runs out.

        Args:
            pictures: the training part; takes a `Draw`.
            validate: figures of a model on the validation part, the task's score among them as
                `val_…`.
            log: called after each epoch, before its checkpoint is written: again in a run that was
                killed there and resumed.
            watch: called after each epoch, once its checkpoint is written.
            keep_epochs: above 1, the weights of so many best epochs are kept.
        """
        at, recipe = self.progress, self.recipe
        loader = self._loader(pictures)
        lines = [line for line in self.folder.read_metrics() if line["epoch"] <= at.epoch]
        self._clock = time.monotonic()
        with TrainingBar(recipe.epochs * self.task.batches.steps, self.console) as bar:
            while at.epoch < recipe.epochs and not self._out_of_patience():
                self.task.batches.start_at(at.epoch, at.step)
                line = self._epoch(loader, bar)
                line |= validate(self._shared_result())
                self._end_epoch(line[self._score])
                lines.append({"epoch": at.epoch, **line, "seconds": round(at.seconds, 1)})
                if self.fabric.is_global_zero:
                    self.folder.write_metrics(lines, self.task.train_figure, self.task.score)
                    self._keep_best(lines, keep_epochs)
                    self._log(_epoch_text(lines[-1], self.task.score))
                    log(lines[-1])
                    # Last: a resumed run drops lines beyond the checkpoint, but writes none anew.
                    self._save_last()
                    watch(lines[-1])
        self._log(
            f"{recipe.keep}: {100 * at.best_accuracy:.2f} % on validation, "
            f"in epoch {at.best_epoch}; {at.seconds / 60:.1f} minutes in all"
        )

    @property
    def _score(self) -> str:
        return f"val_{self.task.score}"

    def _loader(self, pictures: Dataset[Any]) -> Iterable[Any]:
        loader = DataLoader(
            pictures,
            batch_sampler=self.task.batches,
            num_workers=loading_processes(self.fabric.device.type, self._processes_here()),
            persistent_workers=True,
            prefetch_factor=4,
            collate_fn=self.task.collate,
            pin_memory=self.fabric.device.type == "cuda",
        )
        ready = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        return cast("Iterable[Any]", ready)  # one loader in, one out

    def _processes_here(self) -> int:
        strategy = self.fabric.strategy
        return strategy.num_processes if isinstance(strategy, DDPStrategy) else 1

    def _epoch(self, loader: Iterable[Any], bar: TrainingBar) -> dict[str, float]:
        """One pass over the training pictures, from the step at which the run stands."""
        at, recipe, steps = self.progress, self.recipe, self.task.batches.steps
        size, seconds_before, seen_before = recipe.size_at(at.epoch), at.seconds, at.seen
        saved = time.monotonic()
        rate = 0.0
        self.wrapped.train()
        for parts in _grouped(loader, recipe.accumulate):
            loss, right, seen = self._step(parts, at.epoch + at.step / steps)
            at.step += 1
            at.loss_sum += loss
            at.right += right
            at.seen += seen
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
            "lr": self.optimizer.param_groups[-1]["lr"],
            "train_loss": at.loss_sum / steps,
            f"train_{self.task.train_figure}": at.right / max(1, at.seen),
            "pictures_per_second": round(rate, 1),
        }

    def _step(self, parts: Sequence[Any], position: float) -> tuple[float, float, int]:
        """One optimiser step; returns the loss, how right the pictures were, and how many."""
        recipe, at, fabric = self.recipe, self.progress, self.fabric
        torch.manual_seed(stream_seed(recipe.seed, 3, at.epoch, at.step, fabric.global_rank))
        factor = lr_factor(recipe, position)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * group["lr_scale"] * factor
        figures = torch.zeros(3, dtype=torch.float64)  # loss, right, seen
        for number, batch in enumerate(parts):
            is_last = number + 1 == len(parts)
            with fabric.no_backward_sync(self.wrapped, enabled=not is_last):
                with fabric.autocast():
                    found = self.task.loss(self.wrapped, batch)
                loss = found.value / len(parts)
                fabric.backward(loss)
            figures += torch.tensor([loss.item(), found.right, found.seen])
        figures = cast("Tensor", fabric.all_reduce(figures, reduce_op="sum")).cpu()
        value = float(figures[0]) / fabric.world_size
        if not math.isfinite(value):
            raise RecipeError(
                f"the loss is {value} in epoch {at.epoch + 1}, step {at.step}: lower lr, or set "
                "clip_norm or precision = 'fp32'; the last checkpoint is kept"
            )
        if recipe.clip_norm:
            # Not finite: under fp16, too large a scale of the loss, whose step the scaler skips.
            fabric.clip_gradients(
                self.wrapped,
                self.optimizer,
                max_norm=recipe.clip_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        at.updates += 1
        if self.averaged is not None and fabric.is_global_zero:
            self.averaged.update(self.model, step=at.updates)
        return value, float(figures[1]), int(figures[2])

    def _shared_result(self) -> nn.Module:
        """`result`, as the first process has it: batch norms of the others saw other pictures."""
        model = self.result
        if self.fabric.world_size > 1:
            model.load_state_dict(self.fabric.broadcast(model.state_dict()))
        return model

    def _end_epoch(self, accuracy: float) -> None:
        if not self.folder.last.is_file():
            self._save_last()  # before any result: one that stands alone is a finished run's
        at = self.progress
        at.epoch += 1
        at.step = at.right = at.seen = 0
        at.loss_sum = 0.0
        self._tick()
        if accuracy > at.best_accuracy or self.recipe.keep == "last":
            at.best_accuracy, at.best_epoch = accuracy, at.epoch
            self._save_result(self.folder.best, accuracy)

    def _save_result(self, path: Path, score: float) -> None:
        if self.fabric.is_global_zero:
            self.task.save(path, self.result, self.progress.epoch, score)

    def _keep_best(self, lines: Sequence[Mapping[str, Any]], count: int) -> None:
        """Keep the best epochs' weights, of which an average may be made after training."""
        if count > 1:
            self._save_result(self.folder.epoch(self.progress.epoch), lines[-1][self._score])
            best = sorted(lines, key=lambda line: -line[self._score])[:count]
            self.folder.keep_epochs({line["epoch"] for line in best})

    def _save_last(self) -> None:
        if not self.fabric.is_global_zero:
            return
        content = {
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self._precision.state_dict(),
            "progress": asdict(self.progress),
            "processes": self.fabric.world_size,
        }
        checkpoint.save(self.folder.last, content)

    def _log(self, text: str) -> None:
        if self.fabric.is_global_zero:
            self.folder.log(text, self.console)

    def _out_of_patience(self) -> bool:
        at = self.progress
        return 0 < self.recipe.patience <= at.epoch - at.best_epoch

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now


def _grouped(loader: Iterable[Any], count: int) -> Iterator[list[Any]]:
    """Batches, `count` at a time; the loader has a multiple of them."""
    parts: list[Any] = []
    for batch in loader:
        parts.append(batch)
        if len(parts) == count:
            yield parts
            parts = []


def _epoch_text(line: dict[str, Any], score: str) -> str:
    return (
        f"epoch {line['epoch']} at {line['size']} px: loss {line['train_loss']:.3f}, "
        f"validation {100 * line[f'val_{score}']:.2f} % (loss {line['val_loss']:.3f}), "
        f"{line['pictures_per_second']:.0f} pictures/s, {line['seconds'] / 60:.1f} minutes so far"
    )

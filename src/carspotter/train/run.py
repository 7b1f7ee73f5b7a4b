"""The run folder: what was trained, on what, how it went, and the checkpoints."""

from __future__ import annotations

import csv
import datetime
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from carspotter.data import DataSet, Picture
from carspotter.errors import DataError, RecipeError, UsageError
from carspotter.files import replacing, write_text
from carspotter.train.schedule import Schedule, differences, read_recipe

_VERSIONS_OF = ("carspotter", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")


@dataclass(frozen=True)
class RunFolder:
    """The files of one training run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe with every key spelt out."""
        return self.path / "recipe.toml"

    @property
    def best(self) -> Path:
        """The averaged weights of the epoch that the recipe keeps: the best, or the last."""
        return self.path / "best.ckpt"

    @property
    def last(self) -> Path:
        """All that is needed to go on with the run."""
        return self.path / "last.ckpt"

    def epoch(self, number: int) -> Path:
        """The averaged weights of an epoch, kept while it may enter the soup."""
        return self.path / f"epoch-{number:03}.ckpt"

    def keep_epochs(self, numbers: Collection[int]) -> None:
        """Remove the weights of all other epochs."""
        kept = {self.epoch(number) for number in numbers}
        for file in self.epochs():
            if file not in kept:
                file.unlink()

    def epochs(self) -> list[Path]:
        """The kept weights of epochs."""
        return sorted(self.path.glob("epoch-*.ckpt"))

    @property
    def teachers(self) -> Path:
        """The runs of teachers that were trained for this run."""
        return self.path / "teachers"

    def teacher(self, number: int, name: str) -> RunFolder:
        """The run of one teacher, counted from 1."""
        return RunFolder(self.teachers / f"{number}-{name}")

    @property
    def start(self) -> RunFolder:
        """The run of the recipe whose weights this run goes on from."""
        return RunFolder(self.path / "start")

    @property
    def is_begun(self) -> bool:
        """Whether there is a run, or at least one that is trained first for it."""
        return self.recipe.is_file() or self.teachers.is_dir() or self.start.path.is_dir()

    @property
    def metrics(self) -> Path:
        """One JSON line for each epoch done."""
        return self.path / "metrics.jsonl"

    def data_root(self) -> Path:
        """Where the data set lay when the run began."""
        return Path(json.loads((self.path / "about.json").read_text(encoding="utf-8"))["data"])

    def check(
        self, recipe: Schedule, parts: Mapping[str, Sequence[Picture]], *, resume: bool
    ) -> None:
        """Check that there is no run yet, or that it is this one; what is trained first may be all.

        Raises:
            UsageError: there is a run already and `resume` is not set, or the other way round.
            RecipeError: the run there has another recipe.
            DataError: the run there has another split.
        """
        there = self.recipe
        begun = self.is_begun
        if begun and not resume:
            raise UsageError(f"{self.path} holds a run already; go on with it by --resume")
        if resume and not begun:
            raise UsageError(f"{self.path} holds no run to resume")
        if not there.is_file():
            return
        old = read_recipe(type(recipe), str(there), {})
        if keys := differences(old, recipe):
            raise RecipeError(f"{there} is of another recipe; they differ in: {', '.join(keys)}")
        if self.read_split() != {p.key: part for part, ps in parts.items() for p in ps}:
            raise DataError(f"{self.path / 'split.csv'} is of other data; use another folder")

    def begin(
        self, recipe: Schedule, data_root: Path, parts: Mapping[str, Sequence[Picture]]
    ) -> None:
        """Make the folder. The recipe comes last: with it, the folder holds a run."""
        self.path.mkdir(parents=True, exist_ok=True)
        about = {"data": str(data_root.resolve()), "versions": _versions()}
        write_text(self.path / "about.json", json.dumps(about, indent=1) + "\n")
        self._write_split(parts)
        write_text(self.recipe, recipe.to_toml())

    def log(self, text: str, console: Console | None = None) -> None:
        """Append a line to log.txt, and show it where there is a console."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{now} {text}\n")
        if console is not None:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that was cut short is dropped."""
        if not self.metrics.is_file():
            return []
        lines = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def write_metrics(
        self, lines: Sequence[Mapping[str, Any]], train_figure: str, score: str
    ) -> None:
        """Replace metrics.jsonl, and curves.png drawn from its losses and these two figures."""
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))
        _draw_curves(lines, train_figure, score, self.path / "curves.png")

    def _write_split(self, parts: Mapping[str, Sequence[Picture]]) -> None:
        rows = [(p.key, p.label, name) for name, pictures in parts.items() for p in pictures]
        with (
            replacing(self.path / "split.csv") as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("key", "label", "part"), *rows])

    def pictures(self, data: DataSet, part: str) -> tuple[Picture, ...]:
        """The pictures of a part of the run, "train" or "val".

        Raises:
            DataError: the data set lacks some of them.
        """
        part_of = self.read_split()
        found = tuple(p for p in data.pictures if part_of.get(p.key) == part)
        if len(found) != sum(there == part for there in part_of.values()):
            raise DataError(f"{data.root}: not the data set of {self.path}; name it by --data")
        return found

    def read_split(self) -> dict[str, str]:
        """Which part ("train", "val") each picture belongs to, by key."""
        with (self.path / "split.csv").open(newline="", encoding="utf-8") as file:
            return {row["key"]: row["part"] for row in csv.DictReader(file)}


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in _VERSIONS_OF},
    }


_FIGURES = {
    "accuracy": "top-1 accuracy",
    "ap": "average precision",
    "giou": "overlap of boxes (GIoU)",
}


def _draw_curves(
    lines: Sequence[Mapping[str, Any]], train_figure: str, score: str, path: Path
) -> None:
    # Slow to import, and a run's first epoch need not wait.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in lines]
    left.plot(epochs, [line["train_loss"] for line in lines], label="training loss")
    left.plot(epochs, [line["val_loss"] for line in lines], label="validation loss")
    for split, key, name in (("train", train_figure, "training"), ("val", score, "validation")):
        values = [100 * line[f"{split}_{key}"] for line in lines]
        right.plot(epochs, values, label=f"{name}: {_FIGURES[key]}")
    left.set_ylabel("loss, nats")
    right.set_ylabel("%")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)

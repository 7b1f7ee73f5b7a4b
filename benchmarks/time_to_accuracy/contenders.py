"""The contenders: how each is started, and what its own files say of how far it is."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from benchmarks.time_to_accuracy.marks import Rule
from benchmarks.time_to_accuracy.prepare import Material
from carspotter.errors import CarspotterError, UsageError
from carspotter.train.processes import loading_processes

TIMM_SETTINGS = (
    ("--opt", "adamw"),
    ("--lr", "5e-4"),
    ("--weight-decay", "0.05"),
    ("--sched", "cosine"),
    ("--epochs", "30"),
    ("--warmup-epochs", "3"),
    ("--smoothing", "0.1"),
    ("--drop", "0.2"),
    ("--crop-pct", "1.0"),
    ("--channels-last",),
)
"""What timm's users fine-tune with; README.md gives the reason of each."""

LOG = "log.txt"


class ContenderError(CarspotterError):
    """A contender's process failed, or left nothing to be measured."""


@dataclass(frozen=True)
class Setting:
    """What is equal for all contenders.

    Attributes:
        material: pictures and weights.
        size: side of the pictures in training, where the contender has no schedule of its own.
        batch_size: pictures of a step.
        seed: of every random draw.
        device: "cpu" or "cuda".
        threads: of torch on the CPU; None: as each has it, one for each core.
        bf16: whether the device computes in it; then timm gets mixed precision, as carspotter does.
    """

    material: Material
    size: int = 224
    batch_size: int = 32
    seed: int = 0
    device: str = "cpu"
    bf16: bool = False
    threads: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that hold for every contender."""
        return {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}

    @property
    def workers(self) -> int:
        """Processes that load pictures, as many as carspotter starts."""
        return loading_processes(self.device)


@dataclass(frozen=True)
class EpochSeen:
    """An epoch whose training is done, and its test accuracy (0 to 1) once that is there too."""

    epoch: int
    accuracy: float | None = None


class Contender(Protocol):
    """Something that trains in a process of its own and leaves traces in a folder."""

    @property
    def rule(self) -> Rule:
        """When its clock stops."""

    def command(self, folder: Path) -> list[str]:
        """What to run; it writes below `folder`."""

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables that the process gets beside those there are."""

    def seen(self, folder: Path) -> list[EpochSeen]:
        """The epochs done so far."""

    def keep(self, folder: Path, epoch: int | None) -> None:
        """Keep the weights as they are now, for `score`; None: the final ones."""

    def score(self, folder: Path, epoch: int | None) -> float | None:
        """Test accuracy (0 to 1) of the weights that were kept; None where none were."""

    def rates(self, folder: Path) -> list[float]:
        """Training pictures per second of each epoch done, by the program's own clock."""


@dataclass(frozen=True)
class Carspotter:
    """`carspotter train`, to the recipe's end; tested on the test split afterwards.

    Attributes:
        setting: the pictures, batch size and seed; sizes are the recipe's.
        recipe: a shipped name or a file.
        changes: of the recipe's keys, `key=value`.
    """

    setting: Setting
    recipe: str
    changes: tuple[str, ...] = ()
    rule: ClassVar[Rule] = "whole run"

    def command(self, folder: Path) -> list[str]:
        command = [sys.executable, "-m", "carspotter", "train", self.recipe]
        command += ["--data", str(self.setting.material.data), "--out", str(folder / "run")]
        for change in (f"seed={self.setting.seed}", *self.changes):
            command += ["--set", change]
        return command

    def environment(self, folder: Path) -> dict[str, str]:
        # A cache of its own: decoding counts, since the others decode as well.
        return {**self.setting.environment, "CARSPOTTER_CACHE": str(folder / "cache")}

    def seen(self, folder: Path) -> list[EpochSeen]:
        return [EpochSeen(int(line["epoch"])) for line in self._metrics(folder)]

    def keep(self, folder: Path, epoch: int | None) -> None:
        # What the run would hand over if it ended now: the epoch that is best on validation.
        best = folder / "run" / "best.ckpt"
        if best.is_file():
            _link(best, self._kept(folder, epoch))

    def score(self, folder: Path, epoch: int | None) -> float | None:
        kept = self._kept(folder, epoch)
        if not kept.is_file():
            return None
        known = folder / "scores.json"
        scores: dict[str, float] = json.loads(known.read_text()) if known.is_file() else {}
        digest = hashlib.sha256(kept.read_bytes()).hexdigest()
        if digest not in scores:  # many epochs share a best one
            scores[digest] = self._evaluate(kept)
            known.write_text(json.dumps(scores))
        return scores[digest]

    def rates(self, folder: Path) -> list[float]:
        return [float(line["pictures_per_second"]) for line in self._metrics(folder)]

    def _metrics(self, folder: Path) -> list[dict[str, float]]:
        return _json_lines(folder / "run" / "metrics.jsonl")

    def _kept(self, folder: Path, epoch: int | None) -> Path:
        return folder / ("final.ckpt" if epoch is None else f"epoch-{epoch:03d}.ckpt")

    def _evaluate(self, checkpoint: Path) -> float:
        command = [sys.executable, "-m", "carspotter", "evaluate", str(checkpoint)]
        command += ["--data", str(self.setting.material.data), "--split", "test"]
        done = subprocess.run(
            [*command, "--json", "--quiet"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ContenderError(f"{checkpoint} cannot be evaluated: {done.stderr.strip()}")
        return float(json.loads(done.stdout)["metrics"]["exact"]["top1"])


@dataclass(frozen=True)
class Timm:
    """timm's train.py, which tests on the test split after each epoch.

    Attributes:
        setting: pictures, size, batch size, seed.
        source: a checkout of timm's repository.
        extra: further arguments; the last one of a kind counts.
        tests: whether it tests at all.
    """

    setting: Setting
    source: Path
    extra: tuple[str, ...] = ()
    tests: bool = True
    rule: ClassVar[Rule] = "first epoch"

    def command(self, folder: Path) -> list[str]:
        setting, material = self.setting, self.setting.material
        script = self.source / "train.py"
        if not script.is_file():
            raise UsageError(
                f"{script}: no such file; --timm wants a checkout of "
                "github.com/huggingface/pytorch-image-models"
            )
        command = [sys.executable, str(script), "--data-dir", str(material.folders)]
        command += ["--train-split", "train", "--val-split", "test" if self.tests else ""]
        command += ["--model", material.backbone, "--num-classes", str(material.classes)]
        if material.weights is not None:
            command += ["--pretrained", "--pretrained-path", str(material.weights)]
        command += ["--img-size", str(setting.size), "--batch-size", str(setting.batch_size)]
        command += ["--seed", str(setting.seed), "--device", setting.device]
        command += ["--workers", str(setting.workers)]
        command += [word for words in TIMM_SETTINGS for word in words]
        if setting.bf16:
            command += ["--amp", "--amp-dtype", "bfloat16"]
        command += ["--output", str(folder), "--experiment", "out", "--checkpoint-hist", "1"]
        return [*command, *self.extra]

    def environment(self, folder: Path) -> dict[str, str]:
        return self.setting.environment

    def seen(self, folder: Path) -> list[EpochSeen]:
        accuracies = timm_accuracies(_text(folder / "out" / "summary.csv"))
        trained = timm_rates(_text(folder / LOG))
        return [
            EpochSeen(epoch, accuracies.get(epoch)) for epoch in sorted({*trained, *accuracies})
        ]

    def keep(self, folder: Path, epoch: int | None) -> None:
        """It tests itself."""

    def score(self, folder: Path, epoch: int | None) -> float | None:
        return None

    def rates(self, folder: Path) -> list[float]:
        found = timm_rates(_text(folder / LOG))
        return [found[epoch] for epoch in sorted(found)]

    def version(self) -> str:
        """Of the checkout, whose own `timm` package train.py uses."""
        found = re.search(r"__version__ = '([^']+)'", _text(self.source / "timm" / "version.py"))
        return found[1] if found else "unknown"


@dataclass(frozen=True)
class Plain:
    """`plain_loop.py`, which tests on the test split after each epoch.

    Attributes:
        setting: pictures, size, batch size, seed.
        extra: further arguments; the last one of a kind counts.
    """

    setting: Setting
    extra: tuple[str, ...] = ()
    rule: ClassVar[Rule] = "first epoch"

    def command(self, folder: Path) -> list[str]:
        setting, material = self.setting, self.setting.material
        script = Path(__file__).with_name("plain_loop.py")
        command = [sys.executable, str(script), "--data", str(material.folders)]
        command += ["--out", str(folder), "--backbone", material.backbone]
        if material.weights is not None:
            command += ["--weights", str(material.weights)]
        command += ["--size", str(setting.size), "--batch-size", str(setting.batch_size)]
        command += ["--seed", str(setting.seed), "--device", setting.device]
        return [*command, "--workers", str(setting.workers), *self.extra]

    def environment(self, folder: Path) -> dict[str, str]:
        return self.setting.environment

    def seen(self, folder: Path) -> list[EpochSeen]:
        found: dict[int, float | None] = {}
        for line in _json_lines(folder / "marks.jsonl"):
            found[int(line["epoch"])] = line.get("accuracy")
        return [EpochSeen(epoch, accuracy) for epoch, accuracy in found.items()]

    def keep(self, folder: Path, epoch: int | None) -> None:
        """It tests itself."""

    def score(self, folder: Path, epoch: int | None) -> float | None:
        return None

    def rates(self, folder: Path) -> list[float]:
        lines = _json_lines(folder / "marks.jsonl")
        return [line["pictures_per_second"] for line in lines if "pictures_per_second" in line]


def timm_accuracies(summary: str) -> dict[int, float]:
    """Test accuracy, 0 to 1, by epoch (from 1), of the text of timm's summary.csv.

    A last line that is still being written is left for the next look.
    """
    whole = summary[: summary.rfind("\n") + 1]
    found = {}
    for row in csv.DictReader(io.StringIO(whole)):
        if row.get("eval_top1"):
            found[int(row["epoch"]) + 1] = float(row["eval_top1"]) / 100
    return found


_TIMM_STEP = re.compile(
    r"Train: (?P<epoch>\d+) \[ *(?P<step>\d+)/(?P<steps>\d+) .*"
    r"Time: +[\d.]+s, +[\d.]+/s +\([\d.]+s, +(?P<rate>[\d.]+)/s\)"
)


def timm_rates(log: str) -> dict[int, float]:
    """Pictures per second by epoch (from 1), of the log of timm's train.py; whole epochs only."""
    steps = _TIMM_STEP.finditer(log)
    return {
        int(line["epoch"]) + 1: float(line["rate"])
        for line in steps
        if int(line["step"]) + 1 == int(line["steps"])
    }


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _json_lines(file: Path) -> list[dict[str, float]]:
    """The whole lines of a file that may be growing."""
    lines: Sequence[str] = _text(file).splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _link(source: Path, target: Path) -> None:
    """Keep a file that is replaced, never changed, under a second name."""
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a file system without hard links
        os.link(source, target)
        return
    shutil.copy2(source, target)

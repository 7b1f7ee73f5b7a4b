"""`carspotter soup`: one run made of several."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import Carspotter
from rich.console import Console
from torch import Tensor
from untrained_run import make_run

from carspotter.train import checkpoint
from carspotter.train.soup_of_runs import soup_of_runs

RECIPE = """
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
val_fraction = 0.25
epochs = 2
sizes = [48]
eval_size = 48
batch_size = 8
lr = 1e-2
rotation = 0
mix_probability = 0
precision = "fp32"
"""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def runs(
    carspotter: Carspotter, drawn_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Runs of two seeds on one split, one of another split, and one of another backbone."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.toml").write_text(RECIPE)
    for name, changes in {
        "seed0": (),
        "seed1": ("seed=1",),
        "other-split": ("split_seed=1",),
        "other-backbone": ("backbone=test_resnet",),
    }.items():
        options = [word for change in changes for word in ("--set", change)]
        done = carspotter(
            *("train", folder / "tiny.toml", "--data", drawn_data, "--out", folder / name),
            *options,
            env=ONE_THREAD,
        )
        assert done.returncode == 0, done.stderr
    return folder


def weights(run: Path) -> Mapping[str, Tensor]:
    found: Mapping[str, Tensor] = checkpoint.load(run / "best.ckpt")["model"]
    return found


def test_soup_of_two_seeds(
    carspotter: Carspotter, runs: Path, drawn_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "soup"
    done = carspotter("soup", runs / "seed0", runs / "seed1", "--out", out, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    alone = [checkpoint.load(runs / name / "best.ckpt") for name in ("seed0", "seed1")]
    best = max(alone, key=lambda content: content["val_accuracy"])
    soup = checkpoint.load(out / "best.ckpt")
    assert soup["val_accuracy"] >= best["val_accuracy"]
    log = (out / "log.txt").read_text()
    assert log.count("soup: ") == 2
    taken = [c["model"] for c in alone] if ", kept" in log else [best["model"]]
    for key, tensor in soup["model"].items():
        mean = sum(state[key].double() for state in taken) / len(taken)
        assert torch.allclose(tensor.double(), mean, atol=1e-6), key

    # An ordinary run folder: it is evaluated and exported as any other.
    arguments = ("--data", drawn_data, "--split", "val", "--json")
    done = carspotter("evaluate", out, *arguments, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["exact"]["top1"] == soup["val_accuracy"]
    done = carspotter("export", out, "--out", tmp_path / "soup.onnx", env=ONE_THREAD)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (("other-split",), "were validated on different pictures"),
        (("other-backbone",), "have different backbones"),
        ((), "at least two runs"),
        (("nowhere",), "nowhere holds no trained run"),
    ],
)
def test_what_cannot_be_averaged(
    carspotter: Carspotter, runs: Path, tmp_path: Path, others: tuple[str, ...], reason: str
) -> None:
    out = tmp_path / "soup"
    paths = [runs / name for name in ("seed0", *others)]
    done = carspotter("soup", *paths, "--out", out, env=ONE_THREAD)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_no_run_is_overwritten(carspotter: Carspotter, runs: Path) -> None:
    before = weights(runs / "seed1")
    done = carspotter(
        *("soup", runs / "seed0", runs / "seed1", "--out", runs / "seed1"), env=ONE_THREAD
    )
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
    assert all(torch.equal(before[key], value) for key, value in weights(runs / "seed1").items())


@pytest.mark.usefixtures("alone")
def test_after_a_full_disk_the_folder_may_be_used_again(
    drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*of_checkpoint: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runs = [make_run(tmp_path / str(seed), drawn_data, seed=seed) for seed in (3, 4)]
    out = tmp_path / "soup"
    for disk in (full, checkpoint.save_checkpoint):
        monkeypatch.setattr(checkpoint, "save_checkpoint", disk)
        with pytest.raises(OSError, match="No space") if disk is full else nullcontext():
            soup_of_runs(runs, out, data_root=drawn_data, console=Console(quiet=True))
        assert (out / "recipe.toml").exists() == (out / "best.ckpt").exists() == (disk != full)

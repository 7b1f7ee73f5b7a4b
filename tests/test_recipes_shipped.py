"""Every shipped recipe takes two steps, and the student project's is faithful."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import CLASSES, draw_car, encoded, write_parquet
from torch import nn
from torchvision.transforms import v2
from training import run_recipe

from carspotter.train import load_recipe, shipped_recipes
from carspotter.train.augment import augmentation
from carspotter.train.checkpoint import load
from carspotter.train.model import CarClassifier
from carspotter.train.processes import choose_precision

SIDE = {"vit-small": 64}
"""Pixels; a network of five halvings has a feature map of one place at the default."""


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of three classes: nine to train on."""
    root = tmp_path_factory.mktemp("twelve")
    rows = [(f"{i:05d}.jpg", encoded(draw_car(i, i % 3)), i % 3) for i in range(12)]
    write_parquet(root / "data" / "train-00000-of-00001.parquet", rows)
    return root


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_header_says_command_cost_and_score(name: str) -> None:
    header = [line for line in shipped_recipes()[name].splitlines() if line.startswith("#")]
    text = " ".join(line.removeprefix("#").strip() for line in header)
    assert f"carspotter train {name} --data stanford-cars --out runs/{name}" in text
    assert "not yet run" in text or ("Cost: " in text and "Score: " in text)


@pytest.mark.parametrize("name", shipped_recipes())
def test_two_steps(name: str, twelve: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    side = SIDE.get(name, 32)
    changes: dict[str, Any] = {
        "weights": "none",
        "val_fraction": 0.25,
        "epochs": 1,
        "sizes": (side,),
        "eval_size": side,
        "batch_size": 4 // recipe.accumulate,
        "precision": "fp32",
    }
    folder = run_recipe(recipe.model_copy(update=changes), twelve, tmp_path / "run")
    assert load(folder.last)["progress"]["updates"] == 2
    shutil.rmtree(tmp_path)  # some are of half a gigabyte


def test_other_backbones_by_their_timm_name(twelve: Path, tmp_path: Path) -> None:
    changes = ("backbone=mobilenetv4_conv_small", "weights=none", "freeze_stages=0", "epochs=1")
    small = ("sizes=[32]", "eval_size=32", "batch_size=4", "val_fraction=0.25")
    folder = run_recipe(load_recipe("lite0", (*changes, *small)), twelve, tmp_path / "run")
    assert folder.best.is_file()


# --- the student project's recipe ----------------------------------------------------------------


def test_seed_model() -> None:
    recipe = load_recipe("b3-seed", ("weights=none",))
    model = CarClassifier(recipe, 196)
    norm, dropout, linear = model.head
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.7
    assert isinstance(linear, nn.Linear)
    assert linear.out_features == 196
    assert all(parameter.requires_grad for parameter in model.parameters())
    b3 = timm.create_model("efficientnet_b3", num_classes=0).state_dict()
    assert {k: v.shape for k, v in model.backbone.state_dict().items()} == {
        k: v.shape for k, v in b3.items()
    }


def test_seed_recipe() -> None:
    recipe = load_recipe("b3-seed")
    assert recipe.weights == "timm"
    assert set(recipe.sizes) == {recipe.eval_size} == {300}
    assert recipe.weight_decay > 0
    assert 0 < recipe.patience < recipe.epochs
    assert recipe.freeze_stages == 0
    kinds = [type(step) for step in augmentation(recipe, 300).transforms]
    assert kinds == [
        v2.RandomRotation,
        v2.RandomResizedCrop,
        v2.RandomHorizontalFlip,
        v2.ColorJitter,
    ]
    assert choose_precision(recipe, torch.device("cuda")) == "16-mixed"
    able = torch.cpu.get_capabilities()
    bf16 = able.get("avx512_bf16") or able.get("amx_bf16")
    assert choose_precision(recipe, torch.device("cpu")) == ("bf16-mixed" if bf16 else "32-true")


def test_seed_trains_with_weights_from_a_file(twelve: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "b3.pt"
    torch.save(timm.create_model("efficientnet_b3").state_dict(), file)
    recipe = load_recipe(
        "b3-seed", (f"weights=file:{file}", "epochs=1", "batch_size=4", "val_fraction=0.25")
    )
    folder = run_recipe(recipe, twelve, tmp_path / "run")
    content = load(folder.best)
    assert content["class_names"] == list(CLASSES)
    assert load(folder.last)["progress"]["updates"] == 2
    shutil.rmtree(tmp_path)

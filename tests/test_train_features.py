"""What a recipe's keys do, proved from what they change. Augmentation: test_augment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import Carspotter
from sklearn.utils.class_weight import compute_class_weight
from timm.models import register_model
from timm.models.swin_transformer import _create_swin_transformer
from torch import nn
from training import STEPS, first_weights, last, run, same, tiny

from carspotter.errors import RecipeError
from carspotter.export import to_onnx
from carspotter.train import RunFolder, load_checkpoint
from carspotter.train.classifier import ClassifierTask
from carspotter.train.loss import Objective
from carspotter.train.model import CarClassifier, make_optimizer
from carspotter.train.processes import make_fabric
from carspotter.train.recipe import load_recipe

# From Python 3.12 on, forking a loader's worker warns wherever another thread runs.
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {key for key in after if not torch.equal(before[key], after[key])}


# --- the optimiser -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lr", "state"),
    [
        ("adamw", 1e-2, {"step", "exp_avg", "exp_avg_sq"}),
        ("lamb", 3e-2, {"exp_avg", "exp_avg_sq"}),
        ("lion", 1e-3, {"exp_avg"}),
        ("sgd", 3e-2, {"momentum_buffer"}),
    ],
)
def test_each_optimiser_trains(
    drawn_data: Path, tmp_path: Path, name: str, lr: float, state: set[str]
) -> None:
    folder = run(drawn_data, tmp_path / "run", optimizer=name, lr=lr, epochs=5)
    losses = [line["train_loss"] for line in folder.read_metrics()]
    assert losses[-1] < 0.8 * losses[0]
    kept = last(folder)["optimizer"]["state"]
    assert all(set(of_one) == state for of_one in kept.values())


def test_sgd_without_momentum(drawn_data: Path, tmp_path: Path) -> None:
    changes = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1}
    folder = run(drawn_data, tmp_path / "run", **changes)
    assert moved(first_weights(tiny()), last(folder)["model"])


def groups_by_name(recipe: Any) -> dict[str, dict[str, Any]]:
    """The optimiser's group of each trained parameter."""
    model = CarClassifier(recipe, 3)
    of = {
        id(p): group
        for group in make_optimizer(model, recipe).param_groups
        for p in group["params"]
    }
    return {name: of[id(p)] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_layer_decay_of_a_vision_transformer(decay: float) -> None:
    recipe = tiny(backbone="test_vit", layer_decay=decay, backbone_lr_scale=0.4, weight_decay=0.03)
    groups = groups_by_name(recipe)
    blocks = sorted({name.split(".")[2] for name in groups if name.startswith("backbone.blocks.")})
    stem = ("backbone.cls_token", "backbone.pos_embed", "backbone.patch_embed.proj.weight")
    from_the_head = [
        *(f"backbone.blocks.{number}.mlp.fc1.weight" for number in reversed(blocks)),
        stem[0],
    ]
    rates = [groups[name]["lr_scale"] for name in from_the_head]
    assert rates == pytest.approx([0.4 * decay**i for i in range(len(rates))])
    assert {groups[name]["lr_scale"] for name in stem} == {rates[-1]}
    assert groups["backbone.norm.weight"]["lr_scale"] == rates[0]
    assert {group["lr_scale"] for name, group in groups.items() if name.startswith("head.")} == {1}
    for name, group in groups.items():
        is_decayed = name not in stem[:2] and not name.endswith("bias") and ".norm" not in name
        is_decayed = is_decayed and name != "head.0.weight"
        assert group["weight_decay"] == (0.03 if is_decayed else 0), name


def test_layer_decay_falls_from_head_to_stem() -> None:
    groups = groups_by_name(tiny(layer_decay=0.7, backbone_lr_scale=0.5))
    rates = [group["lr_scale"] for name, group in groups.items() if name.startswith("backbone.")]
    assert rates == sorted(rates)  # timm lists parameters from the stem on
    assert len(set(rates)) >= 4
    assert rates[-1] == 0.5
    assert {group["lr_scale"] for name, group in groups.items() if name.startswith("head.")} == {1}


def test_rates_are_those_of_the_groups(drawn_data: Path, tmp_path: Path) -> None:
    changes = {"layer_decay": 0.7, "final_lr_scale": 1.0}
    folder = run(drawn_data, tmp_path / "run", **changes)
    found = last(folder)["optimizer"]["param_groups"]
    assert len({group["lr_scale"] for group in found}) >= 4
    for group in found:
        assert group["lr"] == pytest.approx(1e-2 * group["lr_scale"])


def test_frozen_stages_stay_as_they_are(drawn_data: Path, tmp_path: Path) -> None:
    changes = {"freeze_stages": 2, "ema_decay": 0.9}
    folder = run(drawn_data, tmp_path / "run", **changes)
    before = first_weights(tiny(**changes))
    model = CarClassifier(tiny(**changes), 3)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for module_name, module in model.named_modules():
        own = {f"{module_name}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if own and own <= frozen:  # the statistics of its batch norms
            frozen |= {f"{module_name}.{name}" for name, _ in module.named_buffers(recurse=False)}
    assert any(name.endswith("running_mean") for name in frozen)
    for weights in ("model", "averaged"):
        changed = moved(before, last(folder)[weights])
        assert not changed & frozen
        assert changed | frozen | {"mean", "std"} == set(before)


def test_two_batches_to_a_step_are_one_of_twice_the_size(
    drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batch norm looks at each batch by itself. Without it the gradients add up to the same.
    monkeypatch.setattr(nn, "BatchNorm1d", nn.LayerNorm)
    changes = {"backbone": "test_vit", "optimizer": "sgd", "lr": 0.1}
    one = run(drawn_data, tmp_path / "one", batch_size=16, **changes)
    two = run(drawn_data, tmp_path / "two", batch_size=8, accumulate=2, **changes)
    before, after, other = first_weights(tiny(**changes)), last(one)["model"], last(two)["model"]
    assert len(moved(before, after)) >= len(before) - 2
    for key, tensor in after.items():
        assert torch.allclose(tensor, other[key], atol=1e-5), key
    assert last(two)["progress"]["updates"] == STEPS
    assert last(two)["progress"] | {"seconds": 0} == pytest.approx(
        last(one)["progress"] | {"seconds": 0}
    )
    assert two.read_metrics()[0]["train_loss"] == pytest.approx(one.read_metrics()[0]["train_loss"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_are_clipped(drawn_data: Path, tmp_path: Path, precision: str) -> None:
    changes = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "lr": 0.5,
        "weight_decay": 0.0,
        "batch_size": 54,
        "clip_norm": 0.01,
        "precision": precision,
    }
    folder = run(drawn_data, tmp_path / "run", **changes)
    before, after = first_weights(tiny()), last(folder)["model"]
    trained = dict(CarClassifier(tiny(), 3).named_parameters())
    step = torch.cat([(after[key] - before[key]).flatten() for key in trained])
    assert float(step.norm()) == pytest.approx(0.5 * 0.01, rel=0.02)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
def test_clipping_a_scaled_loss(drawn_data: Path, tmp_path: Path, optimizer: str) -> None:
    changes = {"optimizer": optimizer, "clip_norm": 1.0, "precision": "fp16", "lr": 1e-3}
    folder = run(drawn_data, tmp_path / "run", **changes)
    assert moved(first_weights(tiny()), last(folder)["model"])


def test_scale_of_the_loss_survives_a_resume(drawn_data: Path, tmp_path: Path) -> None:
    changes = {"precision": "fp16", "epochs": 2, "lr": 1e-3}
    whole = run(drawn_data, tmp_path / "whole", **changes)
    folder = run(drawn_data, tmp_path / "run", stop_after=1, **changes)
    scaler = last(folder)["precision"]
    assert scaler["_growth_tracker"] == STEPS  # steps since the scale was changed
    assert scaler["scale"] > 1
    run(drawn_data, tmp_path / "run", resume=True, **changes)
    assert last(folder)["precision"]["_growth_tracker"] == 2 * STEPS
    for key in ("model", "optimizer", "precision"):
        assert same(last(folder)[key], last(whole)[key]), key


# --- the loss ----------------------------------------------------------------------------------


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    targets = np.repeat([0, 1, 2], [70, 25, 5])
    objective = Objective(tiny(class_weights="balanced"), 3, targets)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    logits, pixels = torch.randn(8, 3), torch.zeros(8, 3, 32, 32)
    right = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2])
    each = -logits.log_softmax(dim=1).numpy()[range(8), right]
    expected = (weights[right] * each).sum() / weights[right].sum()
    assert float(objective(logits, right, pixels)) == pytest.approx(expected, rel=1e-5)
    plain = Objective(tiny(), 3, targets)
    assert float(plain(logits, right, pixels)) == pytest.approx(each.mean(), rel=1e-5)


def test_balanced_sampling_is_what_the_recipe_says() -> None:
    targets = np.array([0] * 80 + [1] * 10 + [2] * 10)
    shares = {}
    for sampling in ("balanced", "uniform"):
        recipe = tiny(sampling=sampling)
        task = ClassifierTask(recipe, make_fabric(recipe), ("a", "b", "c"), targets, {})
        drawn = [draw.picture for batch in task.batches for draw in batch]
        shares[sampling] = np.mean(targets[drawn] == 0)
    assert shares["uniform"] == pytest.approx(0.8, abs=0.05)
    assert shares["balanced"] == pytest.approx(1 / 3, abs=0.15)


# --- when to stop ------------------------------------------------------------------------------


def test_patience_survives_a_resume(drawn_data: Path, tmp_path: Path) -> None:
    # At this rate nothing is learnt: the first epoch is the best.
    changes = {"lr": 1e-12, "epochs": 9, "patience": 3}
    folder = run(drawn_data, tmp_path / "run", stop_after=2, **changes)
    assert len(folder.read_metrics()) == 2
    run(drawn_data, tmp_path / "run", resume=True, **changes)
    assert [line["epoch"] for line in folder.read_metrics()] == [1, 2, 3, 4]
    assert last(folder)["progress"]["best_epoch"] == 1
    assert load_checkpoint(folder.path).epoch == 1
    before = folder.metrics.read_text()
    run(drawn_data, tmp_path / "run", resume=True, **changes)  # and nothing more is done
    assert folder.metrics.read_text() == before


def test_the_last_epoch_is_kept_where_the_recipe_says_so(drawn_data: Path, tmp_path: Path) -> None:
    # At this rate nothing is learnt: the first epoch is the best.
    changes = {"lr": 1e-12, "epochs": 3}
    assert load_checkpoint(run(drawn_data, tmp_path / "best", **changes).path).epoch == 1
    folder = run(drawn_data, tmp_path / "last", keep="last", **changes)
    found = load_checkpoint(folder.path)
    assert found.epoch == 3
    assert found.val_accuracy == folder.read_metrics()[-1]["val_accuracy"]
    assert "last: " in (folder.path / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ["patience", "soup"])
def test_the_last_epoch_goes_with_no_choice_among_epochs(key: str) -> None:
    with pytest.raises(RecipeError, match=f"{key}: needs keep = 'best'"):
        load_recipe("lite0", [f"{key}=3", "keep=last"])


# --- backbones ---------------------------------------------------------------------------------


@register_model
def tiny_swin(pretrained: bool = False, **options: Any) -> Any:
    """A Swin transformer of four narrow blocks: timm has none that small."""
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
    return _create_swin_transformer(
        "swin_tiny_patch4_window7_224", pretrained, **{**small, **options}
    )


@pytest.mark.parametrize(
    ("backbone", "sizes", "side", "feature_map"),
    [("test_vit", (48, 64), 80, (64, 5, 5)), ("tiny_swin", (64, 96), 128, (64, 4, 4))],
)
def test_transformers(
    drawn_data: Path,
    tmp_path: Path,
    backbone: str,
    sizes: tuple[int, ...],
    side: int,
    feature_map: tuple[int, ...],
) -> None:
    changes = {"backbone": backbone, "sizes": sizes, "eval_size": side, "epochs": 2}
    folder = run(drawn_data, tmp_path / "run", batch_size=27, **changes)
    assert moved(first_weights(tiny(**changes)), last(folder)["model"])
    model = load_checkpoint(folder.path).model
    pictures = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    outputs = answers(model, side, pictures)
    assert outputs["feature_map"].shape == (3, *feature_map)
    with torch.inference_mode():
        expected = model.outputs(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    for name, tensor in expected._asdict().items():
        assert np.allclose(outputs[name], tensor.numpy(), atol=1e-3), name
    # Where the map lies: pooled over its places, it is the embedding (of Swin; ViT takes a token).
    if backbone != "test_vit":
        pooled = outputs["feature_map"].mean(axis=(2, 3))
        assert np.allclose(pooled, outputs["embedding"], atol=1e-3)


def answers(model: CarClassifier, side: int, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """What the exported file says of pictures (N, S, S, 3)."""
    session = onnxruntime.InferenceSession(to_onnx(model, side).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pictures}), strict=True))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backbone": "test_vit", "sizes": (64, 50)}, "'test_vit' cannot be used at 50 pixels"),
        ({"backbone": "test_vit", "try_sizes": (72,)}, "'test_vit' cannot be used at 72 pixels"),
        ({"backbone": "ghostnet_050", "drop_path": 0.1}, "'ghostnet_050' has no stochastic depth"),
        ({"freeze_stages": 99}, "freeze_stages = 99"),
    ],
)
def test_backbone_that_cannot_do_what_is_asked(
    drawn_data: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError, match=named):
        run(drawn_data, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


# --- at test -----------------------------------------------------------------------------------


def test_mirror_images_are_answered_alike() -> None:
    model = CarClassifier(tiny(test_flip=True), 3).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), np.uint8)
    mirrored = np.ascontiguousarray(pictures[:, :, ::-1])
    one, other = answers(model, 48, pictures)["logits"], answers(model, 48, mirrored)["logits"]
    assert np.allclose(one, other, atol=1e-5)
    with torch.inference_mode():
        assert np.allclose(one, model(torch.from_numpy(pictures).permute(0, 3, 1, 2)), atol=1e-4)
    plain = CarClassifier(tiny(), 3).eval()
    plain.load_state_dict(model.state_dict())
    each = [answers(plain, 48, shown)["logits"] for shown in (pictures, mirrored)]
    assert not np.allclose(*each, atol=1e-4)
    assert np.allclose(one, np.mean(each, axis=0), atol=1e-4)


# --- compiled ----------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_model_trains(carspotter: Carspotter, drawn_data: Path, tmp_path: Path) -> None:
    # Of the tiny backbones the one with the fewest kinds of layers: each is compiled on its own.
    changes = {"backbone": "test_vit", "ema_decay": 0.9}
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny(compile=True, **changes).to_toml())
    done = carspotter(
        *("train", recipe, "--data", drawn_data, "--out", tmp_path / "run"),
        env={
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / "inductor").rglob("*.so")), "nothing was compiled"
    found = RunFolder(tmp_path / "run")
    plain = run(drawn_data, tmp_path / "plain", **changes)
    for line, expected in zip(found.read_metrics(), plain.read_metrics(), strict=True):
        assert line["train_loss"] == pytest.approx(expected["train_loss"], rel=0.05)
    assert last(found)["model"].keys() == last(plain)["model"].keys()

"""Training that goes on from a trained classifier: a model file, or another recipe's run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import CLASSES, Carspotter
from training import TINY, Stopped, last, run, same, tiny

from carspotter.errors import ModelFileError, RecipeError, UsageError
from carspotter.export import export_run
from carspotter.export.half import weights_in_half
from carspotter.export.onnx_file import sealed_with
from carspotter.loading import load
from carspotter.train import Recipe, RunFolder, checkpoint, load_checkpoint
from carspotter.train.checkpoint import recognise
from carspotter.train.model import CarClassifier
from carspotter.train.model_weights import fill_from_file, read_weights

# From Python 3.12 on, forking a loader's worker warns wherever another thread runs.
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

STILL: dict[str, Any] = {"lr": 1e-12, "weight_decay": 0.0}
"""A run that changes nothing but the statistics of the norms."""


@pytest.fixture(scope="module")
def trained(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(drawn_data, tmp_path_factory.mktemp("start") / "run", epochs=6, batch_size=8)


@pytest.fixture(scope="module")
def model_file(trained: RunFolder, drawn_data: Path) -> Path:
    out = trained.path.parent / "model.onnx"
    export_run(trained.path, out, data_root=drawn_data)
    return out


def pictures(seed: int, count: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 48, 48, 3), dtype=np.uint8)


def batches() -> Iterator[torch.Tensor]:
    for seed in (1, 2):
        yield torch.from_numpy(pictures(seed)).permute(0, 3, 1, 2)


def filled(file: Path, classes: tuple[str, ...] = CLASSES, **changes: Any) -> CarClassifier:
    torch.manual_seed(3)
    model = CarClassifier(tiny(**changes), len(classes))
    fill_from_file(model, read_weights(str(file)), classes, batches)
    return model.eval()


def same_but_for_a_factor(logits: np.ndarray, model: CarClassifier) -> None:
    """The file scales the logits of each picture by how familiar it is; the classifier does not."""
    found = recognise(model, pictures(4))
    factors = (logits * found).sum(axis=1, keepdims=True) / (found**2).sum(axis=1, keepdims=True)
    assert (factors > 0).all()
    np.testing.assert_allclose(logits / factors, found, rtol=2e-3, atol=2e-3)


# --- a model file --------------------------------------------------------------------------------


def test_answers_as_the_file_does(model_file: Path) -> None:
    same_but_for_a_factor(load(model_file).logits(pictures(4)), filled(model_file))


def test_norms_have_the_statistics_of_the_pictures(model_file: Path) -> None:
    model = filled(model_file)
    before = recognise(model, pictures(1))
    # As in training: by the batch's own statistics. With those of other pictures it is far off.
    model.train()
    with torch.no_grad():
        both = torch.cat(list(batches()))
        in_training = model(both)[:8].numpy()
    np.testing.assert_allclose(in_training, before, atol=0.02 * np.ptp(before))


def test_weights_in_16_bits(model_file: Path, tmp_path: Path) -> None:
    model = onnx.load(model_file)
    card = {entry.key: entry.value for entry in model.metadata_props}["carspotter.card"]
    halved = tmp_path / "half.onnx"
    halved.write_bytes(sealed_with(weights_in_half(model), card))
    assert halved.stat().st_size < model_file.stat().st_size
    same_but_for_a_factor(load(halved).logits(pictures(4)), filled(halved))


def test_other_classes_have_a_head_of_their_own(model_file: Path) -> None:
    others = ("White Whale Van 1999", *CLASSES)
    model = filled(model_file, others)
    torch.manual_seed(3)
    fresh = CarClassifier(tiny(), len(others))
    assert same(model.head[2].state_dict(), fresh.head[2].state_dict())
    known = filled(model_file)
    assert same(model.backbone.state_dict(), known.backbone.state_dict())
    assert not same(model.backbone.state_dict(), fresh.backbone.state_dict())


def test_training_begins_where_the_file_stands(
    drawn_data: Path, tmp_path: Path, model_file: Path, trained: RunFolder
) -> None:
    best = max(line["val_accuracy"] for line in trained.read_metrics())
    assert best > 0.6  # of three classes: the run has learnt something
    weights = f"model:{model_file}"
    folder = run(drawn_data, tmp_path / "run", weights=weights, freeze_stages=1, **STILL)
    without = run(drawn_data, tmp_path / "without", freeze_stages=1, **STILL)
    found = folder.read_metrics()[0]["val_accuracy"]
    assert found >= best - 0.15
    assert found > without.read_metrics()[0]["val_accuracy"]
    assert load_checkpoint(folder.path).recipe.weights == weights


def test_killed_and_resumed(drawn_data: Path, tmp_path: Path, model_file: Path) -> None:
    changes = {"weights": f"model:{model_file}", "epochs": 2}
    whole = run(drawn_data, tmp_path / "whole", **changes)
    cut = run(drawn_data, tmp_path / "cut", stop_after=1, **changes)
    run(drawn_data, cut.path, resume=True, **changes)
    assert same(last(cut)["model"], last(whole)["model"])


def test_file_of_another_backbone(drawn_data: Path, tmp_path: Path, model_file: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.onnx is not of this backbone"):
        run(drawn_data, tmp_path / "run", weights=f"model:{model_file}", backbone="test_resnet")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["gone.onnx", "bad.onnx"])
def test_file_that_is_none(drawn_data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.onnx").write_text("no model")
    with pytest.raises(ModelFileError, match=name):
        run(drawn_data, tmp_path / "run", weights=f"model:{tmp_path / name}")
    assert not (tmp_path / "run").exists()


def test_shipped_model_by_its_name() -> None:
    found = read_weights("stanford-cars-lite2")
    assert len(found.class_names) == 196
    assert found.tensors["model.backbone.conv_stem.weight"].shape == (32, 3, 3, 3)


# --- another recipe ------------------------------------------------------------------------------


def first_recipe(file: Path, **changes: Any) -> Path:
    file.write_text(tiny(epochs=2, seed=5, **changes).to_toml())
    return file


def test_a_recipe_is_trained_first_and_gone_on_from(drawn_data: Path, tmp_path: Path) -> None:
    recipe = first_recipe(tmp_path / "first.toml", split_seed=9, val_fraction=0.5)
    folder = run(drawn_data, tmp_path / "run", weights=f"recipe:{recipe}", **STILL)
    assert [line["epoch"] for line in folder.start.read_metrics()] == [1, 2]
    assert folder.start.read_split() == folder.read_split()
    before = checkpoint.load(folder.start.best)["model"]
    after = load_checkpoint(folder.path).model
    for name, parameter in after.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], msg=name)


def test_killed_in_the_first_recipe(drawn_data: Path, tmp_path: Path) -> None:
    changes = {"weights": f"recipe:{first_recipe(tmp_path / 'first.toml')}"}
    whole = run(drawn_data, tmp_path / "whole", **changes)
    cut = RunFolder(tmp_path / "cut")
    run(drawn_data, cut.start.path, epochs=2, seed=5, stop_after=1)  # what a kill leaves
    with pytest.raises(UsageError, match="--resume"):
        run(drawn_data, cut.path, **changes)
    run(drawn_data, cut.path, resume=True, **changes)
    assert same(last(cut)["model"], last(whole)["model"])


def test_killed_between_the_first_result_and_the_state_of_the_run(
    drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*of_metrics: object) -> None:
        raise Stopped

    cut = RunFolder(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_metrics", killed)
        run(drawn_data, cut.start.path, epochs=2, seed=5)
    assert cut.start.best.is_file()
    first = first_recipe(tmp_path / "first.toml")
    run(drawn_data, cut.path, resume=True, weights=f"recipe:{first}")
    assert [line["epoch"] for line in cut.start.read_metrics()] == [1, 2]


def test_a_teacher_may_have_one_before_it(drawn_data: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.toml"
    first = first_recipe(tmp_path / "first.toml")
    teacher.write_text(tiny(weights=f"recipe:{first}").to_toml())
    cut = RunFolder(tmp_path / "run")
    place = cut.teacher(1, "teacher")
    run(drawn_data, place.start.path, epochs=2, seed=5, stop_after=1)  # what a kill leaves
    changes = {"teachers": (str(teacher),), "distill_weight": 0.5}
    run(drawn_data, cut.path, resume=True, **changes)
    assert [line["epoch"] for line in place.start.read_metrics()] == [1, 2]
    assert len(place.read_metrics()) == len(cut.read_metrics()) == 1


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ({"backbone": "test_resnet"}, "trains test_resnet, and this recipe"),
        ({"teachers": ("lite2",)}, "has runs before it itself"),
        ({"weights": "recipe:lite2"}, "has runs before it itself"),
    ],
)
def test_first_recipes_that_do_not_fit(
    drawn_data: Path, tmp_path: Path, first: dict[str, Any], told: str
) -> None:
    recipe = first_recipe(tmp_path / "first.toml", **first)
    with pytest.raises(RecipeError, match=told):
        run(drawn_data, tmp_path / "run", weights=f"recipe:{recipe}")
    assert not (tmp_path / "run").exists()


# --- who cannot go on from one -------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["model:stanford-cars-lite2", "recipe:lite2"])
def test_a_localiser_cannot(drawn_data: Path, tmp_path: Path, weights: str) -> None:
    from carspotter.train.weights import pretrained_backbone

    with pytest.raises(RecipeError, match="for a classifier also"):
        pretrained_backbone(TINY, weights, 0.0)


def test_a_study_does_not_train_it_for_each_trial(
    carspotter: Carspotter, drawn_data: Path, tmp_path: Path
) -> None:
    recipe: Recipe = tiny(weights="recipe:lite2")
    file = tmp_path / "tiny.toml"
    file.write_text(recipe.to_toml())
    where = ("--data", drawn_data, "--out", tmp_path / "study", "--trials", 1)
    done = carspotter("tune", file, *where)
    assert done.returncode == 2
    assert "weights=model:FILE" in done.stderr
    assert not (tmp_path / "study").exists()

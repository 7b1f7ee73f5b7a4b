"""What a run does after its last epoch: averaging of epochs, and the best size at test."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES
from training import keep_epochs_in, run, run_recipe, same, tiny

from carspotter.data import open_data_set
from carspotter.errors import ModelFileError, RecipeError
from carspotter.evaluate import predict
from carspotter.export import export_run
from carspotter.train import RunFolder, load_checkpoint
from carspotter.train.checkpoint import Checkpoint, load, save_checkpoint
from carspotter.train.model import CarClassifier
from carspotter.train.soup import best_size, greedy_soup

# From Python 3.12 on, forking a loader's worker warns wherever another thread runs.
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def checkpoint_of(
    file: Path, bias: float, accuracy: float, classes: tuple[str, ...] = CLASSES, **changes: Any
) -> Path:
    """A checkpoint that is told from others by the bias of its head, and by all other weights."""
    torch.manual_seed(int(1000 * accuracy))
    model = CarClassifier(tiny(**changes), len(classes)).eval()
    with torch.no_grad():
        model.head[2].bias.fill_(bias)
    save_checkpoint(file, Checkpoint(model, tiny(**changes), classes, {}, 1, accuracy))
    return file


def nearness(target: float) -> Any:
    """A validation that likes a certain bias."""
    return lambda model, size: 1 - abs(model.head[2].bias[0].item() - target)


def mean_of(paths: list[Path]) -> dict[str, np.ndarray]:
    states = [load(path)["model"] for path in paths]
    return {key: np.mean([s[key].numpy() for s in states], axis=0) for key in states[0]}


def is_mean(state: Mapping[str, torch.Tensor], paths: list[Path]) -> bool:
    expected = mean_of(paths)
    assert state.keys() == expected.keys()
    return all(np.allclose(state[key].numpy(), expected[key], atol=1e-6) for key in expected)


# --- averaging ---------------------------------------------------------------------------------


def test_soup_takes_what_helps_and_nothing_else(tmp_path: Path) -> None:
    # By accuracy: 1.0 is alone 0.2 off; with 1.4 it hits the target of 1.2; 9.0 spoils it; a
    # second 1.2 neither helps nor harms, and is taken.
    paths = {
        bias: checkpoint_of(tmp_path / f"{bias}.ckpt", bias, accuracy)
        for bias, accuracy in ((9.0, 0.7), (1.0, 0.9), (1.2, 0.6), (1.4, 0.8))
    }
    said: list[str] = []
    found = greedy_soup(list(paths.values()), nearness(1.2), said.append)
    assert ["kept" in line for line in said] == [False, True, False, True]
    assert ["left out" in line for line in said] == [False, False, True, False]
    for line, bias in zip(said, ("1.0", "1.4", "9.0", "1.2"), strict=True):
        assert f"{bias}.ckpt" in line
    assert found.val_accuracy == pytest.approx(1)
    assert is_mean(found.model.state_dict(), [paths[1.0], paths[1.4], paths[1.2]])


@pytest.mark.parametrize("seed", range(5))
def test_soup_is_never_worse_than_the_best_alone(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, biases = rng.uniform(), rng.uniform(size=4)
    alone = [1 - abs(bias - target) for bias in biases]
    paths = [
        checkpoint_of(tmp_path / f"{bias:.6f}.ckpt", bias, float(accuracy))
        for bias, accuracy in zip(biases, alone, strict=True)
    ]
    said: list[str] = []
    found = greedy_soup(paths, nearness(target), said.append)
    assert found.val_accuracy >= max(alone) - 1e-6
    assert found.val_accuracy == pytest.approx(nearness(target)(found.model, 48), abs=1e-6)
    left_out = {path for path in paths for line in said if path.name in line and "left" in line}
    assert is_mean(found.model.state_dict(), [path for path in paths if path not in left_out])


def test_soup_of_one(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "one.ckpt", 1.0, 0.5)
    found = greedy_soup([path], nearness(0.75), lambda text: None)
    assert same(dict(found.model.state_dict()), load(path)["model"])
    assert found.val_accuracy == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"backbone": "test_resnet"}, "backbones"),
        ({"eval_size": 64}, "sizes at test"),
        ({"classes": CLASSES[::-1]}, "lists of classes"),
    ],
)
def test_soup_of_what_does_not_mix(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    one = checkpoint_of(tmp_path / "one.ckpt", 1.0, 0.6)
    other = checkpoint_of(tmp_path / "other.ckpt", 1.0, 0.5, **changes)
    with pytest.raises(RecipeError, match=rf"one\.ckpt and .*other\.ckpt have different {what}"):
        greedy_soup([one, other], nearness(1.0), lambda text: None)
    with pytest.raises(ModelFileError, match=r"gone\.ckpt"):
        greedy_soup([one, tmp_path / "gone.ckpt"], nearness(1.0), lambda text: None)


SOUP = {"soup": 3, "epochs": 6, "batch_size": 8, "ema_decay": 0.5}


@pytest.fixture(scope="module")
def cooked(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path]:
    """A run that made a soup, and the folder of what its epochs were."""
    root = tmp_path_factory.mktemp("cooked")
    out, epochs = root / "run", root / "epochs"
    folder = run_recipe(tiny(**SOUP), drawn_data, out, watch=keep_epochs_in(epochs, out))
    return folder, epochs


def test_soup_is_the_mean_of_the_epochs_that_the_log_names(cooked: tuple[RunFolder, Path]) -> None:
    folder, epochs = cooked
    assert folder.epochs() == []
    log = folder.path.joinpath("log.txt").read_text()
    said = re.findall(r"soup: (?:with )?\S*(epoch-\d+)\S* .*", log)
    left_out = re.findall(r"soup: (?:with )?\S*(epoch-\d+)\S* .*left out", log)
    lines = folder.read_metrics()
    best = sorted(lines, key=lambda line: -line["val_accuracy"])[:3]
    assert sorted(said) == sorted(f"epoch-{line['epoch']:03}" for line in best)
    taken = [epochs / f"{name}.ckpt" for name in said if name not in left_out]
    found = load(folder.best)
    assert is_mean(found["model"], taken)
    assert found["val_accuracy"] >= max(line["val_accuracy"] for line in lines)
    assert f"kept: {100 * found['val_accuracy']:.2f} % on validation at 48 px" in log


def test_finished_run_stays_as_it_is(cooked: tuple[RunFolder, Path], drawn_data: Path) -> None:
    folder, epochs = cooked
    before = load(folder.best)
    run(drawn_data, folder.path, resume=True, **SOUP)
    assert same(load(folder.best), before)
    # Cut short while its epochs were being removed: the worst one is left alone.
    worst = min(epochs.iterdir(), key=lambda file: load(file)["val_accuracy"])
    assert load(worst)["val_accuracy"] < before["val_accuracy"]
    shutil.copy(worst, folder.epoch(load(worst)["epoch"]))
    run(drawn_data, folder.path, resume=True, **SOUP)
    assert same(load(folder.best), before)
    assert folder.epochs() == []


# --- the size at test --------------------------------------------------------------------------


def test_best_size_is_tried_on_the_validation_part(drawn_data: Path, tmp_path: Path) -> None:
    sizes = (32, 64, 96)
    folder = run(drawn_data, tmp_path / "run", epochs=3, batch_size=8, try_sizes=sizes)
    found = load_checkpoint(folder.path)
    parts = folder.read_split()
    val = [p for p in open_data_set(drawn_data).split("train") if parts[p.key] == "val"]

    def accuracy(size: int) -> float:
        said = predict(val, CLASSES, found.recognise, size=size)
        return float((said.logits.argmax(axis=1) == said.targets).mean())

    by_size = {size: accuracy(size) for size in (48, *sizes)}
    assert len(set(by_size.values())) > 1, "nothing to choose"
    log = folder.path.joinpath("log.txt").read_text()
    for size, value in by_size.items():
        assert f"at {size} px: {100 * value:.2f} % on validation" in log
    best = max(by_size.values())
    assert found.recipe.eval_size == min(s for s, value in by_size.items() if value == best)
    assert found.val_accuracy == pytest.approx(best)

    card, _ = export_run(folder.path, tmp_path / "model.onnx")
    assert card.input_size == found.recipe.eval_size
    assert card.accuracy["validation"]["top1"] == pytest.approx(best)


def test_among_equal_sizes_the_smallest_is_taken(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "one.ckpt", 1.0, 0.5, try_sizes=(64, 32, 96))
    scores = {32: 0.4, 64: 0.7, 96: 0.7}
    found = best_size(load_checkpoint(path), lambda model, size: scores[size], lambda text: None)
    assert (found.recipe.eval_size, found.val_accuracy) == (64, 0.7)
    worse = best_size(load_checkpoint(path), lambda model, size: 0.1, lambda text: None)
    assert (worse.recipe.eval_size, worse.val_accuracy) == (48, 0.5)

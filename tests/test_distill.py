"""Learning from teachers: what is learnt, and which teachers are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, Carspotter
from scipy.special import log_softmax, softmax
from training import last, run, same, tiny

from carspotter.data import open_data_set
from carspotter.errors import ModelFileError, RecipeError, UsageError
from carspotter.evaluate import Recogniser, predict
from carspotter.export import export_run
from carspotter.train import RunFolder, checkpoint, load_checkpoint
from carspotter.train.checkpoint import Checkpoint, recognise, save_checkpoint
from carspotter.train.loss import Objective
from carspotter.train.model import CarClassifier
from carspotter.train.teachers import load_teacher

# From Python 3.12 on, forking a loader's worker warns wherever another thread runs.
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def drawn_teacher(file: Path, seed: int, classes: tuple[str, ...] = CLASSES) -> Path:
    """A teacher that has its own opinion of every picture: sharp, and at random."""
    torch.manual_seed(seed)
    model = CarClassifier(tiny(), len(classes)).eval()
    with torch.no_grad():
        model.head[2].weight *= 3000  # a network of random weights tells little apart
    save_checkpoint(file, Checkpoint(model, tiny(), classes, {}, 1, 0.5))
    return file


def opinion(path: Path, pixels: torch.Tensor, temperature: float) -> np.ndarray:
    with torch.inference_mode():
        return softmax(load_checkpoint(path).model(pixels).numpy() / temperature, axis=1)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a student, class numbers, pixels."""
    torch.manual_seed(1)
    return torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), 255 * torch.rand(6, 3, 48, 48)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_is_the_divergence_from_the_teachers_mean(
    tmp_path: Path, batch: Any, share: float, temperature: float
) -> None:
    logits, right, pixels = batch
    teachers = [drawn_teacher(tmp_path / f"{seed}.ckpt", seed) for seed in (2, 3)]
    recipe = tiny(
        teachers=tuple(map(str, teachers)), distill_weight=share, distill_temperature=temperature
    )
    loaded = [load_teacher(path, CLASSES) for path in teachers]
    found = Objective(recipe, 3, np.array([0, 1, 2]), loaded)(logits, right, pixels)

    taught = np.mean([opinion(path, pixels, temperature) for path in teachers], axis=0)
    assert taught.max() > 0.6
    learnt = log_softmax(logits.numpy() / temperature, axis=1)
    divergence = (taught * (np.log(taught) - learnt)).sum(axis=1).mean()
    labels = -log_softmax(logits.numpy(), axis=1)[range(6), right].mean()
    expected = (1 - share) * labels + share * temperature**2 * divergence
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_no_divergence_from_oneself(tmp_path: Path, batch: Any) -> None:
    _, right, pixels = batch
    file = drawn_teacher(tmp_path / "teacher.ckpt", 2)
    recipe = tiny(teachers=(str(file),), distill_weight=1.0)
    with torch.inference_mode():
        same = load_checkpoint(file).model(pixels)
    objective = Objective(recipe, 3, np.array([0, 1, 2]), [load_teacher(file, CLASSES)])
    assert float(objective(same, right, pixels)) == pytest.approx(0, abs=1e-5)
    assert not any(parameter.requires_grad for parameter in objective.parameters())


def test_student_follows_its_teacher(drawn_data: Path, tmp_path: Path) -> None:
    teacher = load_checkpoint(run(drawn_data, tmp_path / "teacher", epochs=6, batch_size=8).path)
    # One that takes each class for the next: what the labels say cannot be what is learnt.
    linear = teacher.model.head[2]
    with torch.no_grad():
        linear.weight.copy_(linear.weight[[2, 0, 1]])
        linear.bias.copy_(linear.bias[[2, 0, 1]])
    save_checkpoint(tmp_path / "turned.ckpt", teacher)
    changes = {"teachers": (str(tmp_path / "turned.ckpt"),), "distill_weight": 1.0}
    folder = run(drawn_data, tmp_path / "run", epochs=8, batch_size=8, **changes)
    model = CarClassifier(tiny(), 3).eval()
    model.load_state_dict(last(folder)["model"])  # best.ckpt is the least obedient one

    pictures = open_data_set(drawn_data).split("test")

    def named(recogniser: Recogniser) -> np.ndarray:
        return predict(pictures, CLASSES, recogniser, size=48).logits.argmax(axis=1)

    right = np.array([CLASSES.index(picture.label) for picture in pictures])
    told, learnt = named(teacher.recognise), named(lambda pixels: recognise(model, pixels))
    assert (told == (right + 1) % 3).mean() >= 0.75
    assert (learnt == told).mean() >= 0.75


def test_teacher_of_other_classes(carspotter: Carspotter, drawn_data: Path, tmp_path: Path) -> None:
    file = drawn_teacher(tmp_path / "teacher.ckpt", 2, (*CLASSES[:2], "White Whale Van 1999"))
    with pytest.raises(RecipeError, match=r"teacher\.ckpt knows 3 classes which are not"):
        run(drawn_data, tmp_path / "run", teachers=(str(file),))
    turned = drawn_teacher(tmp_path / "turned.ckpt", 2, CLASSES[::-1])
    with pytest.raises(RecipeError, match=r"turned\.ckpt knows 3 classes which are not"):
        run(drawn_data, tmp_path / "run", teachers=(str(turned),))
    assert not (tmp_path / "run").exists()


def test_teacher_that_is_not_there(drawn_data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("gone.ckpt", "empty"):
        with pytest.raises(ModelFileError, match=name):
            run(drawn_data, tmp_path / "run", teachers=(str(tmp_path / name),))
    assert not (tmp_path / "run").exists()


def test_teacher_that_is_the_state_of_a_run(drawn_data: Path, tmp_path: Path) -> None:
    folder = run(drawn_data, tmp_path / "teacher")
    with pytest.raises(ModelFileError, match=r"last\.ckpt: no trained model; take .* best\.ckpt"):
        run(drawn_data, tmp_path / "run", teachers=(str(folder.last),))


def test_teachers_are_a_list(carspotter: Carspotter, drawn_data: Path, tmp_path: Path) -> None:
    where = ("--data", drawn_data, "--out", tmp_path / "run")
    done = carspotter("train", "lite0", *where, "--set", "teachers=runs/lite2")
    assert done.returncode == 2
    assert "teachers" in done.stderr
    assert "Traceback" not in done.stderr


# --- teachers that are model files ---------------------------------------------------------------


def test_a_model_file_teaches_what_its_run_does(drawn_data: Path, tmp_path: Path) -> None:
    teacher = run(drawn_data, tmp_path / "teacher", epochs=6, batch_size=8)
    file = tmp_path / "teacher.onnx"
    export_run(teacher.path, file, data_root=drawn_data)
    changes: dict[str, Any] = {"distill_weight": 1.0, "epochs": 2, "optimizer": "sgd"}
    of_run = run(drawn_data, tmp_path / "one", teachers=(str(teacher.path),), **changes)
    of_file = run(drawn_data, tmp_path / "two", teachers=(f"model:{file}",), **changes)
    one, two = (folder.read_metrics()[-1]["train_loss"] for folder in (of_run, of_file))
    assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "test_efficientnet_gn"}, "is not of this backbone"),
        ({"teachers": ("model:nowhere.onnx",)}, "nowhere.onnx"),
    ],
)
def test_model_files_that_cannot_teach(
    drawn_data: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    teacher = run(drawn_data, tmp_path / "teacher")
    file = tmp_path / "teacher.onnx"
    export_run(teacher.path, file, data_root=drawn_data)
    with pytest.raises((RecipeError, ModelFileError), match=said):
        run(drawn_data, tmp_path / "run", **{"teachers": (f"model:{file}",), **changes})
    assert not (tmp_path / "run").exists()


# --- teachers that are recipes -------------------------------------------------------------------


def teacher_recipe(file: Path, **changes: Any) -> Path:
    file.write_text(tiny(epochs=2, seed=5, **changes).to_toml())
    return file


def test_a_recipe_is_trained_first_and_learnt_from(drawn_data: Path, tmp_path: Path) -> None:
    recipe = teacher_recipe(tmp_path / "big.toml", split_seed=9, val_fraction=0.5)
    folder = run(drawn_data, tmp_path / "run", teachers=(str(recipe),), distill_weight=1.0)
    teacher = folder.teacher(1, "big")
    assert [line["epoch"] for line in teacher.read_metrics()] == [1, 2]
    assert load_checkpoint(teacher.path).recipe.seed == 5
    # A teacher that had seen the pictures on which its student is judged would whisper.
    assert teacher.read_split() == folder.read_split()
    before = run(drawn_data, tmp_path / "before", epochs=2, seed=5)
    assert same(checkpoint.load(teacher.best)["model"], checkpoint.load(before.best)["model"])
    of_folder = run(drawn_data, tmp_path / "of", teachers=(str(before.path),), distill_weight=1.0)
    assert same(last(folder)["model"], last(of_folder)["model"])
    without = run(drawn_data, tmp_path / "without")
    assert not same(last(folder)["model"], last(without)["model"])


def test_killed_while_its_teacher_is_trained(drawn_data: Path, tmp_path: Path) -> None:
    recipe = teacher_recipe(tmp_path / "big.toml")
    changes = {"teachers": (str(recipe),), "distill_weight": 0.5}
    undisturbed = run(drawn_data, tmp_path / "whole", **changes)
    cut = RunFolder(tmp_path / "cut")
    place = cut.teacher(1, "big").path
    run(drawn_data, place, epochs=2, seed=5, stop_after=1)  # what a kill leaves
    with pytest.raises(UsageError, match="--resume"):
        run(drawn_data, cut.path, **changes)
    run(drawn_data, cut.path, resume=True, **changes)
    assert same(last(cut)["model"], last(undisturbed)["model"])
    before = place.joinpath("best.ckpt").stat().st_mtime_ns
    run(drawn_data, cut.path, resume=True, **changes)  # the teacher is not touched any more
    assert place.joinpath("best.ckpt").stat().st_mtime_ns == before


def test_teachers_of_teachers_to_be_trained(drawn_data: Path, tmp_path: Path) -> None:
    recipe = teacher_recipe(tmp_path / "big.toml", teachers=("lite2",))
    with pytest.raises(RecipeError, match=r"big\.toml has teachers"):
        run(drawn_data, tmp_path / "run", teachers=(str(recipe),))
    assert not (tmp_path / "run").exists()


def test_teacher_recipe_with_a_fault(drawn_data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("epoch = 3\n")
    with pytest.raises(RecipeError, match=r"bad\.toml"):
        run(drawn_data, tmp_path / "run", teachers=(str(tmp_path / "bad.toml"),))
    assert not (tmp_path / "run").exists()

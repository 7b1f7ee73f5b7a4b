"""Augmentation and batches: random, and yet a function of seed, epoch and picture alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_car, encoded
from PIL import Image
from torch.utils.data import DataLoader

from carspotter.data import Crop, DecodedPictures, Picture, decoded_pictures
from carspotter.train import Recipe
from carspotter.train.augment import BatchMixer, TrainingPictures, augmentation
from carspotter.train.batches import Draw, EpochBatches

# From Python 3.12 on, forking a loader's worker warns wherever another thread runs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

COUNT = 14


def at(picture: int, epoch: int, size: int, place: int | None = None) -> Draw:
    """A draw in an epoch that takes the pictures in their own order, if no place is said."""
    return Draw(picture, epoch, size, picture if place is None else place)


def recipe(**changes: Any) -> Recipe:
    basis: dict[str, Any] = {
        "name": "tiny",
        "backbone": "test_efficientnet",
        "weights": "none",
        "seed": 5,
        "epochs": 4,
        "sizes": (32, 48),
        "eval_size": 48,
        "batch_size": 4,
        "lr": 1e-3,
    }
    return Recipe(**{**basis, **changes})


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> DecodedPictures:
    folder = tmp_path_factory.mktemp("augment")
    pictures = []
    for i in range(COUNT):
        (folder / f"{i}.jpg").write_bytes(encoded(draw_car(i, i)))
        pictures.append(Picture(f"train/{i}.jpg", "train", str(i % 3), folder / f"{i}.jpg"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARSPOTTER_CACHE", str(folder / "cache"))
        return decoded_pictures(pictures, Crop(), 64)


def training_pictures(decoded: DecodedPictures, **changes: Any) -> TrainingPictures:
    return TrainingPictures(decoded, np.arange(COUNT, dtype=np.int64) % 3, recipe(**changes))


# --- pictures ----------------------------------------------------------------------------------


def test_picture_is_the_same_whatever_came_before(decoded: DecodedPictures) -> None:
    pictures = training_pictures(decoded)
    first, target = pictures[at(3, 1, 32)]
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    assert target == 0
    torch.manual_seed(99)
    for other in (at(3, 0, 32), at(8, 1, 48), at(4, 1, 32)):
        pictures[other]
    torch.rand(17)
    again, _ = training_pictures(decoded)[at(3, 1, 32)]
    assert torch.equal(first, again)


def test_picture_differs_by_epoch_seed_and_number(decoded: DecodedPictures) -> None:
    pictures = training_pictures(decoded)
    first, _ = pictures[at(3, 1, 32)]
    assert not torch.equal(first, pictures[at(3, 2, 32)][0])
    assert not torch.equal(first, training_pictures(decoded, seed=6)[at(3, 1, 32)][0])
    assert not torch.equal(first, pictures[at(4, 1, 32)][0])
    # Drawn twice in an epoch, as balanced sampling may, it does not come twice the same.
    assert not torch.equal(first, pictures[at(3, 1, 32, place=9)][0])


def test_targets_are_those_of_the_pictures(decoded: DecodedPictures) -> None:
    pictures = training_pictures(decoded)
    assert len(pictures) == COUNT
    assert [pictures[at(i, 0, 32)][1] for i in range(COUNT)] == [i % 3 for i in range(COUNT)]


def test_no_augmentation_is_a_plain_resize(decoded: DecodedPictures) -> None:
    plain = training_pictures(
        decoded, crop_scale=(1.0, 1.0), crop_aspect=(1.333, 1.334), flip=0, rotation=0, jitter=0
    )
    whole = Image.fromarray(decoded[2])  # 85x64
    expected = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR)).astype(np.int16)
    found = plain[at(2, 0, 32)][0].permute(1, 2, 0).numpy().astype(np.int16)
    assert np.abs(found - expected).mean() < 3
    always = training_pictures(
        decoded, crop_scale=(1.0, 1.0), crop_aspect=(1.333, 1.334), flip=1, rotation=0, jitter=0
    )
    flipped = always[at(2, 0, 32)][0].permute(1, 2, 0).numpy().astype(np.int16)
    assert np.array_equal(flipped, found[:, ::-1])


PLAIN = {
    "crop_scale": (1.0, 1.0),
    "crop_aspect": (1.333, 1.334),
    "flip": 0.0,
    "rotation": 0.0,
    "jitter": 0.0,
}


def drawn(decoded: DecodedPictures, **changes: Any) -> list[torch.Tensor]:
    """All pictures, at 32 pixels, with nothing done to them but what is said."""
    pictures = training_pictures(decoded, **{**PLAIN, **changes})
    found = [pictures[at(i, 0, 32)][0] for i in range(COUNT)]
    assert all(p.shape == (3, 32, 32) and p.dtype == torch.uint8 for p in found)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_augment": "randaugment", "magnitude": 15},
        {"auto_augment": "trivialaugment"},
        {"erasing": 1.0},
        {"rotation": 20.0},
        {"jitter": 0.4},
        {"recolour": 1.0},
        {"crop_scale": (0.3, 0.5)},
        {"loose": 1.0},
        {"poor": 1.0},
    ],
    ids=[
        "randaugment",
        "trivialaugment",
        "erasing",
        "rotation",
        "jitter",
        "recolour",
        "crop",
        "loose",
        "poor",
    ],
)
def test_each_augmentation_changes_pictures(
    decoded: DecodedPictures, changes: dict[str, Any]
) -> None:
    before, after = drawn(decoded), drawn(decoded, **changes)
    changed = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # Two of TrivialAugment's operations, and a few strengths of others, are none.
    assert changed >= COUNT - 4
    assert all(torch.equal(a, b) for a, b in zip(after, drawn(decoded, **changes), strict=True))


def test_magnitude_makes_randaugment_stronger(decoded: DecodedPictures) -> None:
    before = drawn(decoded)

    def change(magnitude: int) -> float:
        after = drawn(decoded, auto_augment="randaugment", magnitude=magnitude)
        pairs = zip(before, after, strict=True)
        return sum(float((a.float() - b.float()).abs().mean()) for a, b in pairs)

    assert change(25) > 1.3 * change(2)


def test_erasing_fills_one_rectangle_with_grey(decoded: DecodedPictures) -> None:
    for before, after in zip(drawn(decoded), drawn(decoded, erasing=1.0), strict=True):
        rows, columns = torch.nonzero((before != after).any(dim=0), as_tuple=True)
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        erased = after[:, top : bottom + 1, left : right + 1]
        assert (erased == 127).all()
        assert 0.01 * 32**2 <= erased[0].numel() <= 0.4 * 32**2


def test_a_loose_view_shows_the_whole_car_smaller() -> None:
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    picture[:, 20:40, 30:50] = 255
    loose = augmentation(recipe(**{**PLAIN, "loose": 1.0}), 64)
    torch.manual_seed(0)
    shares = [float((loose(picture) > 127).float().mean()) for _ in range(40)]
    whole = 20 * 20 / (60 * 80)
    assert max(shares) < 1.1 * whole
    assert min(shares) < 0.6 * whole
    assert min(shares) > 0.3 * whole  # at most 35 % more on each side


def test_a_poor_camera_takes_pictures_in_many_ways() -> None:
    picture = torch.arange(3 * 64 * 64).reshape(3, 64, 64).remainder(251).to(torch.uint8)
    poor = augmentation(recipe(**{**PLAIN, "crop_aspect": (1.0, 1.001), "poor": 1.0}), 64)
    torch.manual_seed(0)
    found = [poor(picture) for _ in range(60)]
    grey = sum(torch.equal(p[0], p[1]) and torch.equal(p[1], p[2]) for p in found)
    dark = sum(float(p.float().mean()) < 0.65 * float(picture.float().mean()) for p in found)
    assert 2 <= grey <= 20
    assert 2 <= dark <= 20
    assert len({p.numpy().tobytes() for p in found}) > 40


def test_share_of_erased_pictures(decoded: DecodedPictures) -> None:
    pictures = training_pictures(decoded, **PLAIN, erasing=0.3)
    before = drawn(decoded)
    erased = sum(
        not torch.equal(before[i], pictures[at(i, epoch, 32)][0])
        for epoch in range(20)
        for i in range(COUNT)
    )
    assert 0.2 <= erased / (20 * COUNT) <= 0.4


def test_workers_change_nothing(decoded: DecodedPictures) -> None:
    def epoch(workers: int, before: int) -> list[tuple[Any, Any]]:
        torch.manual_seed(before)
        batches = EpochBatches(COUNT, recipe())
        batches.start_at(2)
        loader = DataLoader(training_pictures(decoded), batch_sampler=batches, num_workers=workers)
        return list(loader)

    alone, shared = epoch(0, before=1), epoch(2, before=2)
    assert len(alone) == len(shared) == COUNT // 4
    for (pictures, targets), (others, other_targets) in zip(alone, shared, strict=True):
        assert torch.equal(pictures, others)
        assert torch.equal(targets, other_targets)


# --- mixing ------------------------------------------------------------------------------------


def one_colour_batch() -> tuple[Any, Any]:
    """Pictures whose one lit channel is the number of their class."""
    targets = torch.tensor([0, 1, 2, 1, 0, 2])
    lit = torch.nn.functional.one_hot(targets, 3).float()
    return lit[:, :, None, None].expand(-1, -1, 32, 32).contiguous(), targets


@pytest.mark.parametrize(
    "changes", [{"mixup_alpha": 0.0}, {"cutmix_alpha": 0.0}, {}], ids=["cutmix", "mixup", "both"]
)
def test_mixed_targets_are_the_shares_of_the_pictures(changes: dict[str, float]) -> None:
    mixer = BatchMixer(recipe(mix_probability=1.0, **changes), 3)
    pictures, targets = one_colour_batch()
    torch.manual_seed(0)
    partly = 0
    for _ in range(20):
        mixed, soft = mixer(pictures.clone(), targets)
        assert mixed.shape == pictures.shape
        assert soft.shape == (6, 3)
        assert torch.allclose(soft.sum(dim=1), torch.ones(6), atol=1e-6)
        assert (soft >= 0).all()
        assert torch.allclose(mixed.mean(dim=(2, 3)), soft, atol=1e-4)
        partly += bool(((soft > 0.01) & (soft < 0.99)).any())
    assert partly >= 5


def test_no_mixing() -> None:
    pictures, targets = one_colour_batch()
    same, goal = BatchMixer(recipe(mix_probability=0.0), 3)(pictures, targets)
    assert torch.equal(same, pictures)
    assert torch.equal(goal, targets)


def test_share_of_mixed_batches() -> None:
    mixer = BatchMixer(recipe(mix_probability=0.3), 3)
    pictures, targets = one_colour_batch()
    torch.manual_seed(0)
    mixed = sum(mixer(pictures, targets)[1].ndim == 2 for _ in range(400))
    assert 80 <= mixed <= 160


def test_mixing_follows_the_seed() -> None:
    mixer = BatchMixer(recipe(mix_probability=0.5), 3)
    pictures, targets = one_colour_batch()

    def draw(seed: int) -> Any:
        torch.manual_seed(seed)
        return mixer(pictures, targets)[0]

    assert all(torch.equal(draw(seed), draw(seed)) for seed in range(6))
    assert any(not torch.equal(draw(0), draw(seed)) for seed in range(1, 6))

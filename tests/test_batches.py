"""Batches: which pictures come when, for which process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_augment import recipe

from carspotter.errors import DataError
from carspotter.train.batches import Draw, EpochBatches, even_chances, stream_seed


def batches_of(
    epoch: int,
    step: int = 0,
    *,
    count: int = 50,
    rank: int = 0,
    world: int = 1,
    balanced: bool = False,
    **changes: Any,
) -> list[list[Draw]]:
    chances = even_chances(np.arange(count) % 3) if balanced else None
    batches = EpochBatches(count, recipe(**changes), rank, world, chances)
    batches.start_at(epoch, step)
    return list(batches)


def numbers(batches: list[list[Draw]]) -> list[int]:
    return [draw.picture for batch in batches for draw in batch]


def test_epoch_takes_each_picture_at_most_once() -> None:
    batches = batches_of(0)
    assert [len(batch) for batch in batches] == [4] * 12
    assert len(EpochBatches(50, recipe())) == 12
    assert len(set(numbers(batches))) == 48
    assert set(numbers(batches)) <= set(range(50))
    assert numbers(batches) != sorted(numbers(batches))


def test_every_picture_comes_in_some_epoch() -> None:
    assert {n for epoch in range(8) for n in numbers(batches_of(epoch))} == set(range(50))


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = {tuple(numbers(batches_of(epoch, seed=seed))) for epoch in range(3) for seed in (5, 6)}
    assert len(orders) == 6
    assert batches_of(1) == batches_of(1)


def test_batches_say_epoch_and_size() -> None:
    for epoch, size in enumerate((32, 32, 48, 48)):
        assert {(d.epoch, d.size) for b in batches_of(epoch) for d in b} == {(epoch, size)}


def test_epoch_goes_on_where_it_was_left() -> None:
    whole = batches_of(3)
    for step in (0, 1, 5, 11):
        assert batches_of(3, step) == whole[step:]
    assert batches_of(3, 12) == []


def test_next_epoch_starts_at_its_first_batch() -> None:
    batches = EpochBatches(50, recipe())
    batches.start_at(0, 9)
    assert len(list(batches)) == 3
    batches.start_at(1)
    assert list(batches) == batches_of(1)


def test_ranks_share_an_epoch_without_overlap() -> None:
    first, second = (batches_of(2, rank=rank, world=2) for rank in range(2))
    assert len(first) == len(second) == 50 // 8
    assert len(set(numbers(first)) | set(numbers(second))) == 48
    # Together they see what one process with batches of both sees, or one that adds two up.
    together = [a + b for a, b in zip(first, second, strict=True)]
    assert together == batches_of(2, batch_size=8)
    added = batches_of(2, accumulate=2)
    assert [a + b for a, b in zip(added[::2], added[1::2], strict=True)] == together
    assert batches_of(2, 3, rank=1, world=2) == second[3:]


def test_fewer_pictures_than_a_batch() -> None:
    batches = batches_of(0, count=3)
    assert len(batches) == 1
    assert sorted(numbers(batches)) == [0, 1, 2]


def test_steps_of_several_batches() -> None:
    batches = EpochBatches(50, recipe(accumulate=3))
    assert batches.steps == 50 // 12
    assert len(batches) == 3 * batches.steps == len(list(batches))
    whole = batches_of(1, accumulate=3)
    assert batches_of(1, 2, accumulate=3) == whole[6:]


def test_small_data_makes_small_batches_before_it_makes_none() -> None:
    batches = batches_of(0, count=9, accumulate=2, rank=1, world=2)
    assert [len(batch) for batch in batches] == [2, 2]
    with pytest.raises(DataError, match=r"7 training pictures are too few.* at least 8"):
        batches_of(0, count=7, accumulate=2, rank=1, world=2)


def drawn_of_rare_class(sampling: str) -> tuple[float, list[int]]:
    """Share of the draws that are of a class with a tenth of the pictures; and the draws."""
    targets = np.array([0] * 90 + [1] * 10)
    chances = even_chances(targets) if sampling == "balanced" else None
    batches = EpochBatches(len(targets), recipe(), chances=chances)
    draws = []
    for epoch in range(10):
        batches.start_at(epoch)
        draws += numbers(list(batches))
    return float(np.mean(targets[draws])), draws


def test_balanced_sampling_draws_each_class_as_often() -> None:
    share, draws = drawn_of_rare_class("balanced")
    assert share == pytest.approx(0.5, abs=0.05)
    assert set(draws) == set(range(100))  # and within a class each picture
    uniform, _ = drawn_of_rare_class("uniform")
    assert uniform == pytest.approx(0.1, abs=0.01)


def test_balanced_sampling_is_shared_and_goes_on() -> None:
    whole = batches_of(1, balanced=True, batch_size=8)
    first, second = (batches_of(1, balanced=True, rank=r, world=2) for r in range(2))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert batches_of(1, 3, balanced=True, batch_size=8) == whole[3:]
    other = batches_of(2, balanced=True, batch_size=8)
    assert numbers(other) != numbers(whole)


def test_streams_of_random_numbers_have_their_own_seeds() -> None:
    seeds = {stream_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stream_seed(1, 23) != stream_seed(12, 3)

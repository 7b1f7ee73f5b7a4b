"""Which pictures make a batch, in which epoch, for which process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from carspotter.errors import DataError
from carspotter.train.schedule import Schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Draw(NamedTuple):
    """One picture of one epoch, at the size that is trained at then.

    Attributes:
        picture: its number.
        epoch: from 0.
        size: side in pixels.
        place: in the order of the epoch; a picture that is drawn twice differs in it.
    """

    picture: int
    epoch: int
    size: int
    place: int


def stream_seed(*key: int) -> int:
    """A 63-bit seed for the stream of random numbers that `key` names."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class EpochBatches(Sampler[list[Draw]]):
    """Batches of one epoch for one of several processes; what fills no whole step is left out.

    A step takes `accumulate` batches of each process.

    Args:
        count: how many pictures there are.
        recipe: batch size (of one process), accumulation, sizes and seed.
        rank: which process this is.
        world: how many there are.
        chances: (N,) chance of each picture, summing to 1; None: each comes once in an epoch.

    Raises:
        DataError: fewer pictures than one step of two pictures in each batch takes.
    """

    def __init__(
        self,
        count: int,
        recipe: Schedule,
        rank: int = 0,
        world: int = 1,
        chances: NDArray[np.float64] | None = None,
    ) -> None:
        self._count = count
        self._recipe = recipe
        self._parts = recipe.accumulate * world
        self._batch = min(recipe.batch_size, self._count // self._parts)
        if self._batch < 2:
            raise DataError(
                f"{self._count} training pictures are too few: a step of {self._parts} batches "
                f"needs at least {2 * self._parts}"
            )
        self._rank = rank
        self._world = world
        self._chances = chances
        self._epoch = 0
        self._first_step = 0

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Say which epoch comes next, and how many of its steps are done already."""
        self._epoch, self._first_step = epoch, step

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return self._count // (self._batch * self._parts)

    def __len__(self) -> int:
        """Batches that this process takes in an epoch."""
        return self.steps * self._recipe.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, size = self._epoch, self._recipe.size_at(self._epoch)
        order = self._order(epoch)
        for batch in range(self._first_step * self._recipe.accumulate, len(self)):
            start = (batch * self._world + self._rank) * self._batch
            places = range(start, start + self._batch)
            yield [Draw(int(order[place]), epoch, size, place) for place in places]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(stream_seed(self._recipe.seed, 2, epoch))
        if self._chances is None:
            return rng.permutation(self._count)
        return rng.choice(self._count, self._count, p=self._chances)


def even_chances(targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) chance of each picture with which each class is drawn as often as any other."""
    each = 1.0 / np.bincount(targets)[targets]
    chances: NDArray[np.float64] = each / each.sum()
    return chances

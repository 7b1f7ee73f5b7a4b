"""Pairs of pictures that are worth a closer look, by the distance of their hashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from carspotter.audit.alignment import similarities

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME = 0.86
"""Similarity from which on two pictures are taken for the same photo."""

_FARTHEST = 0.285
"""Share of bits in which the hashes of a pair may differ."""

_MOST = 24
"""Pairs that are looked at for each picture and view: the nearest."""

_FLAT = 3.0
"""Standard deviation of grey levels, below which a picture shows nothing to compare."""

_CELLS = 1 << 23
"""Distances that are held at a time."""


def near_pairs(
    thumbnails: NDArray[np.uint8],
    hashes: NDArray[np.uint8],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs of pictures that show the same photo.

    Time grows with the square of the number of pictures: of the hashes, by a matrix product;
    memory is about 1 KB a picture.

    Args:
        thumbnails: (N, 64, 64) grey levels.
        hashes: (N, views, bits / 8) packed, as `scan.hashes` makes them.
        progress: called with the number done and the total.

    Returns:
        (M, 2) places, the lower first and in order, and (M,) similarities, SAME to 1.
    """
    usable = np.flatnonzero(thumbnails.std(axis=(1, 2)) >= _FLAT)
    pairs = usable[_candidates(hashes[usable])]
    found = similarities(thumbnails, pairs, progress)
    same = found >= SAME
    return pairs[same], found[same]


def _candidates(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(M, 2) pairs of which one's whole picture is near any view of the other."""
    count, views, _ = hashes.shape
    if count < 2:
        return np.zeros((0, 2), np.int64)
    whole = _signs(hashes[:, 0])
    bits = whole.shape[1]
    least = bits * (1 - 2 * _FARTHEST)  # of the products; each bit that differs takes two away
    rows = max(1, _CELLS // count)
    found = []
    for view in range(views):
        for start in range(0, count, rows):
            products = _signs(hashes[start : start + rows, view]) @ whole.T
            found.append(_nearest(products, start, least))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def _nearest(products: NDArray[np.float32], start: int, least: float) -> NDArray[np.int64]:
    """The pairs of some rows that are near, at most `_MOST` for each row."""
    own = np.arange(len(products))
    products[own, start + own] = -np.inf  # a picture and its own parts
    rows, columns = np.nonzero(products >= least)
    if len(rows):
        order = np.lexsort((-products[rows, columns], rows))
        rows, columns = rows[order], columns[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        rows, columns = rows[place < _MOST], columns[place < _MOST]
    return np.stack([rows + start, columns], axis=1).astype(np.int64)


def _signs(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bits as -1 and 1: their product counts those that agree less those that differ."""
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1

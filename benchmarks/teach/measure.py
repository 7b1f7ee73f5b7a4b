"""What taught cars are worth, and the constants that put them on the scale of the known ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from benchmarks.teach.material import Looks, Material, draws
from carspotter.decide import softmax
from carspotter.garage import JointScores
from carspotter.likeness import Likeness, Space, likeness_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.garage import Garage

CONSTANTS = ("slope", "offset", "spread", "known_scale", "known_slope")
"""Of `carspotter.likeness.Likeness`, which are fitted."""

_OF_TAUGHT = 3
"""So many of them where the model file does not say where the known cars lie."""


def figures(
    material: Material,
    likeness: Likeness,
    temperature: float,
    shots: int,
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Top-1 on test pictures among known and taught classes, over draws of the taught photos.

    Accuracies are means over pictures; `known_loss` is in points of that.
    """
    test = material.test
    assert test is not None
    known = test.targets < len(material.known)
    before = test.logits.argmax(axis=1) == test.targets
    rows = []
    for garage, _ in draws(material, shots, count, seed):
        logits = joint(garage, likeness, temperature, test)
        found = logits.argmax(axis=1)
        right = found == test.targets
        sure = softmax(logits, temperature).max(axis=1)
        rows.append(
            {
                "taught": float(right[~known].mean()),
                "taught_for_known": float((found[~known] < len(material.known)).mean()),
                "known": float(right[known].mean()),
                "known_for_taught": float((found[known] >= len(material.known)).mean()),
                "all": float(right.mean()),
                "confidence_taught": float(sure[~known].mean()),
                "confidence_known": float(sure[known].mean()),
            }
        )
    means = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
    taught = [row["taught"] for row in rows]
    return {
        "photos": shots,
        "draws": count,
        "pictures_taught": int((~known).sum()),
        "pictures_known": int(known.sum()),
        **means,
        "taught_sd": statistics.stdev(taught) if count > 1 else 0.0,
        "known_before": float(before[known].mean()),
        "known_loss": float(100 * (before[known].mean() - means["known"])),
    }


def joint(
    garage: Garage, likeness: Likeness, temperature: float, looks: Looks
) -> NDArray[np.float32]:
    """Logits (N, known + taught) of pictures."""
    return JointScores(garage, likeness, temperature)(looks.logits, looks.embeddings)


def likenesses(space: Space | None, columns: Sequence[int]) -> dict[str, Likeness]:
    """The ways of comparing that a model file offers, by what it must carry for them.

    Args:
        space: the file's.
        columns: of the model's classes, those that count as known.
    """
    offered: dict[str, Space | None] = {"plain": None}
    if space is not None:
        offered = {"in_space": replace(space, known=None), **offered}
        if space.known is not None:
            offered = {"among_known": replace(space, known=space.known[columns]), **offered}
    return {name: likeness_in(each) for name, each in offered.items()}


def fit(
    material: Material,
    likeness: Likeness,
    temperature: float,
    shots: Sequence[int],
    count: int,
    seed: int,
) -> Likeness:
    """The constants of least negative log-likelihood over known and taught classes.

    On validation pictures of known classes, and those training pictures of left-out classes that a
    draw does not teach. Each class weighs the same: a taught car is as frequent as a known one. The
    test split has no part in it.
    """
    cases = [
        _case(material, likeness, temperature, garage, taken)
        for photos in shots
        for garage, taken in draws(material, photos, count, seed)
    ]
    free = len(CONSTANTS) if likeness.known_cars() is not None else _OF_TAUGHT

    def loss(values: NDArray[np.float64]) -> float:
        tried = _with(likeness, values.tolist())
        return sum(case.loss(tried) for case in cases) / len(cases)

    start = np.array([getattr(likeness, name) for name in CONSTANTS[:free]])
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-4})
    return _with(likeness, found.x.tolist())


def _with(likeness: Likeness, values: Sequence[float]) -> Likeness:
    """The likeness with its first so many constants, in the order of `CONSTANTS`."""
    slope, offset, spread, *of_known = values
    changed = replace(likeness, slope=slope, offset=offset, spread=spread)
    if not of_known:
        return changed
    known_scale, known_slope = of_known
    return replace(changed, known_scale=known_scale, known_slope=known_slope)


@dataclass(frozen=True, eq=False)
class _Case:
    """Of one draw: all that the loss is made of, for N pictures, K known and some taught cars.

    Attributes:
        cosines: (N, taught) to the taught cars.
        lengths: (taught,) of their means.
        known: (N, K) calibrated logits.
        known_cosines: (N, K); 0 where they do not count.
        targets: (N,) the known classes first.
        weights: (N,) their sum is 1.
    """

    cosines: NDArray[np.float64]
    lengths: NDArray[np.float64]
    known: NDArray[np.float64]
    known_cosines: NDArray[np.float64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float64]

    def loss(self, likeness: Likeness) -> float:
        """Mean negative log-likelihood."""
        known = likeness.known_scale * self.known + likeness.known_slope * self.known_cosines
        offsets = likeness.offset + likeness.spread * (self.lengths - 1)
        every = np.concatenate([known, likeness.slope * self.cosines + offsets], axis=1)
        right = every[np.arange(len(every)), self.targets]
        return float(self.weights @ (logsumexp(every, axis=1) - right))


def _case(
    material: Material,
    likeness: Likeness,
    temperature: float,
    garage: Garage,
    taken: Sequence[NDArray[np.bool_]],
) -> _Case:
    looks = material.validation
    for pool, chosen in zip(material.pool, taken, strict=True):
        looks = looks.beside(pool.of(~chosen))
    zero = Likeness(0.0, 0.0, 0.0, likeness.space, known_scale=0.0)
    count = len(material.known)
    # In 64 bits: slopes are taken by differences that 32 would not show.
    cosines = joint(garage, replace(zero, slope=1.0, known_slope=1.0), 1.0, looks).astype(float)
    spreads = joint(garage, replace(zero, spread=1.0), 1.0, looks).astype(float)
    weight = 1 / np.bincount(looks.targets)[looks.targets]
    return _Case(
        cosines=cosines[:, count:],
        lengths=1 + spreads[0, count:],
        known=looks.logits.astype(np.float64) / temperature,
        known_cosines=cosines[:, :count],
        targets=looks.targets,
        weights=weight / weight.sum(),
    )

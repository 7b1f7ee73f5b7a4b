"""What taught cars are worth, and the constants that put them on the scale of the known ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from benchmarks.teach.material import Looks, Material, draws
from carspotter.decide import softmax
from carspotter.garage import TaughtScores
from carspotter.likeness import Likeness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.garage import Garage

CONSTANTS = ("slope", "offset", "spread")
"""Of `carspotter.likeness.Likeness`, which are fitted."""


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
    scores = TaughtScores(garage, likeness, temperature)
    taught = scores(looks.logits, looks.embeddings)
    return np.concatenate([looks.logits, taught], axis=1)


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

    def loss(constants: NDArray[np.float64]) -> float:
        slope, offset, spread = constants
        total = 0.0
        for cosine, length, known, right, number, weight in cases:
            taught = slope * cosine + offset + spread * (length - 1)
            goal = np.where(
                number < 0, right, taught[np.arange(len(number)), np.maximum(number, 0)]
            )
            whole = np.logaddexp(known, logsumexp(taught, axis=1))
            total += float(weight @ (whole - goal))
        return total / len(cases)

    start = np.array([likeness.slope, likeness.offset, likeness.spread])
    slope, offset, spread = minimize(loss, start, method="BFGS", options={"gtol": 1e-4}).x.tolist()
    return Likeness(slope, offset, spread, likeness.space)


def _case(
    material: Material,
    likeness: Likeness,
    temperature: float,
    garage: Garage,
    taken: Sequence[NDArray[np.bool_]],
) -> tuple[NDArray[Any], ...]:
    """Of one draw: all that the loss is made of.

    Cosines (N, cars), lengths (cars,), the log of the known classes' summed exponentials (N,), the
    right known logit (N,), the right taught car (N,), below 0 where it is a known one, and the
    weights (N,).
    """
    looks = material.validation
    for pool, chosen in zip(material.pool, taken, strict=True):
        looks = looks.beside(pool.of(~chosen))
    zero = Likeness(0.0, 0.0, 0.0, likeness.space)
    cosine = joint(garage, replace(zero, slope=1.0), 1.0, looks)[:, len(material.known) :]
    length = 1 + joint(garage, replace(zero, spread=1.0), 1.0, looks)[0, len(material.known) :]
    scaled = looks.logits.astype(np.float64) / temperature
    number = looks.targets - len(material.known)
    right = scaled[np.arange(len(number)), np.minimum(looks.targets, len(material.known) - 1)]
    weight = 1 / np.bincount(looks.targets)[looks.targets]
    return cosine, length, logsumexp(scaled, axis=1), right, number, weight / weight.sum()

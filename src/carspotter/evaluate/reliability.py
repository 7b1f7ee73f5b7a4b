"""Whether a confidence means what it says, and what is gained by answering less often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """Pictures of about the same confidence.

    Attributes:
        low: lower end of the bin, not in it save in the first.
        high: upper end, in it.
        pictures: how many.
        confidence: their mean; None for an empty bin.
        accuracy: share of them that are right; None for an empty bin.
    """

    low: float
    high: float
    pictures: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well probabilities are calibrated.

    Attributes:
        ece: expected calibration error of the most probable class, in `BINS` equal bins
            (arXiv:1706.04599), 0 to 1.
        brier: mean over pictures of the squared distance between the probabilities and the truth
            as a vector of zeros and a one (Brier 1950), 0 to 2.
        nll: mean of -log p(right class), in nats.
        bins: the reliability diagram.
    """

    ece: float
    brier: float
    nll: float
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def reliability(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], bins: int = BINS
) -> Reliability:
    """Measure the calibration of (N, classes) probabilities against (N,) class numbers."""
    confidence = np.minimum(probabilities.max(axis=1), 1.0)
    right = probabilities.argmax(axis=1) == targets
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sure = np.bincount(place, confidence, bins) / np.maximum(count, 1)
    accuracy = np.bincount(place, right, bins) / np.maximum(count, 1)
    of_right = probabilities[np.arange(len(targets)), targets]
    return Reliability(
        ece=float((count * np.abs(sure - accuracy)).sum() / len(targets)),
        # sum (p - y)^2 = sum p^2 - 2 p_right + 1
        brier=float(((probabilities**2).sum(axis=1) - 2 * of_right + 1).mean()),
        nll=float(-np.log(np.maximum(of_right, np.finfo(np.float64).tiny)).mean()),
        bins=tuple(
            Bin(
                float(edges[k]),
                float(edges[k + 1]),
                int(count[k]),
                float(sure[k]) if count[k] else None,
                float(accuracy[k]) if count[k] else None,
            )
            for k in range(bins)
        ),
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is gained by answering only the surest pictures.

    Attributes:
        coverage: share of pictures answered, rising to 1.
        risk: share of wrong answers among them.
        aurc: area under risk over coverage, 0 to 1 (Geifman and El-Yaniv 2017); less is better.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    aurc: float


def risk_coverage(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Coverage:
    """The risk-coverage curve of (N,) confidences; equal ones are answered together.

    The area is the mean over pictures of the risk at which each one comes to be answered.
    """
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order]
    ends = np.flatnonzero(np.append(np.diff(sure) < 0, True))
    risk = np.cumsum(~right[order])[ends] / (ends + 1)
    together = np.diff(ends, prepend=-1)
    return Coverage(
        coverage=tuple(((ends + 1) / len(sure)).tolist()),
        risk=tuple(risk.tolist()),
        aurc=float((risk * together).sum() / len(sure)),
    )


def thinned(curve: Coverage, points: int = 200) -> Coverage:
    """The same curve by at most about that many points, evenly spread, the last one kept."""
    step = max(1, len(curve.coverage) // points)
    keep = sorted({*range(0, len(curve.coverage), step), len(curve.coverage) - 1})

    def some(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values[k] for k in keep)

    return Coverage(some(curve.coverage), some(curve.risk), curve.aurc)

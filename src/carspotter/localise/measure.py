"""How good boxes are: average precision, precision and recall, by COCO's own evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERLAP = 0.5
"""A box is right that overlaps a true one by as much (intersection over union)."""


_SAME_SCORE = 1e-5
"""Scores that lie no farther apart are those of one box, computed in two ways."""

LEAST_COUNTED = 14.0
"""Vehicles with a shorter side, in pixels of the input, choose no epoch and no threshold: who chose
by them would choose what guesses at specks."""


class Found(NamedTuple):
    """Boxes (n, 4) that were found on one scene, in pixels, and their scores (n,)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a detector does at one threshold.

    Attributes:
        threshold: the least score of a vehicle, 0 to 1.
        precision: share of the boxes that are right.
        recall: share of the vehicles that are found.
    """

    threshold: float
    precision: float
    recall: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def curve(
    truth: Sequence[NDArray[np.float32]],
    found: Sequence[Found],
    ignored: Sequence[NDArray[np.float32]] | None = None,
) -> tuple[float, list[Setting]]:
    """Average precision, and the settings along the curve of precision over recall.

    Args:
        truth: of each scene, (n, 4) boxes of its vehicles.
        found: of each scene, what was found.
        ignored: of each scene, (m, 4) regions in which a box is neither right nor wrong.

    Returns:
        AP at an overlap of one half, and settings at recalls of 0, 1, … 100 %, as far as they are
        reached.
    """
    metric = MeanAveragePrecision(
        iou_thresholds=[OVERLAP], max_detection_thresholds=[1, 10, 100], extended_summary=True
    )
    for number, (boxes, seen) in enumerate(zip(truth, found, strict=True)):
        aside = ignored[number] if ignored is not None else np.zeros((0, 4), np.float32)
        everything = torch.from_numpy(np.concatenate([boxes, aside]).astype(np.float32))
        crowd = torch.tensor([0] * len(boxes) + [1] * len(aside))
        labels = torch.zeros(len(everything), dtype=torch.int64)
        metric.update(
            [
                {
                    "boxes": torch.from_numpy(seen.boxes),
                    "scores": torch.from_numpy(seen.scores),
                    "labels": torch.zeros(len(seen.boxes), dtype=torch.int64),
                }
            ],
            [{"boxes": everything, "labels": labels, "iscrowd": crowd}],
        )
    figures = metric.compute()
    # Indices: overlap, recall, class, area ("all"), most boxes (100).
    precision = figures["precision"][0, :, 0, 0, -1].tolist()
    scores = figures["scores"][0, :, 0, 0, -1].tolist()
    settings = [
        Setting(score, p, recall / 100)
        for recall, (p, score) in enumerate(zip(precision, scores, strict=True))
        if p > 0
    ]
    return float(figures["map_50"]), settings


class Counted(NamedTuple):
    """What counts on one scene: vehicles (n, 4), boxes that were found, and regions that do not."""

    truth: NDArray[np.float32]
    found: Found
    ignored: NDArray[np.float32]


def large_enough(
    boxes: NDArray[np.float32],
    found: Found,
    least: float,
    size: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Counted:
    """Put small vehicles aside: neither they nor small boxes beside them are right or wrong.

    Args:
        boxes: (n, 4) of all vehicles of a scene.
        found: what was found there.
        least: size from which on a vehicle counts, in pixels.
        size: of boxes (n, 4): (n,).
    """
    is_large = size(boxes) >= least
    truth = boxes[is_large]
    kept = size(found.boxes) >= least
    if len(truth) and len(found.boxes):
        overlap = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(truth)).max(dim=1).values
        kept |= overlap.numpy() >= OVERLAP
    return Counted(truth, Found(found.boxes[kept], found.scores[kept]), boxes[~is_large])


def shorter_side(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) the shorter side of boxes (n, 4)."""
    sides: NDArray[np.float32] = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return sides


def best_setting(
    truth: Sequence[NDArray[np.float32]],
    found: Sequence[Found],
    ignored: Sequence[NDArray[np.float32]] | None = None,
) -> Setting:
    """The setting of the best F1, the harmonic mean of precision and recall; see `curve`.

    Its threshold lies halfway to the next lower score: on the score itself, a rounding of the last
    digit would part a file from its checkpoint.
    """
    _, settings = curve(truth, found, ignored)
    if not settings:
        return Setting(1.0, 0.0, 0.0)

    def f1(setting: Setting) -> float:
        total = setting.precision + setting.recall
        return 2 * setting.precision * setting.recall / total if total else 0.0

    best = max(settings, key=f1)
    scores = np.concatenate([one.scores for one in found])
    lower = scores[scores < best.threshold - _SAME_SCORE].max(initial=0.0)
    return replace(best, threshold=(best.threshold + float(lower)) / 2)

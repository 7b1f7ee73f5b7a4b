"""How good boxes are: average precision, precision and recall, by COCO's own evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERLAP = 0.5
"""A box is right that overlaps a true one by as much (intersection over union)."""


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


def best_setting(truth: Sequence[NDArray[np.float32]], found: Sequence[Found]) -> Setting:
    """The setting of the best F1, the harmonic mean of precision and recall."""
    _, settings = curve(truth, found)
    if not settings:
        return Setting(1.0, 0.0, 0.0)

    def f1(setting: Setting) -> float:
        total = setting.precision + setting.recall
        return 2 * setting.precision * setting.recall / total if total else 0.0

    return max(settings, key=f1)

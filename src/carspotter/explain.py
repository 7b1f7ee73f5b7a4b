"""Where on a photo the model saw what speaks for its answer: an exact class activation map.

After "Learning Deep Features for Discriminative Localization" (arXiv:1512.04150). The model pools
its feature map by the mean, and its head is linear: so a class's logit is the mean over places of
the feature map weighted by the class's row of the head, plus a bias. Nothing is estimated, and no
gradient is needed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from carspotter.errors import PhotoError, UsageError
from carspotter.names import CarName
from carspotter.overlay import Tag, draw, scaled
from carspotter.preprocess import Box
from carspotter.results import Answer, Identification, in_percent

if TYPE_CHECKING:
    from numpy.typing import NDArray


def class_number(label: str, classes: Sequence[CarName]) -> int:
    """The number of a class.

    Raises:
        UsageError: there is no such class; the message names one that is nearly so called.
    """
    labels = [name.label for name in classes]
    if label not in labels:
        like = difflib.get_close_matches(label, labels, 1)
        hint = f"; did you mean {like[0]!r}?" if like else ""
        raise UsageError(f"the model has no class {label!r}{hint}")
    return labels.index(label)


def class_map(
    feature_map: NDArray[np.float32], weights: NDArray[np.floating]
) -> NDArray[np.float32]:
    """What each place adds to a class's logit.

    Args:
        feature_map: (D, h, w) of one picture.
        weights: (D,), the class's row of the head.

    Returns:
        (h, w), of any sign; the mean is the class's logit less the head's bias.
    """
    return np.tensordot(weights.astype(np.float32), feature_map.astype(np.float32), axes=1)


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """What speaks for one class on one car.

    Attributes:
        label: the class that is explained.
        box: the car's, in pixels of the upright photo; None where the whole photo was taken.
        region: what the model looked at: the box and, where a detector found it, its margin.
        evidence: (h, w) float32, exact: what each cell of a grid over the region adds to the
            class's logit, of any sign. Its mean is the logit, before the file scales it by how
            familiar the picture is, less the head's bias, which is the same for every photo (in a
            cascade: for all at which as many networks looked).
    """

    label: str
    box: Box | None
    region: Box
    evidence: NDArray[np.float32]

    @property
    def heat(self) -> NDArray[np.float32]:
        """(H, W) float32, 0 to 1, over the region in pixels of the upright photo.

        The evidence as it is usually shown: what speaks against the class counts as zero (ReLU),
        the rest is divided by its largest value and scaled up bilinearly. All zero where nothing
        speaks for the class.
        """
        left, top, right, bottom = self.region
        return self.heat_at(right - left, bottom - top)

    def heat_at(self, width: int, height: int) -> NDArray[np.float32]:
        """The heat over the region at another size: (height, width), 0 to 1."""
        positive = np.maximum(np.nan_to_num(self.evidence), 0)
        positive /= max(float(positive.max()), np.finfo(np.float32).tiny)
        image = Image.fromarray(positive).resize((width, height), Image.Resampling.BILINEAR)
        heat: NDArray[np.float32] = np.clip(np.asarray(image), 0, 1)
        return heat


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A photo's result, and where the model saw it.

    Attributes:
        result: as `identify` gives it; with `error` where the photo could not be used.
        cars: the main car's heat map first, then those of `result.others`, in order; empty where
            the photo could not be used.
        photo: the upright photo in the size of the overlay, RGB.
        size: width and height of the upright photo itself.
    """

    result: Identification
    cars: tuple[HeatMap, ...] = ()
    photo: Image.Image | None = None
    size: tuple[int, int] = (0, 0)

    def overlay(self, *, names: bool = True) -> Image.Image:
        """The photo with each car's heat over what the model looked at, its box and its name.

        Violet is no evidence, yellow the most on that car; colours of two cars do not compare.
        The picture is RGB, its long side 640 to 1600 pixels.

        Args:
            names: False leaves boxes and names out.

        Raises:
            PhotoError: the photo could not be used.
        """
        if self.result.error is not None:
            raise PhotoError(self.result.error.code, self.result.error.message)
        assert self.photo is not None
        scale = self.photo.width / self.size[0], self.photo.height / self.size[1]
        heats = []
        for car in self.cars:
            region = scaled(car.region, scale)
            heats.append((region, car.heat_at(region[2] - region[0], region[3] - region[1])))
        answers = [self.result.answer, *(car.answer for car in self.result.others)]
        tags = [
            Tag(None if car.box is None else scaled(car.box, scale), _lines(answer, car.label))
            for car, answer in zip(self.cars, answers, strict=True)
        ]
        return draw(self.photo, heats, tags if names else [])


def _lines(answer: Answer | None, label: str) -> tuple[str, ...]:
    assert answer is not None
    if answer.level == "unknown":
        name = answer.label
    else:
        name = f"{answer.label}, {in_percent(answer.confidence)}"
    return (name,) if label == answer.label else (name, f"heat: {label}")

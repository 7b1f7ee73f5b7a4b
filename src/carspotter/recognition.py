"""From what a model says of views to results: known cars, taught ones, the level of an answer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from carspotter.decide import Decider
from carspotter.errors import GarageError, UsageError
from carspotter.explain import Explanation, HeatMap, class_map
from carspotter.garage import Garage, JointScores
from carspotter.model_file import ModelFile, Outputs
from carspotter.names import LEVELS
from carspotter.views import Observation, View, Wish, identification, inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from carspotter.photo import Pixels

BATCH = 4
"""So many photos are one piece of work, and so many views the network looks at at once."""


class Drawable(NamedTuple):
    """A photo to be explained: its views, a picture of it to draw on, and its own size."""

    views: list[View]
    picture: Image.Image
    size: tuple[int, int]


class Recognition:
    """Makes results of views. Holds no state that a call changes.

    Args:
        model: looks at them; its card has the thresholds of the levels.
    """

    def __init__(self, model: ModelFile) -> None:
        self._model = model
        self._joint: JointScores | None = None
        card = model.card
        self._thresholds = dict(card.thresholds)
        self._decider = Decider(card.classes, card.temperature, self._thresholds)

    def with_min_confidence(self, least: float) -> Recognition:
        """The same with another least probability of an answer.

        Raises:
            UsageError: it is not from 0 to 1.
        """
        if not 0 <= least <= 1:
            raise UsageError(f"the least confidence must be from 0 to 1, not {least}")
        other = copy.copy(self)
        other._thresholds = dict.fromkeys(LEVELS, least)
        other._decider = self._decider.with_thresholds(other._thresholds)
        return other

    def with_garage(self, garage: Garage | None) -> Recognition:
        """The same with other taught cars, or with none.

        Raises:
            GarageError: they were taught to another model.
        """
        info = self._model.info
        if garage is not None and garage.model.sha256 != info.sha256:
            raise GarageError(
                f"the garage was taught to {garage.model.name} ({garage.model.sha256[:12]}), not "
                f"to {info.name} ({info.sha256[:12]}), whose embeddings are others: "
                "take that --model, or teach the cars again"
            )
        cars = () if garage is None else garage.cars
        other, card = copy.copy(self), self._model.card
        names = (*card.classes, *(car.name for car in cars))
        other._decider = Decider(names, card.temperature, self._thresholds)
        other._joint = None
        if garage is not None and cars:
            other._joint = JointScores(garage, self._model.likeness, card.temperature)
        return other

    @property
    def one_thread(self) -> Recognition:
        """The same with one thread to a run, for runs side by side."""
        other = copy.copy(self)
        other._model = self._model.one_thread
        return other

    def observed(self, photos: Sequence[tuple[str, list[View]]], wish: Wish) -> list[Observation]:
        """The results of photos, by their names and views, with the main cars' embeddings."""
        every = [view for _, views in photos for view in views]
        rows = (
            row
            for batch in inputs(every, BATCH)
            for row in zip(*self._with_taught(batch), strict=True)
        )
        found = []
        for name, views in photos:
            own = [next(rows) for _ in views]
            scores = [logits for logits, _ in own]
            result = identification(name, views, scores, self._decider, wish, self._model.info)
            found.append(Observation(result, own[0][1]))
        return found

    def _with_taught(self, pixels: Pixels) -> Outputs:
        """Outputs whose logits are (N, classes and taught cars): the taught cars' stand last."""
        known = self._model.outputs(pixels)
        return known if self._joint is None else known._replace(logits=self._joint(*known))

    def explained(
        self, photos: Sequence[tuple[str, Drawable]], wanted: int | None, wish: Wish
    ) -> list[Explanation]:
        """Explanations of a class by its number; None: of each car's most probable one."""
        rows: list[tuple[NDArray[np.float32], int, NDArray[np.float32]]] = []
        for batch in inputs([view for _, photo in photos for view in photo.views], BATCH):
            seen = self._model.evidence(batch)
            every = seen.logits
            if self._joint is not None:
                every = self._joint(every, seen.embedding)
            for row, logits, feature_map in zip(every, seen.logits, seen.feature_map, strict=True):
                number = int(logits.argmax()) if wanted is None else wanted
                rows.append((row, number, class_map(feature_map, seen.head[number])))
        each, found = iter(rows), []
        for name, (views, picture, size) in photos:
            own = [next(each) for _ in views]
            scores = [logits for logits, *_ in own]
            result = identification(name, views, scores, self._decider, wish, self._model.info)
            cars = tuple(
                HeatMap(self._model.card.classes[number].label, view.box, view.region, evidence)
                for view, (_, number, evidence) in zip(views, own, strict=True)
            )
            found.append(Explanation(result, cars, picture, size))
        return found

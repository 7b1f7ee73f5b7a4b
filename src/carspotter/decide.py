"""From logits to an answer: calibrated probabilities, and the finest level they support."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from carspotter.names import LEVELS, CarName, Level, group_classes, sum_groups
from carspotter.results import Answer, Candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, classes) of logits (N, classes), each row summing to 1.

    Args:
        logits: any real values.
        temperature: above 1 makes them less sure (temperature scaling, arXiv:1706.04599).
    """
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    total: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return total


class Decider:
    """Turns the logits of one picture into candidates and an answer.

    Args:
        names: the classes, in the order of the logits.
        temperature: of the softmax.
        thresholds: the least calibrated probability at which a level is answered.
    """

    def __init__(
        self, names: Sequence[CarName], temperature: float, thresholds: Mapping[Level, float]
    ) -> None:
        self._names = tuple(names)
        self._temperature = temperature
        self._thresholds = dict(thresholds)
        self._groups = {level: group_classes(names, level)[1] for level in LEVELS}

    def with_thresholds(self, thresholds: Mapping[Level, float]) -> Decider:
        """The same with other thresholds."""
        return Decider(self._names, self._temperature, thresholds)

    def candidates(self, logits: NDArray[np.float32], top_k: int) -> tuple[Candidate, ...]:
        """The `top_k` most probable classes of logits (classes,), best first."""
        probabilities = softmax(logits[None], self._temperature)[0]
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        return tuple(Candidate(self._names[k], float(probabilities[k])) for k in order)

    def answer(self, logits: NDArray[np.float32]) -> Answer:
        """The answer for logits (classes,), at the finest level whose threshold is reached."""
        probabilities = softmax(logits[None], self._temperature)
        if not np.isfinite(probabilities).all():  # of broken logits (NaN): no answer at all
            return Answer("unknown", CarName("unknown"), 0.0)
        best = 0.0
        for level in LEVELS:
            groups = self._groups[level]
            sums = sum_groups(probabilities, groups)[0]
            group = int(sums.argmax())
            best = min(1.0, float(sums[group]))
            first = self._names[int(np.flatnonzero(groups == group)[0])]
            if best >= self._thresholds[level] and first.has(level):
                return Answer(level, _at(first, level), best)
        return Answer("unknown", CarName("unknown"), best)

    def label_set(self, logits: NDArray[np.float32], threshold: float) -> tuple[Candidate, ...]:
        """The classes that are probable enough, of logits (classes,), best first; at least one."""
        found = self.candidates(logits, len(self._names))
        return (found[0], *(one for one in found[1:] if one.confidence >= threshold))

    def unknown(self, logits: NDArray[np.float32]) -> Answer:
        """The answer for logits (classes,) of what is no car."""
        probabilities = softmax(logits[None], self._temperature)
        best = float(np.nan_to_num(sum_groups(probabilities, self._groups["make"]).max()))
        return Answer("unknown", CarName("unknown"), min(1.0, best))


def _at(name: CarName, level: Level) -> CarName:
    if level == "exact":
        return name
    model = name.model if level == "model" else None
    return dataclasses.replace(name, label=name.at(level), model=model, body=None, year=None)

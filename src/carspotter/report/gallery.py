"""The pictures of a report: which ones are shown, small, inside the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carspotter.data import Picture, PictureReader, read_pixels
from carspotter.errors import PhotoError
from carspotter.evaluate.confusion import confusion_matrix, most_confused
from carspotter.evaluate.label_errors import likely_label_errors
from carspotter.pages import data_uri
from carspotter.report.evaluation import Evaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORST = 24
PAIRS = 12
SUSPECTS = 24


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture of a report.

    Attributes:
        source: a `data:` URI.
        heat: the same with its heat map; None where the model has none.
        key: of the picture.
        label: that it has.
        guess: the most probable class.
        confidence: of that class, 0 to 1.
    """

    source: str
    heat: str | None
    key: str
    label: str
    guess: str
    confidence: float


@dataclass(frozen=True, slots=True)
class ShownPair:
    """Two classes that are taken for each other, with pictures of both.

    Attributes:
        names: of the classes.
        mistaken: how many of the first are taken for the second, and the other way.
        mistakes: some of them, the surest first.
        examples: for each class, a picture that is named rightly, where there is one.
    """

    names: tuple[str, str]
    mistaken: tuple[int, int]
    mistakes: tuple[Shown, ...]
    examples: tuple[Shown, ...]


class Gallery:
    """Picks and shrinks the pictures of an evaluation.

    Args:
        found: the evaluation.
    """

    def __init__(self, found: Evaluation) -> None:
        self._found = found
        self._heat = found.subject.heat
        self._reader = PictureReader()
        self._confidence = found.probabilities.max(axis=1)

    def worst(self) -> list[Shown]:
        """The wrong answers that were given most surely."""
        wrong = np.flatnonzero(~self._found.right)
        order = wrong[np.argsort(-self._confidence[wrong], kind="stable")]
        return self._show(order[:WORST], heat=True)

    def pairs(self) -> list[ShownPair]:
        """The most confused pairs of classes."""
        found, names = self._found, self._found.subject.class_names
        truth, guesses = found.found.targets, found.guesses
        matrix = confusion_matrix(guesses, truth, len(names))
        shown = []
        for pair in most_confused(matrix, PAIRS):
            one, other = pair.classes
            mistakes = np.flatnonzero(
                ((truth == one) & (guesses == other)) | ((truth == other) & (guesses == one))
            )
            mistakes = mistakes[np.argsort(-self._confidence[mistakes], kind="stable")]
            examples = [
                rows[np.argmax(self._confidence[rows])]
                for k in pair.classes
                if len(rows := np.flatnonzero((truth == k) & found.right))
            ]
            shown.append(
                ShownPair(
                    (names[one], names[other]),
                    pair.mistaken,
                    tuple(self._show(mistakes[:3])),
                    tuple(self._show(np.array(examples, np.int64))),
                )
            )
        return shown

    def suspects(self) -> list[Shown]:
        """Pictures whose label is likely to be wrong, the likeliest first."""
        found = self._found
        return self._show(likely_label_errors(found.probabilities, found.found.targets)[:SUSPECTS])

    def _show(self, places: NDArray[np.int64], *, heat: bool = False) -> list[Shown]:
        found = []
        for place in places:
            try:
                found.append(self._one(int(place), heat))
            except PhotoError:
                continue  # it was there a minute ago; the report is of those that still are
        return found

    def _one(self, place: int, heat: bool) -> Shown:
        picture: Picture = self._found.found.pictures[place]
        guess = int(self._found.guesses[place])
        pixels = read_pixels(picture, self._reader, self._found.protocol.crop)
        if self._found.protocol.focus is not None:
            pixels = self._found.protocol.focus(pixels)
        with_heat = self._heat(pixels, guess) if heat and self._heat else None
        return Shown(
            source=data_uri(pixels),
            heat=None if with_heat is None else data_uri(with_heat),
            key=picture.key,
            label=picture.label,
            guess=self._found.subject.class_names[guess],
            confidence=float(self._confidence[place]),
        )

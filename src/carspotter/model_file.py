"""A model file in onnxruntime: its card, and what it says of inputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from carspotter.card import CARD_KEY, HEAD_KEY, Card, parse_card, unsealed
from carspotter.errors import ModelFileError
from carspotter.likeness import SPACE_KEY, Likeness, likeness_in, parse_space
from carspotter.results import ModelInfo
from carspotter.session import Session

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

FAMILIARITY_OUTPUT = "familiarity"
"""Of files whose logits are scaled by it; older ones have none."""


class Outputs(NamedTuple):
    """What a model says of N pictures.

    Attributes:
        logits: (N, classes) of the classes that it knows.
        embedding: (N, D).
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]


class Evidence(NamedTuple):
    """What a model says of N pictures, and what its logits are made of.

    Attributes:
        logits: (N, classes).
        embedding: (N, D).
        feature_map: (N, D, h, w).
        head: (classes, D), of a floating type; the same for all pictures.
    """

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    feature_map: NDArray[np.float32]
    head: NDArray[np.floating]


class ModelFile:
    """A classifier's file, opened. Holds no state that a call changes.

    All inputs are (N, S, S, 3) uint8 RGB, as `preprocess.to_input` makes them.

    Args:
        path: the file.
        threads: how many to compute with.
        provider: what computes; see `session.PROVIDERS`.

    Raises:
        ModelFileError: missing, damaged, too new, or not a model file of carspotter.
        UsageError: the provider is not to be had.
    """

    def __init__(self, path: Path, threads: int, provider: str = "cpu") -> None:
        data, sha256 = unsealed(path)
        self._opened = Session(data, path, threads, provider)
        self._metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        if CARD_KEY not in self._metadata:
            raise ModelFileError(f"{path}: has no card; make it by `carspotter export`")
        self.path = path
        self.card: Card = parse_card(self._metadata[CARD_KEY], str(path))
        outputs = _checked_outputs(self._session, self.card, path)
        self.explains = "head" in outputs
        self.has_familiarity = FAMILIARITY_OUTPUT in outputs
        self.info = ModelInfo(self.card.name, self.card.version, sha256)
        space = None
        if SPACE_KEY in self._metadata:
            width, classes = outputs["embedding"][1], len(self.card.classes)
            space = parse_space(self._metadata[SPACE_KEY], width, classes, str(path))
        self.likeness: Likeness = likeness_in(space)

    @property
    def one_thread(self) -> ModelFile:
        """The same with one thread to a run, for runs side by side."""
        other = copy.copy(self)
        other._opened = self._opened.one_thread
        return other

    @property
    def _session(self) -> ort.InferenceSession:
        return self._opened.ort

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """Logits (N, classes)."""
        return cast("NDArray[np.float32]", self._session.run(["logits"], {"pixels": pixels})[0])

    def outputs(self, pixels: Pixels) -> Outputs:
        """Logits and embedding; `logits` gives the first alone."""
        return Outputs(*self._session.run(["logits", "embedding"], {"pixels": pixels}))

    def evidence(self, pixels: Pixels) -> Evidence:
        """All that heat maps are made of; `need_head` says whether the file has it."""
        return Evidence(*self._session.run(list(Evidence._fields), {"pixels": pixels}))

    def familiarity(self, pixels: Pixels) -> NDArray[np.float32]:
        """(N,) how near inputs are to the cars that were trained on, -1 to 1.

        The cosine of the embedding to the nearest class mean; where `has_familiarity`.
        """
        found = self._session.run([FAMILIARITY_OUTPUT], {"pixels": pixels})[0]
        return cast("NDArray[np.float32]", found)

    def need_head(self) -> None:
        """Check that the file carries what an exact heat map needs.

        Raises:
            ModelFileError: it does not.
        """
        if self.explains:
            return
        if HEAD_KEY in self._metadata:
            raise ModelFileError(f"{self.path}: has no exact heat map: {self._metadata[HEAD_KEY]}")
        raise ModelFileError(
            f"{self.path}: lacks the head's weights, of which a heat map is made, as files of "
            "older versions do; make it again by `carspotter export`"
        )


def _checked_outputs(
    session: ort.InferenceSession, card: Card, path: Path
) -> Mapping[str, list[int]]:
    """The shapes of the outputs; refuses a graph that does not fit its card."""
    inputs = {node.name: node.shape for node in session.get_inputs()}
    outputs = {node.name: node.shape for node in session.get_outputs()}
    side, classes = card.input_size, len(card.classes)
    fits = (
        list(inputs) == ["pixels"]
        and inputs["pixels"][1:] == [side, side, 3]
        and {"logits", "embedding", "feature_map"} <= set(outputs)
        and outputs["logits"][1:] == [classes]
    )
    if fits and "head" in outputs:
        fits = outputs["head"] == [classes, outputs["feature_map"][1]]
    if not fits:
        raise ModelFileError(f"{path}: its graph does not fit its card; export it again")
    return outputs

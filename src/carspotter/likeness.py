"""How alike photos are, and what that is worth beside the logits of the classes a model knows.

A taught car has no row in the model's head. Its photos are compared by cosine instead, as in
weight imprinting (arXiv:1712.07136), and the cosine becomes a logit by three constants.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from carspotter.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LIKENESS_KEY = "carspotter.likeness"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Space:
    """What the photos of known cars say of the embedding, and how it is straightened by that.

    The square root of an embedding is centred, and damped along the directions in which photos of
    one and the same car differ most: the within-class covariance, of which the strongest
    directions count and the rest is taken for round.

    Attributes:
        mean: (D,) of the square roots over the known cars.
        directions: (R, D) unit vectors, at right angles to each other.
        damping: (R,) what is taken away along each, 0 to 1.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    damping: NDArray[np.float32]

    def straighten(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (N, D) centred and damped."""
        centred = rooted(embeddings) - self.mean
        found: NDArray[np.float32] = (
            centred - ((centred @ self.directions.T) * self.damping) @ self.directions
        )
        return found


@dataclass(frozen=True, eq=False)
class Likeness:
    """From photos to logits of taught cars: `slope * cosine + offset + evidence * known`.

    `known` is the log of the summed exponentials of the known classes' logits. All are in units of
    calibrated logits, that is, divided by the model's temperature: a softmax over known and taught
    logits is calibrated.

    Attributes:
        slope: of the cosine.
        offset: of a cosine of 0.
        evidence: 0: the known logits count as they are; 1: only their differences do.
        space: in which embeddings are compared; None: the known logits are compared instead, each
            picture's less their mean. Cars that are taken for the same mixture of known ones are
            alike.
    """

    slope: float
    offset: float
    evidence: float
    space: Space | None = None

    def features(
        self, logits: NDArray[np.float32], embeddings: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What is compared: unit vectors (N, F) of known logits (N, K) and embeddings (N, D)."""
        if self.space is None:
            return unit(logits - logits.mean(axis=1, keepdims=True))
        return unit(self.space.straighten(embeddings))

    def logits(
        self,
        known: NDArray[np.float32],
        features: NDArray[np.float32],
        prototypes: NDArray[np.float32],
        temperature: float,
    ) -> NDArray[np.float32]:
        """Logits (N, cars) of taught cars, on the scale of the known ones.

        Args:
            known: (N, K) the model's own logits.
            features: (N, F) unit vectors of the same pictures.
            prototypes: (cars, F) unit vectors of the taught cars.
            temperature: the model's.
        """
        scaled = known.astype(np.float64) / temperature
        most = scaled.max(axis=1, keepdims=True)
        total = most + np.log(np.exp(scaled - most).sum(axis=1, keepdims=True))
        cosine = features @ prototypes.T
        found = self.slope * cosine + self.offset + self.evidence * total
        return (temperature * found).astype(np.float32)

    def to_json(self) -> str:
        """The text that goes into a model file's metadata, under `LIKENESS_KEY`."""
        values: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "slope": self.slope,
            "offset": self.offset,
            "evidence": self.evidence,
        }
        if self.space is not None:
            values |= {
                "mean": _packed(self.space.mean),
                "directions": _packed(self.space.directions),
                "damping": _packed(self.space.damping),
            }
        return json.dumps(values)


PLAIN = Likeness(slope=16.0, offset=0.9, evidence=0.14)
"""For model files that say nothing of likeness."""


def parse_likeness(text: str, width: int, file: str) -> Likeness:
    """Read back what `Likeness.to_json` gave.

    Args:
        text: from the metadata.
        width: of the model's embedding.
        file: the model file, for errors.

    Raises:
        ModelFileError: of a newer format, not complete, or of another width.
    """
    try:
        values = json.loads(text)
        if int(values["format_version"]) > FORMAT_VERSION:
            raise ModelFileError(
                f"{file}: what it says of likeness is of a newer format; pip install -U carspotter"
            )
        space = None
        if "mean" in values:
            damping = _unpacked(values["damping"], (-1,))
            space = Space(
                mean=_unpacked(values["mean"], (width,)),
                directions=_unpacked(values["directions"], (len(damping), width)),
                damping=damping,
            )
        numbers = [float(values[key]) for key in ("slope", "offset", "evidence")]
        if not np.isfinite(numbers).all():
            raise ValueError("a constant is no number")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{file}: what it says of likeness is wrong ({error})") from error
    return Likeness(*numbers, space=space)


def rooted(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed square roots: the few strong features of a picture outweigh the many weak ones less.

    A power transform brings features of few examples nearer to a normal distribution
    (arXiv:2101.06395).
    """
    found: NDArray[np.float32] = np.sign(embeddings) * np.sqrt(np.abs(embeddings))
    return found


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (N, F) of length 1; one of length 0 stays so."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = vectors / np.maximum(length, 1e-12)
    return found.astype(np.float32)


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode("ascii")


def _unpacked(text: str, shape: ArrayLike) -> NDArray[np.float32]:
    flat = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
    if not np.isfinite(flat).all():
        raise ValueError("not all are numbers")
    found: NDArray[np.float32] = flat.reshape(shape)
    return found

"""How alike photos are, and what that is worth beside the logits of the classes a model knows.

A taught car has no row in the model's head. Its photos are compared by cosine instead, as in
weight imprinting (arXiv:1712.07136), and the cosine becomes a logit by three constants.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from carspotter.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPACE_KEY = "carspotter.space"
FORMAT_VERSION = 1

DIRECTIONS = 64
"""So many directions of a space are damped, of an embedding's thousand or so."""

SHRINKAGE = 3.0
"""The round covariance added to that of the pictures, as a multiple of its mean variance."""

_FEW = 32


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
        known: (K, D) where the known cars lie in it, in the order of the model's classes: each row
            points to the mean of a car's pictures, and its largest value is 127; None in files of
            before there was this.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    damping: NDArray[np.float32]
    known: NDArray[np.int8] | None = None

    def straighten(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (N, D) centred and damped."""
        centred = rooted(embeddings) - self.mean
        along = product(centred, self.directions) * self.damping
        return (centred - product(along, self.directions.T)).astype(np.float32)

    def to_json(self) -> str:
        """The text that goes into a model file's metadata, under `SPACE_KEY`."""
        values = {
            "format_version": FORMAT_VERSION,
            "mean": _packed(self.mean),
            "directions": _packed(self.directions),
            "damping": _packed(self.damping),
        }
        if self.known is not None:
            values["known"] = base64.b64encode(self.known.tobytes()).decode("ascii")
        return json.dumps(values)


@dataclass(frozen=True, eq=False)
class Likeness:
    """From photos to logits of known and taught cars on one scale.

    A taught car's is `slope * cosine + offset + spread * (length - 1)`, where `length` is that of
    the mean of the unit vectors of a car's photos: 1 for one photo, less for several that differ. A
    known car's is `known_scale` times its own and `known_slope` times its cosine: near twins of
    which one is taught are so told apart by the same measure. The constants are in units of
    calibrated logits, that is, divided by the model's temperature: a softmax over known and taught
    logits is calibrated.

    Attributes:
        slope: of the cosine.
        offset: of a cosine of 0.
        spread: a mean of many photos is nearer to any photo than each of them is; this takes it
            back.
        space: in which embeddings are compared; None: the known logits are compared instead, each
            picture's less their mean. Cars that are taken for the same mixture of known ones are
            alike.
        known_scale: of the known classes' own logits.
        known_slope: of the cosine to a known class; 0 where the space does not have them.
    """

    slope: float
    offset: float
    spread: float
    space: Space | None = None
    known_scale: float = 1.0
    known_slope: float = 0.0

    def features(
        self, logits: NDArray[np.float32], embeddings: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What is compared: unit vectors (N, F) of known logits (N, K) and embeddings (N, D)."""
        if self.space is None:
            return unit(logits - logits.mean(axis=1, keepdims=True))
        return unit(self.space.straighten(embeddings))

    def offsets(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is added to the cosines of cars (cars,) by their means (cars, F)."""
        length: NDArray[np.float32] = np.linalg.norm(means, axis=1).astype(np.float32)
        return self.offset + self.spread * (length - 1)

    def known_cars(self) -> NDArray[np.float32] | None:
        """Unit vectors (K, F) of the known cars, where their cosines count."""
        if self.space is None or self.space.known is None:
            return None
        return unit(self.space.known.astype(np.float32))


PLAIN = Likeness(slope=15.9, offset=1.6, spread=1.9)
"""For model files that carry no space."""

IN_SPACE = Likeness(slope=19.2, offset=4.0, spread=2.6)
"""The constants where there is a space without the known cars."""

AMONG_KNOWN = Likeness(slope=21.6, offset=3.4, spread=3.7, known_scale=0.4, known_slope=14.6)
"""The constants where the space has the known cars, too.

All by `python -m benchmarks.teach fit`, on the training split, with an EfficientNet-Lite2 that was
trained without the twenty classes that it was taught: docs/teaching.md has the command.
"""


def likeness_in(space: Space | None) -> Likeness:
    """How photos are compared by a model file that carries this space, or none."""
    if space is None:
        return PLAIN
    return replace(IN_SPACE if space.known is None else AMONG_KNOWN, space=space)


def fit_space(
    embeddings: NDArray[np.float32],
    targets: NDArray[np.int64],
    classes: int,
    directions: int = DIRECTIONS,
) -> Space:
    """The space of a model, from pictures of the cars that it knows.

    Args:
        embeddings: (N, D) of pictures of every known car, several of each.
        targets: (N,) which car each shows, from 0.
        classes: that the model knows; one without pictures lies nowhere.
        directions: how many are damped, at most.
    """
    roots = rooted(embeddings).astype(np.float64)
    _, numbers, counts = np.unique(targets, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), roots.shape[1]))
    np.add.at(sums, numbers, roots)
    residues = roots - (sums / counts[:, None])[numbers]
    strengths, vectors = np.linalg.eigh(residues.T @ residues / len(residues))
    # A covariance of so few pictures is shrunk towards a round one, and beyond the strongest
    # directions it is taken for round.
    strongest = np.argsort(-strengths)[:directions]
    ground = SHRINKAGE * strengths.mean()
    damping = 1 - np.sqrt(ground / np.maximum(strengths[strongest] + ground, 1e-12))
    space = Space(
        mean=roots.mean(axis=0).astype(np.float32),
        directions=vectors[:, strongest].T.astype(np.float32),
        damping=damping.astype(np.float32),
    )
    means = class_means(unit(space.straighten(embeddings)), targets, classes)
    steps = 127 / np.maximum(np.abs(means).max(axis=1, keepdims=True), 1e-12)
    return replace(space, known=np.rint(steps * means).astype(np.int8))


def class_means(
    rows: NDArray[np.float32], targets: NDArray[np.int64], classes: int
) -> NDArray[np.float32]:
    """Unit vectors (classes, F) to the mean of each class's rows (N, F), 0 where it has none.

    Targets (N,) are from 0.
    """
    sums = np.zeros((classes, rows.shape[1]), np.float32)
    np.add.at(sums, targets, rows)
    return unit(sums)


def parse_space(text: str, width: int, classes: int, file: str) -> Space:
    """Read back what `Space.to_json` gave.

    Args:
        text: from the metadata.
        width: of the model's embedding.
        classes: that the model knows.
        file: the model file, for errors.

    Raises:
        ModelFileError: of a newer format, not complete, or of another width.
    """
    try:
        values = json.loads(text)
        if int(values["format_version"]) > FORMAT_VERSION:
            raise ModelFileError(
                f"{file}: its space is of a newer format; pip install -U carspotter"
            )
        damping = _unpacked(values["damping"], (-1,))
        known = None
        if "known" in values:
            flat = np.frombuffer(base64.b64decode(values["known"], validate=True), np.int8)
            known = flat.reshape(classes, width)
        return Space(
            mean=_unpacked(values["mean"], (width,)),
            directions=_unpacked(values["directions"], (len(damping), width)),
            damping=damping,
            known=known,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{file}: its space cannot be read ({error})") from error


def rooted(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed square roots: the few strong features of a picture outweigh the many weak ones less.

    A power transform brings features of few examples nearer to a normal distribution
    (arXiv:2101.06395).
    """
    found: NDArray[np.float32] = np.sign(embeddings) * np.sqrt(np.abs(embeddings))
    return found


def product(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scalar products (N, M) of rows (N, F) with others (M, F); of few rows in this thread alone.

    The threads of numpy's BLAS go on spinning for a while after a call, and so do onnxruntime's:
    taking turns on the same cores, they cost a photo more than both computations.
    """
    if len(rows) > _FEW:
        return rows @ others.T
    found: NDArray[np.float32] = np.einsum("nf,mf->nm", rows, others)
    return found


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (N, F) of length 1; one of length 0 stays so."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = vectors / np.maximum(length, 1e-12)
    return found.astype(np.float32)


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode("ascii")


def _unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    flat = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
    if not np.isfinite(flat).all():
        raise ValueError("not all are numbers")
    found: NDArray[np.float32] = flat.reshape(shape)
    return found

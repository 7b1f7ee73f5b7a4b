"""What the model says of known and of left-out cars, looked at once and drawn from often."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carspotter.data import Crop, DataSet, Picture, PictureReader
from carspotter.data.index import read_pixels
from carspotter.data.splits import training_parts
from carspotter.errors import DataError, UsageError
from carspotter.evaluate import Share, predict_share
from carspotter.garage import Garage, TaughtPhoto
from carspotter.names import split_name
from carspotter.teaching import look_at
from carspotter.train.batches import stream_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.spotter import Spotter

Progress = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True, eq=False)
class Looks:
    """Pictures as `identify` sees them.

    Attributes:
        logits: (N, known) of the classes that count as known.
        embeddings: (N, D).
        targets: (N,) class numbers: known classes first, the left-out ones behind them.
    """

    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    targets: NDArray[np.int64]

    def of(self, rows: NDArray[np.bool_]) -> Looks:
        """Some of them."""
        return Looks(self.logits[rows], self.embeddings[rows], self.targets[rows])

    def beside(self, other: Looks) -> Looks:
        """These and others."""
        return Looks(
            np.concatenate([self.logits, other.logits]),
            np.concatenate([self.embeddings, other.embeddings]),
            np.concatenate([self.targets, other.targets]),
        )


@dataclass(frozen=True, eq=False)
class Material:
    """All that is measured on.

    Attributes:
        known: the classes that count as known, in the order of their logits.
        left_out: the classes that are taught.
        garage: of the model, without a car.
        seen: whether the model knows the left-out classes and their logits are hidden: a simulation
            that is kinder than life, since its embedding has learnt to tell them apart.
        to_teach: training pictures of each left-out class, as `teach` keeps them.
        pool: the same pictures, as `identify` sees them.
        validation: of the known classes, not trained on; class numbers as in `Looks`.
        test: the test split, of all classes; None where it was not asked for.
    """

    known: tuple[str, ...]
    left_out: tuple[str, ...]
    garage: Garage
    seen: bool
    to_teach: tuple[tuple[TaughtPhoto, ...], ...]
    pool: tuple[Looks, ...]
    validation: Looks
    test: Looks | None


def look(
    spotter: Spotter,
    data: DataSet,
    left_out: Sequence[str],
    validation: Sequence[Picture],
    progress: Progress,
    *,
    test: bool,
) -> Material:
    """Look at the pictures that teaching is measured on.

    Args:
        spotter: the model.
        data: the pictures.
        left_out: the classes to teach; the model must know all others.
        validation: pictures that the model was not trained on.
        progress: for a name, what is called with the number done and the total.
        test: whether to look at the test split too.

    Raises:
        DataError: the model does not know a class of the data that is not left out.
    """
    labels = [name.label for name in spotter.card.classes]
    columns = [n for n, label in enumerate(labels) if label not in left_out]
    known = tuple(labels[n] for n in columns)
    unknown = sorted({p.label for p in data.pictures} - {*known, *left_out})
    if unknown:
        raise DataError(f"the model knows no {unknown[0]!r}, and it is not left out")
    number = {label: n for n, label in enumerate((*known, *left_out))}
    crop = crop_of(spotter)

    def looks(pictures: Sequence[Picture], what: str) -> Looks:
        found = predict_share(
            pictures,
            lambda inputs: np.concatenate(spotter.outputs(inputs), axis=1),
            Share(),
            size=spotter.card.input_size,
            resize=spotter.card.resize,
            crop=crop,
            progress=progress(what),
        )
        if found.logits is None:
            raise DataError(f"{data.root}: none of its {what} pictures can be read")
        targets = [number[pictures[place].label] for place in found.places]
        return Looks(
            found.logits[:, columns], found.logits[:, len(labels) :], np.array(targets, np.int64)
        )

    reader = PictureReader()
    to_teach, pool = [], []
    train = data.split("train")
    count = progress("to teach")
    for done, label in enumerate(left_out):
        pictures = [p for p in train if p.label == label]
        photos = [look_at(spotter, read_pixels(p, reader, crop), p.key) for p in pictures]
        to_teach.append(
            tuple(TaughtPhoto(p.sha256, p.logits[columns], p.embedding) for p in photos)
        )
        pool.append(looks(pictures, "pool"))
        count(done + 1, len(left_out))
    own = [p for p in validation if p.label in known]
    return Material(
        known=known,
        left_out=tuple(left_out),
        garage=Garage(spotter.info, known),
        seen=any(label in labels for label in left_out),
        to_teach=tuple(to_teach),
        pool=tuple(pool),
        validation=looks(own, "validation"),
        test=looks(data.split("test"), "test") if test else None,
    )


def crop_of(spotter: Spotter) -> Crop:
    """Which part of pictures a model was trained on."""
    trained_on = spotter.card.trained_on
    return Crop(trained_on.get("crop") == "box", trained_on.get("box_margin", Crop().margin))


def held_back(
    data: DataSet, known: Collection[str], fraction: float, seed: int
) -> tuple[Picture, ...]:
    """The validation pictures that a training on these data, by this split, has not seen.

    Raises:
        DataError: there is no training split.
    """
    return tuple(p for p in training_parts(data, fraction, seed)[1] if p.label in known)


def draws(
    material: Material, shots: int, count: int, seed: int
) -> Iterator[tuple[Garage, list[NDArray[np.bool_]]]]:
    """Garages of the left-out classes from so many photos each, and which of each class they were.

    Raises:
        UsageError: a class has not so many.
    """
    least = min(len(photos) for photos in material.to_teach)
    if shots >= least:
        raise UsageError(f"--shots {shots}: a left-out class has only {least} pictures to train on")
    for draw in range(count):
        rng = np.random.default_rng(stream_seed(seed, shots, draw))
        garage, taken = material.garage, []
        for label, photos in zip(material.left_out, material.to_teach, strict=True):
            chosen = np.zeros(len(photos), bool)
            chosen[rng.permutation(len(photos))[:shots]] = True
            garage = garage.teach(
                split_name(label), [p for p, c in zip(photos, chosen, strict=True) if c]
            )
            taken.append(chosen)
        yield garage, taken

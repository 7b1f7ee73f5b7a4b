"""predictions.parquet: what a model said of each picture, to be read again by other verbs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carspotter.errors import DataError
from carspotter.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.results import Answer

FORMAT_VERSION = 1
_ABOUT = b"carspotter"
_NEEDED = ("picture", "split", "label", "probabilities")


@dataclass(frozen=True)
class Recorded:
    """A model's predictions of the labelled pictures of one split.

    Attributes:
        class_names: in the order of the probabilities.
        pictures: (N,) keys.
        split: of all of them.
        labels: (N,) the right classes.
        probabilities: (N, classes), calibrated.
        about: the model and the data, as in metrics.json.
    """

    class_names: tuple[str, ...]
    pictures: tuple[str, ...]
    split: str
    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]
    about: Mapping[str, Any]

    def targets(self) -> NDArray[np.int64]:
        """(N,) class numbers."""
        number = {name: place for place, name in enumerate(self.class_names)}
        return np.array([number[label] for label in self.labels], np.int64)


def write_recorded(
    file: Path,
    found: Recorded,
    logits: NDArray[np.float32],
    answers: Sequence[Answer] | None,
) -> None:
    """Write predictions.parquet, whole or not at all.

    Args:
        file: to write.
        found: what is written.
        logits: (N, classes), for the features of an answer.
        answers: what is answered for each picture; None: the model has no thresholds.
    """
    probabilities = found.probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    best = np.take_along_axis(probabilities, order, axis=1)
    names = np.array(found.class_names)
    peak = logits.max(axis=1)
    columns = {
        "picture": pa.array(found.pictures),
        "split": pa.array([found.split] * len(found.pictures)).dictionary_encode(),
        "label": pa.array(found.labels).dictionary_encode(),
        "top5": pa.array(names[order].tolist()),
        "top5_probabilities": pa.array(best.astype(np.float32).tolist(), pa.list_(pa.float32())),
        "level": pa.array([a.level for a in answers], pa.string())
        if answers
        else pa.nulls(len(found.pictures), pa.string()),
        "answer": pa.array([a.label for a in answers], pa.string())
        if answers
        else pa.nulls(len(found.pictures), pa.string()),
        "confidence": pa.array([a.confidence for a in answers] if answers else best[:, 0]),
        "margin": pa.array(best[:, 0] - best[:, 1]),
        "entropy": pa.array(-(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(1)),
        "max_logit": pa.array(peak),
        "energy": pa.array(-peak - np.log(np.exp(logits - peak[:, None]).sum(axis=1))),
        "probabilities": pa.FixedSizeListArray.from_arrays(
            pa.array(probabilities.astype(np.float32).reshape(-1)), len(found.class_names)
        ),
    }
    about = {
        "format_version": FORMAT_VERSION,
        "class_names": found.class_names,
        **found.about,
    }
    table = pa.table(columns).replace_schema_metadata({_ABOUT: json.dumps(about)})
    with replacing(file) as part:
        pq.write_table(table, part, compression="zstd")


def read_recorded(file: Path) -> Recorded:
    """Read predictions.parquet, or that of a report's folder.

    Raises:
        DataError: missing, damaged, of a newer format, or something else.
    """
    if file.is_dir():
        file = file / "predictions.parquet"
    if not file.is_file():
        raise DataError(f"{file}: not there; `carspotter evaluate … --report DIR` writes it")
    try:
        parquet = pq.ParquetFile(file)
        missing = set(_NEEDED).difference(parquet.schema_arrow.names)
        table = parquet.read(columns=list(_NEEDED)) if not missing else None
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise DataError(f"{file}: not a predictions.parquet that can be read ({error})") from error
    if table is None:
        raise DataError(
            f"{file}: not written by `carspotter evaluate`: it has no {', '.join(sorted(missing))}"
        )
    try:
        about = json.loads((table.schema.metadata or {})[_ABOUT])
        version, names = int(about.pop("format_version")), tuple(about.pop("class_names"))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: not written by `carspotter evaluate`: no class names in it"
        ) from error
    if version > FORMAT_VERSION:
        raise DataError(f"{file}: of format {version}; pip install -U carspotter")
    return _checked(table, names, about, file)


def _checked(
    table: pa.Table, names: tuple[str, ...], about: Mapping[str, Any], file: Path
) -> Recorded:
    pictures, labels = table["picture"].to_pylist(), table["label"].to_pylist()
    column = table["probabilities"].combine_chunks()
    if not pa.types.is_fixed_size_list(column.type):
        raise DataError(f"{file}: its probabilities are no lists of one length, but {column.type}")
    flat = column.flatten() if len(pictures) else pa.array([], pa.float32())
    values = np.asarray(flat.to_numpy(zero_copy_only=False), np.float64)
    wrong = {
        "no picture": not pictures,
        "a label that is not among its classes": not set(labels) <= set(names),
        "a picture twice": len(set(pictures)) < len(pictures),
        "rows of another length than its classes": values.size != len(pictures) * len(names),
        "probabilities that are no numbers": not np.isfinite(values).all(),
    }
    for what, there in wrong.items():
        if there:
            raise DataError(f"{file}: it has {what}; write it again by `carspotter evaluate`")
    splits = sorted(set(table["split"].to_pylist()))
    return Recorded(
        names,
        tuple(pictures),
        splits[0] if len(splits) == 1 else "+".join(splits),
        tuple(labels),
        values.reshape(len(pictures), len(names)),
        about,
    )

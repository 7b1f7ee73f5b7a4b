"""Finding a car again among labelled photos."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carspotter.errors import DataError, PhotoError, UsageError
from carspotter.label.assembly import METADATA_KEY, parquet_files
from carspotter.label.rows import EMBEDDING
from carspotter.likeness import Likeness, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import PhotoSource
    from carspotter.spotter import CropMode, Spotter

_ROWS = 4096
"""Compared at a time, held in memory."""

_SHOWN = ("photo", "level", "label")


@dataclass(frozen=True, slots=True)
class Match:
    """A photo of the archive.

    Attributes:
        photo: as the results call it.
        level: of its answer.
        label: of its answer.
        similarity: cosine of the embeddings of both, -1 to 1.
    """

    photo: str
    level: str
    label: str
    similarity: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "photo": self.photo,
            "level": self.level,
            "label": self.label,
            "similarity": round(self.similarity, 4),
        }


def find_similar(
    spotter: Spotter,
    photo: PhotoSource,
    results: Path,
    *,
    top: int = 10,
    crop: CropMode = "auto",
) -> list[Match]:
    """The photos of an archive whose cars look most like the one on a photo.

    Every embedding is compared, in batches: the answer is exact, and memory does not grow with the
    archive. Embeddings are compared as those of taught cars are, in the model's space where it has
    one.

    Args:
        spotter: of the model by which the archive was labelled.
        photo: what to look for.
        results: what `label_archive` wrote, with embeddings; a file, or a folder of files.
        top: how many, at most.
        crop: as for `Spotter.identify`.

    Returns:
        The most similar first.

    Raises:
        DataError: there are no results, or without embeddings.
        UsageError: they are of another model.
        PhotoError: the photo cannot be used.
    """
    files = parquet_files(results)
    if not files:
        raise DataError(f"{results}: a folder without results")
    for file in files:
        _check(file, spotter)
    (seen,) = spotter.observe_many([photo], crop=crop)
    if seen.embedding is None:
        assert seen.result.error is not None
        raise PhotoError(seen.result.error.code, seen.result.error.message)
    wanted = _compared(seen.embedding[None], spotter.likeness)[0]
    best: list[tuple[float, int, Match]] = []  # the least similar first; earlier rows win ties
    row = 0
    for names, embeddings in _batches(files):
        cosines = _compared(embeddings, spotter.likeness) @ wanted
        for place in np.argsort(-cosines, kind="stable")[:top]:
            shown = {name: str(names[name][place].as_py()) for name in _SHOWN}
            cosine = float(cosines[place])
            entry = (cosine, -(row + int(place)), Match(**shown, similarity=cosine))
            if len(best) < top:
                heapq.heappush(best, entry)
            elif entry > best[0]:
                heapq.heapreplace(best, entry)
        row += len(embeddings)
    return [match for *_, match in sorted(best, reverse=True)]


def _check(file: Path, spotter: Spotter) -> None:
    try:
        schema = pq.read_schema(file)
        about = json.loads((schema.metadata or {})[METADATA_KEY])
        name, sha256 = str(about["model"]["name"]), str(about["model"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not results of carspotter label in parquet ({error})") from error
    if EMBEDDING not in schema.names:
        raise DataError(f"{file}: has no embeddings; label the archive with --embeddings")
    if sha256 != spotter.info.sha256:
        raise UsageError(
            f"{file}: is of another model, {name} ({sha256[:12]}), not {spotter.info.name} "
            f"({spotter.info.sha256[:12]}), whose embeddings are others: take that --model"
        )


def _compared(embeddings: NDArray[np.float32], likeness: Likeness) -> NDArray[np.float32]:
    """Unit vectors (N, D) of embeddings (N, D)."""
    return unit(embeddings if likeness.space is None else likeness.space.straighten(embeddings))


def _batches(files: list[Path]) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float32]]]:
    """Rows that have an embedding, and their embeddings (n, D)."""
    for file in files:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_ROWS, columns=[*_SHOWN, EMBEDDING]):
                there = batch.filter(batch[EMBEDDING].is_valid())
                if there.num_rows:
                    flat = there[EMBEDDING].flatten().to_numpy().astype(np.float32)
                    yield there, flat.reshape(there.num_rows, -1)

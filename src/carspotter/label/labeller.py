"""From a piece of an archive to a finished part. The same in every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from carspotter.files import replacing
from carspotter.label.pieces import Piece
from carspotter.label.reading import is_remote, photos_of
from carspotter.label.rows import TOP, to_batch
from carspotter.spotter import CropMode, Spotter
from carspotter.views import Observation

_ROWS = 128
"""Held in memory before they are written."""

_REMOTE_READERS = 16
"""Photos that are on the way from a store at the same time."""


class Labeller:
    """Names the cars on the photos of pieces.

    Args:
        spotter: looks at them.
        crop: as for `Spotter.identify`.
        base: the folder from which relative paths are meant.
        schema: of the parts.
    """

    def __init__(self, spotter: Spotter, crop: CropMode, base: str, schema: pa.Schema) -> None:
        self._spotter = spotter
        self._crop: CropMode = crop
        self._base = base
        self._schema = schema

    def label(self, piece: Piece, part: Path, done: Callable[[], None] = lambda: None) -> int:
        """Write the part of a piece, whole or not at all.

        Args:
            piece: what to look at.
            part: the file to write; one that is there is replaced by the same.
            done: called after each photo.

        Returns:
            How many photos there were.

        Raises:
            OSError: it cannot be written.
        """
        rows = 0
        try:
            with (
                replacing(part) as file,
                pq.ParquetWriter(file, self._schema, compression="zstd") as writer,
            ):
                for seen in _in_groups(self._seen(piece, done)):
                    writer.write_batch(to_batch(seen, self._schema))
                    rows += len(seen)
        except OSError as error:
            raise OSError(
                f"{part}: cannot be written ({error.strerror or error}); what is finished is kept: "
                "make room, then go on by --resume"
            ) from error
        if piece.count not in (None, rows):
            part.unlink()
            raise RuntimeError(f"{part}: {rows} photos where there should be {piece.count}")
        return rows

    def _seen(self, piece: Piece, done: Callable[[], None]) -> Iterator[Observation]:
        readers = _REMOTE_READERS if is_remote(piece) else None
        with ExitStack() as held:
            photos = photos_of(piece, self._base, held)
            every = self._spotter.observe_many(photos, top_k=TOP, crop=self._crop, readers=readers)
            for seen in every:
                done()
                yield seen


def _in_groups(seen: Iterator[Observation]) -> Iterator[list[Observation]]:
    group: list[Observation] = []
    for one in seen:
        group.append(one)
        if len(group) == _ROWS:
            yield group
            group = []
    if group:
        yield group

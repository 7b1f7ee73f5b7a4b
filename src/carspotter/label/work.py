"""The work folder beside the results: the plan, and the parts that are finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carspotter.errors import UsageError
from carspotter.files import locked, replacing, write_text
from carspotter.label.job import Job, Recogniser
from carspotter.label.pieces import Piece


@dataclass(frozen=True)
class Plan:
    """How much there is to do.

    Attributes:
        pieces: how many.
        photos: how many; None where archives say so at their end alone.
    """

    pieces: int
    photos: int | None


class Work:
    """Unfinished work.

    The plan is frozen when it begins: what becomes of the source meanwhile changes no piece, and
    each part is written once, whole.

    Args:
        out: where the results will lie.
    """

    def __init__(self, out: Path) -> None:
        self.path = out.absolute().with_name(f"{out.name}.work")
        self.parts = self.path / "parts"
        self._job = self.path / "job.json"
        self._plan = self.path / "plan.jsonl"

    @property
    def is_begun(self) -> bool:
        """Whether there is a plan to go on with."""
        return self._job.is_file()

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes out, as long as this one lives.

        Raises:
            UsageError: another one works here.
            OSError: the folder cannot be made.
        """
        return locked(self._job, busy=UsageError(f"{self.path}: another process works on it"))

    def begin(self, job: Job, pieces: Iterable[Piece]) -> Plan:
        """Write the plan; the job comes last: with it, the work has begun.

        Raises:
            OSError: it cannot be written.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        count, photos = 0, 0
        known = True
        with replacing(self._plan) as part, part.open("w", encoding="utf-8") as file:
            for piece in pieces:
                file.write(piece.to_json() + "\n")
                count += 1
                known = known and piece.count is not None
                photos += piece.count or 0
        plan = Plan(count, photos if known else None)
        said = {**job.to_dict(), "pieces": plan.pieces, "photos": plan.photos}
        write_text(self._job, json.dumps(said, indent=1) + "\n")
        return plan

    def resume(self, job: Job) -> tuple[Plan, str]:
        """Go on with the work; also gives the folder from which relative paths are meant.

        Raises:
            UsageError: the work there is another job's.
        """
        there = self.read()
        job.check_same(there, self.path)
        for left_over in self.parts.glob(".*.part"):  # of a process that was killed
            left_over.unlink()
        return Plan(there["pieces"], there["photos"]), str(there["base"])

    def read(self) -> dict[str, Any]:
        """What `begin` wrote of the job.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            found: dict[str, Any] = json.loads(self._job.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._job}: cannot be read ({error}); delete the folder") from error
        return found

    def pieces(self) -> Iterator[tuple[int, Piece]]:
        """All pieces by number, in the order of the archive, as they are needed."""
        with self._plan.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                yield number, Piece.from_json(line)

    def starts(self) -> Iterator[dict[str, int]]:
        """The number of each piece, and where it starts in the plan: what is passed around."""
        start = 0
        with self._plan.open("rb") as file:
            for number, line in enumerate(file):
                yield {"number": number, "start": start}
                start += len(line)

    def piece_at(self, start: int) -> Piece:
        """The piece that starts there in the plan.

        Raises:
            OSError: the plan cannot be read.
        """
        with self._plan.open("rb") as file:
            file.seek(start)
            return Piece.from_json(file.readline().decode("utf-8"))

    def part(self, number: int) -> Path:
        """Where a finished piece lies."""
        return self.parts / f"{number:08}.parquet"

    def finished(self) -> dict[int, int]:
        """The pieces that are finished, and how many photos each has; damaged ones are removed."""
        found = {}
        for file in sorted(self.parts.glob("*.parquet")):
            try:
                found[int(file.stem)] = pq.read_metadata(file).num_rows
            except (OSError, ValueError):  # pyarrow's own errors are both
                file.unlink()
        return found

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class Run:
    """One call's share of the work, as an engine needs it.

    Attributes:
        work: the folder.
        plan: how much there is in all.
        recogniser: how photos are looked at.
        base: the folder from which relative paths are meant.
        schema: of the parts.
        finished: pieces of earlier calls, and how many photos each has.
    """

    work: Work
    plan: Plan
    recogniser: Recogniser
    base: str
    schema: pa.Schema
    finished: Mapping[int, int]

"""From finished parts to the results, which appear whole."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq

from carspotter.errors import UsageError
from carspotter.files import replacing, sync_folder, write_text
from carspotter.label.rows import as_text

Form: TypeAlias = Literal["parquet", "csv", "jsonl"]

_ROWS = 16_384
"""Of a row group of the results."""

METADATA_KEY = b"carspotter"


def form_of(out: Path) -> Form:
    """The form of the results, by the ending of their name.

    Raises:
        UsageError: another ending.
    """
    form = out.suffix.lower().removeprefix(".")
    if form not in ("parquet", "csv", "jsonl"):
        raise UsageError(f"--out {out}: must end in .parquet, .csv or .jsonl")
    return cast("Form", form)


def about_file(out: Path) -> Path:
    """Beside results in a form that has no place for it: what they are of."""
    return out.with_name(f"{out.name}.about.json")


def read_about(out: Path) -> dict[str, Any]:
    """What results are of; empty where that is not known."""
    try:
        if form_of(out) != "parquet":
            return dict(json.loads(about_file(out).read_text(encoding="utf-8")))
        metadata = pq.read_schema(parquet_files(out)[0]).metadata or {}
        return dict(json.loads(metadata[METADATA_KEY]))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return {}


def parquet_files(out: Path) -> list[Path]:
    """The files that results in parquet consist of, in order."""
    return sorted(out.glob("*.parquet")) if out.is_dir() else [out]


def tally(parts: Iterable[Path]) -> dict[str, Any]:
    """How many photos parts have, how many failed, and how often each level was answered."""
    levels: Counter[str] = Counter()
    failed = photos = 0
    for part in parts:
        table = pq.read_table(part, columns=["level", "error_code"])
        photos += table.num_rows
        failed += table.num_rows - table["error_code"].null_count
        levels.update(level for level in table["level"].to_pylist() if level is not None)
    return {"photos": photos, "failed": failed, "levels": dict(sorted(levels.items()))}


def assemble(
    parts: Sequence[Path],
    out: Path,
    about: dict[str, Any],
    schema: pa.Schema,
    *,
    scratch: Path,
    most_bytes: int,
) -> None:
    """Write the results.

    Args:
        parts: finished, in order.
        out: the file, which must not exist; parquet of more bytes becomes a folder of files.
        about: what they are of.
        schema: of the parts.
        scratch: a folder on the same disk, for what is not yet whole.
        most_bytes: of a parquet file.

    Raises:
        OSError: it cannot be written; then there is nothing new at `out`.
    """
    form = form_of(out)
    if form == "parquet":
        described = schema.with_metadata({METADATA_KEY: json.dumps(about)})
        if sum(part.stat().st_size for part in parts) > most_bytes:
            _write_folder(parts, out, described, scratch, most_bytes)
        else:
            with replacing(out) as file:
                _write_parquet(_groups(parts), file, described, None)
    else:
        write_text(about_file(out), json.dumps(about, indent=1) + "\n")
        with replacing(out) as file:
            (_write_csv if form == "csv" else _write_lines)(parts, file, schema)
    sync_folder(out.parent)  # the parts are deleted next


def _groups(parts: Iterable[Path]) -> Iterator[pa.Table]:
    """The rows of parts, in groups of a good size."""
    held: list[pa.Table] = []
    for part in parts:
        held.append(pq.ParquetFile(part).read(use_threads=False))
        if sum(table.num_rows for table in held) >= _ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _write_parquet(
    groups: Iterator[pa.Table], file: Path, schema: pa.Schema, most_bytes: int | None
) -> bool:
    """Write groups until there are no more, or the file is large; returns whether any was left."""
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group.cast(schema))
            if most_bytes is not None and file.stat().st_size >= most_bytes:
                return True
    return False


def _write_folder(
    parts: Sequence[Path], out: Path, schema: pa.Schema, scratch: Path, most_bytes: int
) -> None:
    folder = scratch / "whole"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier try
    folder.mkdir()
    groups, number = _groups(parts), 0
    first = next(groups, None)
    while first is not None:
        file = folder / f"part-{number:05}.parquet"
        with replacing(file) as part:
            _write_parquet(_chained(first, groups), part, schema, most_bytes)
        number += 1
        first = next(groups, None)
    sync_folder(folder)
    os.rename(folder, out)  # noqa: PTH104  # unlike Path.replace, it takes no file's place


def _chained(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _write_csv(parts: Sequence[Path], file: Path, schema: pa.Schema) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(schema.names)
        for part in parts:
            writer.writerows(as_text(pq.read_table(part)))


def _write_lines(parts: Sequence[Path], file: Path, schema: pa.Schema) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        for part in parts:
            lines = pq.read_table(part, columns=["line"])["line"].to_pylist()
            text.writelines(f"{line}\n" for line in lines)

"""What is written of each photo."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from carspotter.results import Identification
    from carspotter.views import Observation

FORMAT_VERSION = 1
TOP = 5

_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("photo", pa.string()),
    ("level", pa.string()),
    ("label", pa.string()),
    ("make", pa.string()),
    ("model", pa.string()),
    ("body", pa.string()),
    ("year", pa.int16()),
    ("confidence", pa.float32()),
    ("top5", pa.list_(pa.string())),
    ("top5_probabilities", pa.list_(pa.float32())),
    ("box", pa.list_(pa.int32())),
    ("other_cars", pa.int16()),
    ("error_code", pa.string()),
    ("error", pa.string()),
    ("model_name", pa.string()),
    ("model_sha256", pa.string()),
    ("seconds", pa.float32()),
)

EMBEDDING = "embedding"


def schema_of(*, as_lines: bool, embeddings: bool) -> pa.Schema:
    """The schema of parts: the columns of the results, or finished JSON lines and what is counted.

    Args:
        as_lines: whether the results are JSON Lines.
        embeddings: whether they hold the embeddings too.
    """
    if as_lines:
        return pa.schema([(name, pa.string()) for name in ("level", "error_code", "line")])
    more = [(EMBEDDING, pa.list_(pa.float16()))] if embeddings else []
    return pa.schema([*_COLUMNS, *more])


def to_batch(seen: Sequence[Observation], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of a part."""
    row = _line if "line" in schema.names else _row
    batch = [row(one) for one in seen]
    return pa.RecordBatch.from_pylist(batch, schema)


def _row(seen: Observation) -> dict[str, Any]:
    found = seen.result
    answer = {} if found.answer is None else found.answer.to_dict()
    failed = found.error is not None
    return {
        **answer,
        **_counted(found),
        "photo": printable(found.photo),
        "top5": None if failed else [candidate.label for candidate in found.candidates],
        "top5_probabilities": None
        if failed
        else [round(candidate.confidence, 4) for candidate in found.candidates],
        "box": None if found.box is None else list(found.box),
        "other_cars": None if failed else len(found.others),
        "error": None if found.error is None else printable(found.error.message),
        "model_name": found.model.name,
        "model_sha256": found.model.sha256,
        "seconds": seen.seconds,
        EMBEDDING: None if seen.embedding is None else seen.embedding.astype("float16"),
    }


def _line(seen: Observation) -> dict[str, Any]:
    seconds = None if seen.seconds is None else round(seen.seconds, 4)
    said = {**seen.result.to_dict(), "seconds": seconds}
    line = printable(json.dumps(said, ensure_ascii=False))
    return {**_counted(seen.result), "line": line}


def _counted(found: Identification) -> dict[str, str | None]:
    return {
        "level": None if found.answer is None else found.answer.level,
        "error_code": None if found.error is None else found.error.code,
    }


def printable(text: str) -> str:
    """The text with escapes for what is not UTF-8, as a file name may hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_text(table: pa.Table) -> Iterator[list[Any]]:
    """Rows of a table as CSV has them: lists as JSON, what is missing empty."""
    for row in table.to_pylist():
        yield [_cell(value) for value in row.values()]


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps([round(v, 4) if isinstance(v, float) else v for v in value])
    if isinstance(value, float):
        return round(value, 4)
    return "" if value is None else value

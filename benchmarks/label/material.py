"""Lists of photos made of a data set's pictures, some of them broken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

BROKEN_EVERY = 100
"""Each so many-th photo is broken: one of a hundred."""


def extract(data: Path, folder: Path, count: int) -> list[Path]:
    """Write pictures of the test split as files, and a broken half of each hundredth.

    Args:
        data: Stanford Cars as Hugging Face parquet.
        folder: where to; what is there already is not written again.
        count: how many pictures.

    Returns:
        The pictures; each hundredth is broken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, jpeg in enumerate(itertools.islice(_pictures(data), count)):
        broken = number % BROKEN_EVERY == BROKEN_EVERY - 1
        file = folder / f"{number:06}{'-broken' if broken else ''}.jpg"
        if not file.exists():
            file.write_bytes(jpeg[: len(jpeg) // 2] if broken else jpeg)
        files.append(file)
    return files


def listed(files: list[Path], count: int, out: Path) -> Path:
    """A list of so many photos: the files, again and again."""
    names = itertools.cycle([f"{file.resolve()}\n" for file in files])
    with out.open("w", encoding="utf-8") as text:
        text.writelines(itertools.islice(names, count))
    return out


def _pictures(data: Path) -> Iterator[bytes]:
    for file in sorted((data / "data").glob("test-*.parquet")):
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(64, columns=["image"]):
                yield from (cell["bytes"].as_py() for cell in batch["image"])

"""Archives of plain photos in every form that `carspotter label` takes, and their results."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import encoded, write_parquet
from tiny_model import ANSWERS, plain

PHOTOS = {
    f"{number:02}.png": encoded(plain(colour), "PNG") for number, colour in enumerate(ANSWERS)
} | {"90.jpg": b"no picture", "91.png": b""}
"""One for each level, and two that are broken."""

LEVELS = [level for level, _ in ANSWERS.values()] + [None, None]


def as_folder(place: Path) -> str:
    for name, data in PHOTOS.items():
        (place / "photos").mkdir(exist_ok=True)
        (place / "photos" / name).write_bytes(data)
    (place / "photos" / "notes.md").write_text("no photo")
    return str(place / "photos")


def as_glob(place: Path) -> str:
    return f"{as_folder(place)}/*.[pj]*g"


def as_list(place: Path) -> str:
    as_folder(place)
    lines = "".join(f"photos/{name}\n" for name in PHOTOS)  # from the list's own folder
    (place / "list.txt").write_text(lines)
    return str(place / "list.txt")


def as_table(place: Path) -> str:
    folder = as_folder(place)
    with (place / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("Id", "File Name"), *enumerate(f"{folder}/{n}" for n in PHOTOS)]
        )
    return str(place / "table.csv")


def as_hugging_face(place: Path) -> str:
    write_parquet(place / "train.parquet", [(name, data, 0) for name, data in PHOTOS.items()])
    return str(place / "train.parquet")


def as_binary_column(place: Path) -> str:
    table = pa.table({"picture": list(PHOTOS.values()), "n": range(len(PHOTOS))})
    pq.write_table(table, place / "binary.parquet", row_group_size=2)
    return str(place / "binary.parquet")


def as_tar(place: Path, name: str = "all.tar", form: str = "w") -> str:
    with tarfile.open(place / name, form) as archive:
        for photo, data in PHOTOS.items():
            for member, content in ((photo, data), (f"{photo}.json", b"{}")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(place / name)


def as_compressed_tar(place: Path) -> str:
    return as_tar(place, "all.tar.gz", "w:gz")


def as_zip(place: Path) -> str:
    with zipfile.ZipFile(place / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in PHOTOS.items():
            archive.writestr(f"inner/{name}", data)
    return str(place / "all.zip")


def as_address(place: Path) -> str:
    return f"file://{as_folder(place)}"


FORMS: tuple[Callable[[Path], str], ...] = (
    as_folder,
    as_glob,
    as_list,
    as_table,
    as_hugging_face,
    as_binary_column,
    as_tar,
    as_compressed_tar,
    as_zip,
    as_address,
)


def rows_of(results: Path) -> list[dict[str, Any]]:
    """Rows without what differs from call to call."""
    if results.suffix == ".parquet":
        rows = pq.read_table(results).to_pylist()
    elif results.suffix == ".csv":
        with results.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["seconds"]
    return rows


def many(place: Path, count: int) -> str:
    """A list that names a few photos again and again."""
    names = sorted(str(file) for file in Path(as_folder(place)).iterdir())
    lines = "".join(f"{names[number % len(names)]}\n" for number in range(count))
    (place / "many.txt").write_text(lines)
    return str(place / "many.txt")

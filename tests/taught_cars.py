"""Cars that the tests teach: plain dark colours, which the tiny model knows no car for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tiny_model
from tiny_model import plain

PLUM, TEAL, OLIVE = (20, 0, 20), (0, 20, 20), (20, 20, 0)


def model_with_space(folder: Path) -> Path:
    return tiny_model.write(folder / "space.onnx", space_text=tiny_model.SPACE.to_json())


def photos(folder: Path, colour: tuple[int, int, int], count: int) -> list[Path]:
    """Files of one colour, each another photo."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n}.png" for n in range(count)]
    for n, file in enumerate(files):
        plain(colour, (40 + n, 40)).save(file)
    return files


def words(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]

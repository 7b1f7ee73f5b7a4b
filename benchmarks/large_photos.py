"""What decoding a large photo at a part of its size gains, and what becomes of the answers.

`python -m benchmarks.large_photos --data stanford-cars`

Pictures of the test split are scaled up to as many pixels as a phone's photos have, with noise as a
small sensor has it, which is what makes such a file large. They are named in bulk, without a
localiser, by turns with Pillow's decoding them in full and doing nothing else; and once more from
the pixels of the whole photo.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from carspotter.bench.measure import machine
from carspotter.data import Picture, PictureReader, open_data_set
from carspotter.files import replacing, write_text
from carspotter.loading import DEFAULT_MODEL, load
from carspotter.machine import cores
from carspotter.results import Identification

_NOISE = 5.0
"""Standard deviation, of 255 levels: JPEG files of 12 megapixels then have some 3 MB."""


def enlarge(pictures: Sequence[Picture], folder: Path, megapixels: float) -> list[Path]:
    """JPEG files, 4:3, of so many megapixels; those that are there already are left as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    width = round(math.sqrt(megapixels * 1e6 * 4 / 3))
    size = (width, round(width * 3 / 4))
    noise = np.random.default_rng(0).normal(0, _NOISE, (size[1], size[0], 1)).astype(np.float32)
    reader, files = PictureReader(), []
    for number, picture in enumerate(pictures):
        file = folder / f"{megapixels:g}-{number:05}.jpg"
        files.append(file)
        if file.is_file():
            continue
        image = Image.open(io.BytesIO(reader.read(picture))).convert("RGB")
        scaled = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
        noisy = (scaled + np.roll(noise, 37 * number, axis=1)).clip(0, 255).astype(np.uint8)
        with replacing(file) as part:
            Image.fromarray(noisy).save(part, format="JPEG", quality=90)
    return files


def decoded(file: Path) -> Image.Image:
    """All pixels of a photo."""
    image = Image.open(file)
    image.load()  # closes the file
    return image


def speeds(files: Sequence[Path], model: str, rounds: int) -> dict[str, Any]:
    """Photos per second by turns, and the median over the rounds of the ratios."""
    spotter = load(model, detector="none")
    with ThreadPoolExecutor(cores()) as threads:
        ways: dict[str, Callable[[], object]] = {
            "Pillow, one thread": lambda: [decoded(file).size for file in files],
            "Pillow, a thread for each core": lambda: list(
                threads.map(lambda file: decoded(file).size, files)
            ),
            "carspotter": lambda: sum(1 for _ in spotter.identify_many(files)),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, work in ways.items():
                started = time.perf_counter()
                work()
                if number:  # the first round warms up
                    taken[name].append(time.perf_counter() - started)
    own = taken.pop("carspotter")
    return {
        "photos_per_second": {
            name: len(files) / statistics.median(seconds)
            for name, seconds in {**taken, "carspotter": own}.items()
        },
        "times_as_fast_as": {
            name: statistics.median(a / b for a, b in zip(seconds, own, strict=True))
            for name, seconds in taken.items()
        },
    }


def agreement(files: Sequence[Path], model: str) -> dict[str, float]:
    """Shares of the photos that get the same from a part of their pixels as from all of them."""
    spotter = load(model, detector="none")

    def pixels() -> Iterator[Image.Image]:
        return (decoded(file) for file in files)

    pairs = list(zip(spotter.identify_many(files), spotter.identify_many(pixels()), strict=True))
    return {
        "answer": _share(pairs, lambda r: r.answer and (r.answer.level, r.answer.label)),
        "first name": _share(pairs, lambda r: r.candidates[0].label),
    }


def _share(
    pairs: Sequence[tuple[Identification, Identification]], key: Callable[[Identification], object]
) -> float:
    return sum(key(one) == key(other) for one, other in pairs) / len(pairs)


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--every", type=int, default=20, help="so many test pictures apart")
    parser.add_argument("--timed", type=int, default=100, help="so many of the photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, required=True, help="where the photos are kept")
    parser.add_argument("--out", type=Path, help="a JSON file")
    args = parser.parse_args()
    files = enlarge(
        open_data_set(args.data).split("test")[:: args.every], args.work, args.megapixels
    )
    found = {
        "machine": machine(),
        "model": args.model,
        "megapixels": args.megapixels,
        "photos": len(files),
        "mean_megabytes": statistics.mean(file.stat().st_size for file in files) / 1e6,
        **speeds(files[: args.timed], args.model, args.rounds),
        "the_same": agreement(files, args.model),
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if args.out:
        write_text(args.out, text)


if __name__ == "__main__":
    main()

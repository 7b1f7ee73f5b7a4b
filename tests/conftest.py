"""What tests share: drawn pictures, the command line, and the real data set where there is one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_model
from PIL import Image, ImageDraw
from tiny_model import BLACK, BLUE, GREEN, RED, plain

if TYPE_CHECKING:
    from page_visit import Visit
    from serve_process import Served

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def stanford() -> Path:
    """The real data set's folder; the test is skipped where there is none."""
    for place in (os.environ.get("CARSPOTTER_DATA"), ROOT / ".." / "shared" / "stanford-cars"):
        if place and (Path(place) / "data").is_dir():
            return Path(place).resolve()
    pytest.skip("Stanford Cars is not here: set CARSPOTTER_DATA to its folder")


Carspotter = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def carspotter(tmp_path_factory: pytest.TempPathFactory) -> Carspotter:
    """Run the command line in a process of its own, with a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")

    def run(
        *arguments: str | Path, stdin: bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "carspotter", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env={**os.environ, "CARSPOTTER_CACHE": str(cache), **(env or {})},
            timeout=600,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread for torch, and a cache of its own."""
    import torch  # here: tests that do without it need not wait for it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARSPOTTER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def carspotter_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Carspotter:
    """Run the command line in the process of the tests: for verbs that are slow to import."""
    from carspotter.cli import run as run_verb

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["carspotter", *map(str, arguments)])
        code = int(run_verb(sys.argv[1:]) or 0)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run


def draw_car(seed: int, hue: int = 0, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A drawn "car": body, cabin and wheels; its colour tells the class, the rest is random."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = Image.fromarray(rng.integers(90, 160, (height, width, 3), np.uint8))
    draw = ImageDraw.Draw(image)
    colour = [(220, 30, 30), (30, 200, 40), (40, 60, 230), (230, 220, 40)][hue % 4]
    left, top = (int(v) for v in rng.integers(2, 12, 2))
    draw.rectangle((left, top + height // 3, width - left, height - top), fill=colour)
    draw.rectangle((width // 4, top, 3 * width // 4, height // 2), fill=colour)
    for x in (width // 4, 3 * width // 4):
        radius = height // 8
        y = height - top
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(10, 10, 10))
    return image


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


CLASSES = ("Red Roadster Coupe 2001", "Green Giant SUV 2005", "Blue Bolt Sedan 2010")


def write_parquet(
    file: Path, rows: Sequence[tuple[str, bytes | None, int]], classes: Sequence[str] = CLASSES
) -> None:
    """A parquet file as the `datasets` library writes it: image{bytes,path}, label, names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"image": {"_type": "Image"}, "label": {"names": list(classes)}}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    images = [{"bytes": data, "path": path} for path, data, _ in rows]
    table = pa.table({"image": images, "label": [label for *_, label in rows]}, schema=schema)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=16)


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of drawn cars in three classes: 72 to train on, 24 to test on."""
    root = tmp_path_factory.mktemp("drawn")
    for split, count, start in (("train", 72, 0), ("test", 24, 1000)):
        rows = [
            (f"cars_{split}/{i:05d}.jpg", encoded(draw_car(start + i, i % 3)), i % 3)
            for i in range(count)
        ]
        half = count // 2
        write_parquet(root / "data" / f"{split}-00000-of-00002.parquet", rows[:half])
        write_parquet(root / "data" / f"{split}-00001-of-00002.parquet", rows[half:])
    return root


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that tells plain colours apart."""
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one photo for each level of answer."""
    folder = tmp_path_factory.mktemp("colours")
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE), ("black", BLACK)):
        plain(colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real one, headless; who needs it is skipped where there is none."""
    from page_visit import chromium  # here: it imports this module itself

    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service with the tiny model, in its own process."""
    from serve_process import served  # here: few tests need the HTTP client

    with served(tmp_path_factory.mktemp("serve"), "--model", model) as started:
        yield started


@pytest.fixture
def visit(browser: Any, service: Served) -> Iterator[Visit]:
    """The page of that service, opened."""
    from page_visit import visiting  # here: it imports this module itself

    with visiting(browser, service.url) as opened:
        yield opened

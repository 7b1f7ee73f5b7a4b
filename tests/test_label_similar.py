"""`carspotter label --embeddings` and `carspotter similar`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_model
from conftest import Carspotter
from tiny_model import plain

from carspotter import load
from carspotter.label import Request, Settings, find_similar, label_archive
from carspotter.label.job import Recogniser

COUNT = 120


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (COUNT, 3), np.uint8)


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of many colours, a broken one among them."""
    folder = tmp_path_factory.mktemp("lot")
    for number, colour in enumerate(colours()):
        plain(tuple(colour.tolist())).save(folder / f"{number:03}.png")
    (folder / "050x.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module", params=["file", "folder"])
def results(
    request: pytest.FixtureRequest,
    lot: Path,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("results") / "results.parquet"
    most = 1 << 30 if request.param == "file" else 1
    label_archive(
        Request((str(lot),), out, Recogniser(str(model)), embeddings=True),
        Settings(chunk=50, most_bytes=most),
    )
    assert out.is_dir() == (request.param == "folder")
    return out


def cosines(colour: np.ndarray) -> np.ndarray:
    """Of the tiny model's embeddings, which are the mean colours."""
    every, one = colours().astype(np.float64), colour.astype(np.float64)
    return every @ one / (np.linalg.norm(every, axis=1) * np.linalg.norm(one))


def test_embeddings_are_those_of_the_model(results: Path, model: Path, lot: Path) -> None:
    rows = pq.read_table(results).to_pylist()
    assert len(rows) == COUNT + 1
    (failed,) = [row for row in rows if row["embedding"] is None]
    assert failed["error_code"] == "not_an_image"
    by_photo = {Path(row["photo"]).stem: row["embedding"] for row in rows}
    for number, colour in enumerate(colours()):
        assert by_photo[f"{number:03}"] == pytest.approx(colour / 255, abs=1e-3)


def test_the_most_similar_come_first(
    results: Path, model: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    colour = np.array([200, 30, 90], np.uint8)
    plain(tuple(colour.tolist())).save(tmp_path / "wanted.png")
    call = ("similar", tmp_path / "wanted.png", "--in", results, "--model", model, "--top", "7")
    done = carspotter_here(*call, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = np.sort(cosines(colour))[::-1][:7]
    assert [match["similarity"] for match in found] == pytest.approx(expected, abs=2e-3)
    best = int(np.argmax(cosines(colour)))
    assert Path(found[0]["photo"]).stem == f"{best:03}"
    assert set(found[0]) == {"photo", "level", "label", "similarity"}
    text = carspotter_here(*call).stdout.splitlines()
    assert len(text) == 7
    assert found[0]["photo"] in text[0]


def test_a_photo_of_the_archive_finds_itself(results: Path, model: Path, lot: Path) -> None:
    found = find_similar(load(model), str(lot / "017.png"), results, top=1000)
    assert len(found) == COUNT
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    assert [m.similarity for m in found] == sorted((m.similarity for m in found), reverse=True)


def test_embeddings_are_compared_in_the_models_space(lot: Path, tmp_path: Path) -> None:
    spaced = tiny_model.write(tmp_path / "spaced.onnx", space_text=tiny_model.SPACE.to_json())
    out = tmp_path / "results.parquet"
    label_archive(Request((str(lot),), out, Recogniser(str(spaced)), embeddings=True))
    spotter = load(spaced)
    plain((90, 40, 200)).save(tmp_path / "wanted.png")
    found = find_similar(spotter, str(tmp_path / "wanted.png"), out, top=5)
    inside = np.sqrt(colours() / 255) - tiny_model.SPACE.mean
    wanted = np.sqrt(np.array([90, 40, 200]) / 255) - tiny_model.SPACE.mean
    norms = np.linalg.norm(inside, axis=1) * np.linalg.norm(wanted)
    expected = np.sort(inside @ wanted / norms)[::-1][:5]
    assert [match.similarity for match in found] == pytest.approx(expected, abs=5e-3)


def test_what_cannot_be_searched(
    results: Path, model: Path, lot: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    photo = lot / "000.png"
    other = tiny_model.write(
        tmp_path / "other.onnx", tiny_model.card().to_json().replace("tiny", "other")
    )
    plain_results = tmp_path / "plain.parquet"
    label_archive(Request((str(photo),), plain_results, Recogniser(str(model))))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("text")
    for query, place, of, message in (
        (photo, results, other, "is of another model, tiny"),
        (photo, plain_results, model, "label the archive with --embeddings"),
        (photo, tmp_path / "empty", model, "a folder without results"),
        (photo, tmp_path / "none.parquet", model, "not results of carspotter label"),
        (photo, tmp_path / "text.parquet", model, "not results of carspotter label"),
    ):
        done = carspotter_here("similar", query, "--in", place, "--model", of)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr


@pytest.mark.parametrize(
    ("name", "message"), [("050x.png", "not an image"), ("none.png", "no such file")]
)
def test_a_photo_that_cannot_be_used(
    results: Path, model: Path, lot: Path, carspotter_here: Carspotter, name: str, message: str
) -> None:
    done = carspotter_here("similar", lot / name, "--in", results, "--model", model)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"carspotter: {lot / name}: {message}")

"""`carspotter identify --explain DIR`: which pictures it writes, and what it leaves alone."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import tiny_model
from cli_checks import complaint, lines
from conftest import Carspotter, encoded
from PIL import Image
from tiny_model import BLUE, GREEN, RED, plain

from carspotter import load
from carspotter.card import HEAD_KEY


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_photo_gets_its_picture(
    carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    arguments = ("identify", colours, "--model", model)
    done = carspotter(*arguments, "--explain", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == carspotter(*arguments).stdout
    assert written(folder) == sorted(f"{c}.explain.jpg" for c in ("black", "blue", "green", "red"))
    spotter = load(model)
    for name in ("red", "green"):
        buffer = io.BytesIO()
        spotter.explain(colours / f"{name}.png").overlay().save(buffer, "JPEG", quality=90)
        assert (folder / f"{name}.explain.jpg").read_bytes() == buffer.getvalue()


@pytest.mark.parametrize("style", [["--json"], ["--csv"]])
def test_results_are_those_without_it(
    carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path, style: list[str]
) -> None:
    arguments = ("identify", colours, "--model", model, "--box", "0,0,20,20", "--top", "2", *style)
    assert carspotter(*arguments, "--explain", tmp_path).stdout == carspotter(*arguments).stdout
    assert len(written(tmp_path)) == 4


def test_equal_names_are_kept_apart(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    places = [tmp_path / "one" / "car.png", tmp_path / "two" / "car.png", tmp_path / "CAR.jpg"]
    for place, colour in zip(places, (RED, GREEN, BLUE), strict=True):
        place.parent.mkdir(exist_ok=True)
        plain(colour, (640, 640)).save(place)
    for _ in range(2):  # the same call writes the same files
        folder = tmp_path / "heat"
        assert (
            carspotter("identify", *places, "--model", model, "--explain", folder).returncode == 0
        )
        names = ["car.explain.jpg", "car-2.explain.jpg", "CAR-3.explain.jpg"]
        assert written(folder) == sorted(names)
        for name, place in zip(names, places, strict=True):
            drawn = Image.open(folder / name)
            expected = load(model).explain(place).overlay()
            assert drawn.getpixel((320, 600)) == pytest.approx(expected.getpixel((320, 600)), abs=9)


def test_no_photo_is_written_over(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    photos = {"a.jpg": RED, "a.explain.jpg": GREEN, "elsewhere/b.jpg": BLUE}
    (tmp_path / "elsewhere").mkdir()
    for name, colour in photos.items():
        (tmp_path / name).write_bytes(encoded(plain(colour)))
    (tmp_path / "link.png").symlink_to("b.explain.jpg")
    (tmp_path / "b.explain.jpg").write_bytes(encoded(plain(BLUE)))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    arguments = [*(tmp_path / name for name in photos), tmp_path / "link.png"]
    assert (
        carspotter("identify", *arguments, "--model", model, "--explain", tmp_path).returncode == 0
    )
    assert {path: path.read_bytes() for path in before} == before
    added = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert added - {path.name for path in before} == {
        "a-2.explain.jpg",
        "a.explain.explain.jpg",
        "b-2.explain.jpg",
        "link.explain.jpg",
    }


def test_what_was_written_is_not_taken_for_a_photo(
    carspotter: Carspotter, model: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(encoded(plain(RED)))
    for folder in (tmp_path, tmp_path / "zz"):
        for _ in range(2):
            arguments = ("identify", tmp_path, "--model", model, "--json", "--explain", folder)
            assert len(lines(carspotter(*arguments))) == 2
            assert [path.name for path in sorted(folder.glob("*.explain.jpg"))] == [
                "a.explain.jpg",
                "b.explain.jpg",
            ]
    # Named itself, it is a photo as any other.
    shown = tmp_path / "a.explain.jpg"
    assert len(lines(carspotter("identify", shown, "--model", model, "--json"))) == 1


def test_stdin(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    done = carspotter(
        "identify", "-", "--model", model, "--explain", tmp_path, stdin=encoded(plain(RED))
    )
    assert done.returncode == 0
    assert written(tmp_path) == ["stdin.explain.jpg"]


def test_a_failed_photo_has_no_picture(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "red.jpg").write_bytes(encoded(plain(RED)))
    photos = (tmp_path / "missing.jpg", tmp_path / "broken.jpg", tmp_path / "red.jpg")
    folder = tmp_path / "heat"
    done = carspotter("identify", *photos, "--model", model, "--json", "--explain", folder)
    found = lines(done, exit_code=1)
    assert [result["error"] is None for result in found] == [False, False, True]
    assert written(folder) == ["red.explain.jpg"]


def test_a_long_name(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    photo = tmp_path / f"{'ü' * 120}.jpg"
    photo.write_bytes(encoded(plain(RED)))
    folder = tmp_path / "heat"
    assert carspotter("identify", photo, "--model", model, "--explain", folder).returncode == 0
    assert written(folder) == [f"{'ü' * 100}.explain.jpg"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be(
    carspotter: Carspotter, model: Path, colours: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("I am in the way")
    folder = tmp_path / place
    said = complaint(carspotter("identify", colours, "--model", model, "--explain", folder))
    assert f"--explain {folder}: cannot be written" in said
    assert (tmp_path / "file").read_text() == "I am in the way"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [({}, "make it again by `carspotter export`"), ({HEAD_KEY: "its head is crooked"}, "crooked")],
)
def test_a_model_that_cannot_be_explained(
    carspotter: Carspotter, colours: Path, tmp_path: Path, metadata: dict[str, str], said: str
) -> None:
    model = tiny_model.write(tmp_path / "old.onnx", head=None, metadata=metadata)
    folder = tmp_path / "heat"
    arguments = ("identify", colours, "--model", model)
    assert said in complaint(carspotter(*arguments, "--explain", folder))
    assert not folder.exists()
    assert carspotter(*arguments).returncode == 0


def test_a_name_that_is_not_utf_8(carspotter: Carspotter, model: Path, tmp_path: Path) -> None:
    folder, photo = tmp_path / "heat", str(tmp_path / "caf\udce9.jpg")
    try:
        shutil.copy(tiny_photo(tmp_path), photo)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes only UTF-8 names")
    assert carspotter("identify", photo, "--model", model, "--explain", folder).returncode == 0
    assert written(folder) == ["caf\udce9.explain.jpg"]


def tiny_photo(folder: Path) -> Path:
    file = folder / "photo.jpg"
    file.write_bytes(encoded(plain(RED)))
    return file

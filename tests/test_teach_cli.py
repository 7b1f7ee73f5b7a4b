"""`carspotter teach`, `identify --garage` and `carspotter garage`, run as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_detectors
from cli_checks import complaint, lines
from conftest import Carspotter
from PIL import Image
from taught_cars import PLUM, TEAL, model_with_space, photos, words
from tiny_model import ANSWERS, RED, plain

PARTS = ("--make", "Acme", "--body", "SUV", "--year", "2026")
NAME = "Acme Plum SUV 2026"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_space(tmp_path_factory.mktemp("model"))


@pytest.fixture
def plum(tmp_path: Path) -> list[Path]:
    return photos(tmp_path / "plum", PLUM, 5)


@pytest.fixture
def garage(tmp_path: Path) -> Path:
    return tmp_path / "garage.npz"


def test_from_teaching_to_forgetting(
    carspotter: Carspotter, model: Path, plum: list[Path], garage: Path, tmp_path: Path
) -> None:
    use = ("--garage", garage, "--model", model)
    done = carspotter("teach", NAME, *plum[:4], *use, *PARTS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{garage}: {NAME}, 4 photos, 4 of them new\n"
    plain(RED).save(tmp_path / "red.png")
    named, known = lines(carspotter("identify", plum[4], tmp_path / "red.png", *use, "--json"))
    answer = named["answer"]
    assert (answer["level"], answer["label"]) == ("exact", NAME)
    parts = [answer[key] for key in ("make", "model", "body", "year")]
    assert parts == ["Acme", "Plum", "SUV", 2026]
    assert named["candidates"][0]["label"] == NAME
    assert sum(c["confidence"] for c in named["candidates"]) == pytest.approx(1, abs=1e-3)
    assert known["answer"]["label"] == ANSWERS[RED][1]

    more = carspotter("teach", NAME, plum[4], plum[0], *use, "--add", "--json")
    assert more.returncode == 0
    assert "0.png: taught already" in more.stderr
    lesson = json.loads(more.stdout)
    assert (lesson["photos"], lesson["added"]) == (5, [str(plum[4])])
    assert (lesson["label"], lesson["make"], lesson["year"]) == (NAME, "Acme", 2026)

    listed = carspotter("garage", "list", "--garage", garage)
    assert listed.stdout == f"{garage}: 1 car, taught to tiny\n  {NAME}, 5 photos\n"
    moved = carspotter(
        "garage", "rename", NAME, "Acme Prune 2027", *("--garage", garage), *PARTS[:2]
    )
    assert moved.stdout == f"{garage}: {NAME} is now Acme Prune 2027\n"
    about = json.loads(carspotter("garage", "list", "--garage", garage, "--json").stdout)
    (car,) = about["cars"]
    assert (car["label"], car["make"], car["model"]) == ("Acme Prune 2027", "Acme", "Prune 2027")
    gone = carspotter("garage", "forget", "acme prune 2027", "--garage", garage, "--quiet")
    assert (gone.returncode, gone.stdout, gone.stderr) == (0, "", "")
    listed = carspotter("garage", "list", "--garage", garage)
    assert listed.stdout.startswith(f"{garage}: 0 cars, taught to tiny")
    (found,) = lines(carspotter("identify", plum[4], *use, "--json"))
    assert NAME not in [c["label"] for c in found["candidates"]]


def test_photos_that_cannot_be_used(
    carspotter: Carspotter, model: Path, plum: list[Path], garage: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "text.jpg").write_text("no photo")
    (folder / "cut.jpg").write_bytes(plum[0].read_bytes()[:60])
    use = ("--garage", garage, "--model", model)
    none = carspotter("teach", NAME, folder, tmp_path / "gone.jpg", *use)
    assert none.returncode == 1
    assert "was not taught" in none.stdout
    assert len(none.stderr.splitlines()) == 3
    assert not garage.exists()
    some = carspotter("teach", NAME, folder, plum[0], *use, "--json")
    assert some.returncode == 1
    lesson = json.loads(some.stdout)
    assert lesson["photos"] == 1
    assert {f["error"]["code"] for f in lesson["failed"]} == {"not_an_image", "broken"}
    assert all(f["error"]["message"].startswith(f["photo"]) for f in lesson["failed"])
    other = carspotter("teach", "Other", plum[0], *use)
    assert other.returncode == 1
    assert f"{NAME} was taught from this photo" in other.stderr


def test_a_photo_without_a_car(
    carspotter: Carspotter, model: Path, garage: Path, tmp_path: Path
) -> None:
    detector = tiny_detectors.localiser(tmp_path / "l.onnx", [[2, 2, 30, 30]], [0.9])
    Image.new("RGB", (80, 64)).save(tmp_path / "night.png")
    command = ("teach", NAME, tmp_path / "night.png", "--garage", garage, "--model", model)
    done = carspotter(*command, "--detector", detector)
    assert done.returncode == 1
    assert "night.png: no car found" in done.stderr
    assert carspotter(*command, "--detector", detector, "--crop", "none").returncode == 0


def test_a_part_that_is_too_small_costs_its_photo_alone(
    carspotter: Carspotter, model: Path, garage: Path, tmp_path: Path
) -> None:
    """A box of 20x25 pixels, of which a smaller photo has but a part."""
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    plain(PLUM, (20, 40)).save(small)
    plain(PLUM, (60, 40)).save(large)
    command = ("teach", NAME, small, large, "--garage", garage, "--model", model)
    done = carspotter(*command, "--box", "10,10,30,35", "--json")
    assert done.returncode == 1
    lesson = json.loads(done.stdout)
    assert lesson["added"] == [str(large)]
    (failed,) = lesson["failed"]
    assert (failed["photo"], failed["error"]["code"]) == (str(small), "too_small")
    assert done.stderr.startswith(f"carspotter: {small}: its part with the car is 10x25 pixels")


def test_a_photo_of_a_known_car(
    carspotter: Carspotter, model: Path, garage: Path, tmp_path: Path
) -> None:
    plain(RED).save(tmp_path / "red.png")
    command = ("teach", NAME, tmp_path / "red.png", "--garage", garage, "--model", model)
    done = carspotter(*command)
    assert done.returncode == 0
    assert "without this lesson it is Audi S4 Sedan 2012" in done.stderr
    garage.unlink()
    assert carspotter(*command, "--quiet").stderr == ""


def test_stdin(carspotter: Carspotter, model: Path, plum: list[Path], garage: Path) -> None:
    done = carspotter(
        "teach", NAME, "-", "--garage", garage, "--model", model, stdin=plum[0].read_bytes()
    )
    assert done.stdout == f"{garage}: {NAME}, 1 photo, 1 of them new\n"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode here")
def test_a_file_name_that_is_not_utf_8(
    carspotter: Carspotter, model: Path, plum: list[Path], garage: Path, tmp_path: Path
) -> None:
    photo = plum[0].rename(tmp_path / os.fsdecode(b"\xff.png"))
    strict = {"PYTHONIOENCODING": "utf-8"}
    command = ("teach", NAME, photo, "--garage", garage, "--model", model)
    done = carspotter(*command, "--json", env=strict)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] == [str(photo)]


def test_refusals(carspotter: Carspotter, model: Path, plum: list[Path], garage: Path) -> None:
    use = ("--garage", garage, "--model", model)
    known = carspotter("teach", "AUDI TT hatchback 2011", plum[0], *use)
    assert "one of the classes that tiny knows" in complaint(known)
    assert "not taught yet" in complaint(carspotter("teach", NAME, plum[0], *use, "--add"))
    assert carspotter("teach", NAME, plum[0], *use).returncode == 0
    again = carspotter("teach", NAME, plum[1], *use)
    assert "--add gives it more" in complaint(again)
    assert "Kia" in complaint(carspotter("teach", "A B", plum[1], *use, "--make", "Kia"))
    assert "--crop" in complaint(carspotter("teach", "A B", plum[1], *use, "--crop", "x"))
    assert "--box" in complaint(carspotter("teach", "A B", plum[1], *use, "--box", "1,2"))
    assert "nobody" in complaint(carspotter("garage", "forget", "nobody", "--garage", garage))
    gone = garage.with_name("gone.npz")
    for verb in (("list",), ("forget", "x"), ("rename", "x", "y")):
        assert "no such garage" in complaint(carspotter("garage", *verb, "--garage", gone))
    assert "no such garage" in complaint(
        carspotter("identify", plum[0], "--garage", gone, "--model", model)
    )
    assert set(garage.parent.glob(".gone*")) == set()
    assert carspotter("teach", NAME, plum[0]).returncode == 2


def test_a_damaged_garage(
    carspotter: Carspotter, model: Path, plum: list[Path], garage: Path
) -> None:
    use = ("--garage", garage, "--model", model)
    carspotter("teach", NAME, plum[0], *use)
    damaged = garage.read_bytes()[:-40]
    garage.write_bytes(damaged)
    for command in (
        ("teach", "Other", plum[1], *use),
        ("identify", plum[1], *use),
        ("garage", "list", "--garage", garage),
        ("garage", "forget", NAME, "--garage", garage),
    ):
        assert str(garage) in complaint(carspotter(*command))
    assert garage.read_bytes() == damaged


def test_of_another_model(
    carspotter: Carspotter, model: Path, plum: list[Path], garage: Path
) -> None:
    carspotter("teach", NAME, plum[0], "--garage", garage, "--model", model)
    message = complaint(carspotter("identify", plum[0], "--garage", garage))
    assert "taught to tiny" in message


def test_many_at_once_lose_no_car(model: Path, garage: Path, tmp_path: Path) -> None:
    colours = [PLUM, TEAL, (20, 10, 0), (0, 10, 20), (10, 0, 20), (10, 20, 0)]
    runs = []
    for n, colour in enumerate(colours):
        files = words(photos(tmp_path / f"car{n}", colour, 2))
        command = [sys.executable, "-m", "carspotter", "teach", f"Car {n}", *files]
        command += ["--garage", str(garage), "--model", str(model)]
        runs.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ)))
    assert [run.wait(timeout=120) for run in runs] == [0] * len(colours)
    from carspotter.garage import read_garage

    assert {car.name.label for car in read_garage(garage).cars} == {
        f"Car {n}" for n in range(len(colours))
    }


def test_changes_of_a_garage_in_json(
    carspotter_here: Carspotter, model: Path, plum: list[Path], garage: Path
) -> None:
    carspotter_here("teach", NAME, *plum[:2], "--garage", garage, "--model", model)
    command = ("garage", "rename", NAME, "Acme Prune 2027", "--make", "Acme", "--garage", garage)
    renamed = json.loads(carspotter_here(*command, "--json").stdout)
    assert (renamed["garage"], renamed["renamed"]) == (str(garage), NAME)
    assert (renamed["label"], renamed["make"]) == ("Acme Prune 2027", "Acme")
    command = ("garage", "forget", "Acme Prune 2027", "--garage", garage)
    forgotten = json.loads(carspotter_here(*command, "--json").stdout)
    assert forgotten == {"garage": str(garage), "forgotten": "Acme Prune 2027"}


@pytest.mark.parametrize(
    "verb", [("teach",), ("garage", "list"), ("garage", "forget"), ("garage", "rename")]
)
def test_help_has_an_example(carspotter: Carspotter, verb: tuple[str, ...]) -> None:
    done = carspotter(*verb, "--help")
    assert done.returncode == 0
    assert f"Example: carspotter {' '.join(verb)}" in done.stdout

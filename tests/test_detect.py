"""Finding the cars first: the two kinds of detector, and what recognition makes of their boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_detectors
import tiny_model
from conftest import Carspotter
from PIL import Image
from tiny_detectors import SIZE, YOLO_SIDE
from tiny_model import GREEN, RED

import carspotter
from carspotter import Spotter, UsageError
from carspotter.detect import Localiser, YoloDetector, load_detector, with_margin, without_doubles
from carspotter.errors import ModelFileError

WHITE = (255, 255, 255)
SMALL, LARGE, UNLIKELY = (2, 4, 10, 12), (16, 8, 36, 28), (0, 0, 40, 32)
BOXES = (SMALL, LARGE, UNLIKELY)
SCORES = (0.9, 0.8, 0.2)


def scene(scale: int = 10) -> Image.Image:
    """A white photo of the localiser's shape: red in the small box, green in the large one."""
    width, height = (side * scale for side in SIZE)
    image = Image.new("RGB", (width, height), WHITE)
    for colour, (left, top, right, bottom) in ((RED, SMALL), (GREEN, LARGE)):
        patch = Image.new("RGB", ((right - left + 4) * scale, (bottom - top + 4) * scale), colour)
        image.paste(patch, ((left - 2) * scale, (top - 2) * scale))
    return image


def scaled(box: tuple[int, ...], scale: int = 10) -> tuple[int, ...]:
    return tuple(side * scale for side in box)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("localiser")
    return tiny_detectors.localiser(folder / "localiser.onnx", BOXES, SCORES)


@pytest.fixture(scope="module")
def spotter(model: Path, file: Path) -> Spotter:
    return carspotter.load(model, detector=file, threads=1)


# --- what is found -----------------------------------------------------------------------------


def test_boxes_are_in_pixels_of_the_photo_the_largest_first(file: Path) -> None:
    found = Localiser(file, threads=1).find(scene())
    assert [v.box for v in found] == [scaled(LARGE), scaled(SMALL)]
    assert found[0].score < found[1].score < 0.9
    wide = Image.new("RGB", (400, 32), "white")
    assert [v.box for v in Localiser(file, threads=1).find(wide)] == [
        (160, 8, 360, 28),
        (20, 4, 100, 12),
    ]


def test_boxes_end_where_the_photo_ends(tmp_path: Path) -> None:
    boxes = [(-5, -5, 20, 16), (50, 50, 60, 60)]  # the second lies outside
    file = tiny_detectors.localiser(tmp_path / "l.onnx", boxes, [0.9, 0.9])
    (only,) = Localiser(file, threads=1).find(Image.new("RGB", (40, 32), "white"))
    assert only.box == (0, 0, 20, 16)


def test_every_car_gets_its_own_answer(spotter: Spotter) -> None:
    photo = scene()
    found = spotter.identify(photo)
    assert found.answer is not None
    assert found.box == scaled(LARGE)
    assert (found.answer.level, found.answer.label) == tiny_model.ANSWERS[GREEN]
    (other,) = found.others
    assert other.box == scaled(SMALL)
    assert (other.answer.level, other.answer.label) == tiny_model.ANSWERS[RED]
    # As if each had been pointed at, with the margin that belongs around it.
    for box, answer, candidates in (
        (found.box, found.answer, found.candidates),
        (other.box, other.answer, other.candidates),
    ):
        pointed = spotter.identify(photo, box=with_margin(box, *photo.size))
        assert pointed.answer == answer
        assert pointed.candidates == candidates
        assert pointed.others == ()


def test_a_photo_without_a_car_is_unknown(spotter: Spotter) -> None:
    black = spotter.identify(Image.new("RGB", (400, 320)))
    assert black.answer is not None
    assert (black.answer.level, black.box, black.others) == ("unknown", None, ())
    red = Image.new("RGB", (400, 320), (60, 0, 0))  # too dark for a vehicle, and yet red
    assert spotter.identify(red, crop="none").answer != spotter.identify(red).answer


def test_the_photo_as_a_whole(spotter: Spotter, model: Path) -> None:
    plain = carspotter.load(model, threads=1)
    for photo in (scene(), Image.new("RGB", (400, 320), RED)):
        assert spotter.identify(photo, crop="none") == plain.identify(photo)
    assert spotter.identify(scene(), crop="none").box is None
    with pytest.raises(UsageError, match="auto or none, not 'both'"):
        spotter.identify(scene(), crop="both")  # type: ignore[arg-type]  # wrong on purpose


def test_many_photos_are_answered_as_one(spotter: Spotter) -> None:
    photos = [scene(), Image.new("RGB", (400, 320)), scene(5), b"broken", scene(3)] * 6
    found = list(spotter.identify_many(photos))
    assert len(found) == 30
    for photo, one in zip(photos, found, strict=True):
        if isinstance(photo, bytes):
            assert one.error is not None
        else:
            assert one == spotter.identify(photo)


def test_margin_is_that_of_the_training_pictures() -> None:
    assert with_margin((100, 100, 500, 500), 1000, 1000) == (84, 84, 516, 516)
    assert with_margin((0, 100, 500, 500), 510, 1000) == (0, 82, 510, 518)


# --- YOLO's forms ------------------------------------------------------------------------------

NAMES = "{0: 'person', 1: 'car', 2: 'Truck'}"


def yolo_rows() -> tuple[np.ndarray, np.ndarray]:
    """Corners in pixels of the input, and scores of three classes, of five places."""
    corners = np.array(
        [[8, 20, 28, 36], [9, 20, 29, 36], [32, 16, 60, 48], [1, 1, 60, 60], [0, 8, 9, 20]]
    )
    scores = np.array([[0, 0.7, 0], [0, 0.9, 0], [0, 0.1, 0.8], [0.9, 0.1, 0], [0, 0.2, 0]])
    return corners.astype(np.float32), scores.astype(np.float32)


def yolo_file(folder: Path, form: str, names: str | None = NAMES) -> Path:
    corners, scores = yolo_rows()
    places = len(corners)
    low, high = corners[:, :2], corners[:, 2:]
    centres = np.concatenate([(low + high) / 2, high - low], axis=1)
    if form == "v8":
        still = np.concatenate([centres, 0 * scores], axis=1)
        moving = np.concatenate([0 * centres, scores], axis=1)
        # At least as many places as numbers, as it always is.
        still, moving = (np.pad(x, ((0, 20), (0, 0))) for x in (still, moving))
        return tiny_detectors.yolo(folder / "v8.onnx", still.T, moving.T, names)
    if form == "v5":
        one = np.ones((places, 1), np.float32)
        still = np.concatenate([centres, 0 * one, scores], axis=1)
        moving = np.concatenate([0 * centres, one, 0 * scores], axis=1)
        still, moving = (np.pad(x, ((0, 20), (0, 0))) for x in (still, moving))
        return tiny_detectors.yolo(folder / "v5.onnx", still, moving, names)
    kept = [1, 2, 3]
    number = scores.argmax(axis=1)[kept, None].astype(np.float32)
    best = scores.max(axis=1)[kept, None]
    still = np.concatenate([corners[kept], 0 * best, number], axis=1)
    moving = np.concatenate([0 * corners[kept], best, 0 * number], axis=1)
    still, moving = (np.pad(x, ((0, 20), (0, 0))) for x in (still, moving))
    return tiny_detectors.yolo(folder / "end.onnx", still, moving, names)


@pytest.mark.parametrize("form", ["v8", "v5", "end-to-end"])
def test_each_form_gives_the_same_vehicles(tmp_path: Path, form: str) -> None:
    detector = load_detector(yolo_file(tmp_path, form), threads=1)
    assert isinstance(detector, YoloDetector)
    found = detector.find(Image.new("RGB", (YOLO_SIDE, YOLO_SIDE), "white"))
    # The truck and one of the two cars in one place: no person, and nothing unlikely.
    assert [v.box for v in found] == [(32, 16, 60, 48), (9, 20, 29, 36)]
    assert [v.score for v in found] == pytest.approx([0.8, 0.9])
    # On a photo twice as wide as high there are grey bars above and below.
    wide = detector.find(Image.new("RGB", (128, 64), "white"))
    assert wide[0].box == (64, 0, 120, 64)
    assert wide[1].box == (18, 8, 58, 40)
    assert detector.find(Image.new("RGB", (64, 64))) == ()


def test_a_foreign_detector_in_recognition(model: Path, tmp_path: Path) -> None:
    spotter = carspotter.load(model, detector=yolo_file(tmp_path, "v8"), threads=1)
    found = spotter.identify(Image.new("RGB", (128, 128), WHITE))
    assert found.box == (64, 32, 120, 96)
    assert [car.box for car in found.others] == [(18, 40, 58, 72)]


def test_doubles_are_dropped() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (60, 2))], 1).astype(np.float32)
    scores = rng.uniform(size=60).astype(np.float32)
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision").ops
    kept = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).numpy()
    found, sure = without_doubles(boxes, scores, 0.5)
    assert np.array_equal(found, boxes[kept])
    assert np.array_equal(sure, scores[kept])
    assert len(kept) < 60


# --- what is refused ---------------------------------------------------------------------------


def test_files_that_are_no_detector(tmp_path: Path, model: Path, file: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(ModelFileError) as raised:
            load_detector(path, threads=1)
        assert str(path) in str(raised.value)
        return str(raised.value)

    assert "no such" in refusal(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    assert "cannot load" in refusal(tmp_path / "text.onnx")
    assert "no localiser" in refusal(model)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(damaged)
    assert "damaged" in refusal(tmp_path / "damaged.onnx")
    for name, form, names in (
        ("none of its classes", "v8", "{0: 'person', 1: 'dog', 2: 'cat'}"),
        ("cannot be read", "v8", "not a list"),
        ("its names speak of more", "v8", "{0: 'person', 7: 'car'}"),
    ):
        path = yolo_file(tmp_path, form, names)
        with pytest.raises(ModelFileError, match=name):
            load_detector(path, threads=1).find(Image.new("RGB", (64, 64)))
    newer = json.dumps({"format_version": 99, "kind": "localiser"})
    path = tiny_detectors.localiser(tmp_path / "newer.onnx", BOXES, SCORES, card_text=newer)
    assert "format 99" in refusal(path)


def test_a_localiser_is_no_classifier(file: Path) -> None:
    with pytest.raises(ModelFileError, match="--detector"):
        carspotter.load(file)


# --- the command -------------------------------------------------------------------------------


def test_the_command(carspotter: Carspotter, model: Path, file: Path, tmp_path: Path) -> None:
    scene().save(tmp_path / "two.png")
    Image.new("RGB", (400, 320)).save(tmp_path / "none.png")
    command = ("identify", tmp_path / "two.png", tmp_path / "none.png", "--model", model)
    done = carspotter(*command, "--detector", file, "--json")
    two, none = (json.loads(line) for line in done.stdout.splitlines())
    assert two["box"] == list(scaled(LARGE))
    assert [other["box"] for other in two["others"]] == [list(scaled(SMALL))]
    assert set(two["others"][0]) == {"answer", "candidates", "box"}
    assert two["others"][0]["answer"]["label"] == tiny_model.ANSWERS[RED][1]
    assert (none["answer"]["level"], none["box"], none["others"]) == ("unknown", None, [])
    text = carspotter(*command, "--detector", file).stdout
    assert "also: Audi S4 Sedan 2012" in text
    assert "none.png: no car found" in text
    whole = carspotter(*command, "--detector", file, "--crop", "none", "--json").stdout
    assert all(json.loads(line)["box"] is None for line in whole.splitlines())
    wrong = carspotter(*command, "--crop", "sideways")
    assert wrong.returncode == 2
    assert "auto or none" in wrong.stderr
    gone = carspotter(*command, "--detector", tmp_path / "gone.onnx")
    assert gone.returncode == 2
    assert "gone.onnx" in gone.stderr

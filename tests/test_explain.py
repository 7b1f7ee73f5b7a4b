"""The heat map: what a model whose map is known says, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
import tiny_model
from conftest import encoded
from PIL import Image
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, LABELS, RED, SIZE, WEIGHTS, plain

from carspotter import Explanation, ModelFileError, PhotoError, Spotter, UsageError, load
from carspotter.card import HEAD_KEY
from carspotter.detect import with_margin
from carspotter.overlay import coloured

GREY = (100, 100, 100)


@pytest.fixture(scope="module")
def spotter(model: Path) -> Spotter:
    return load(model)


def patched(
    place: tuple[int, int, int, int],
    colour: tuple[int, int, int] = RED,
    size: tuple[int, int] = (SIZE, SIZE),
) -> Image.Image:
    """Black, with one coloured rectangle."""
    image = plain(BLACK, size)
    image.paste(colour, place)
    return image


def inside(array: np.ndarray, place: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = place
    return array[top:bottom, left:right]


class Counting:
    """An onnxruntime session that notes what it is asked for."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.asked: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: Sequence[str], inputs: dict[str, np.ndarray]) -> Any:
        self.asked.append(list(outputs))
        return self._session.run(outputs, inputs)


# --- what it says ------------------------------------------------------------------------------


def test_the_evidence_is_what_each_place_adds_to_the_logit(spotter: Spotter) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    logits = spotter.logits(photo[None])[0]
    for number, label in enumerate(LABELS):
        evidence = spotter.explain(photo, label=label).cars[0].evidence
        assert evidence.dtype == np.float32
        assert np.allclose(evidence, photo / 255 @ WEIGHTS[:, number], atol=1e-4)
        assert evidence.mean() == pytest.approx(logits[number], abs=1e-3)


@pytest.mark.parametrize("place", [(0, 0, 8, 8), (20, 4, 30, 12), (5, 22, 12, 32)])
def test_the_heat_is_where_the_evidence_is(
    spotter: Spotter, place: tuple[int, int, int, int]
) -> None:
    [car] = spotter.explain(patched(place), label=LABELS[0]).cars
    heat = car.heat
    assert (heat.shape, heat.dtype) == ((SIZE, SIZE), np.float32)
    assert (inside(heat, place) == 1).all()
    assert heat.sum() == inside(heat, place).sum()


def test_the_heat_has_the_size_of_what_was_looked_at(spotter: Spotter) -> None:
    place = (60, 10, 120, 40)
    [car] = spotter.explain(patched(place, size=(120, 80)), label=LABELS[0]).cars
    assert (car.box, car.region, car.heat.shape) == (None, (0, 0, 120, 80), (80, 120))
    assert inside(car.heat, (72, 18, 112, 32)).min() > 0.99
    assert inside(car.heat, (0, 0, 50, 80)).max() < 0.01
    assert (car.heat.min(), car.heat.max()) == (0, 1)


def test_what_speaks_against_a_class_is_kept_and_not_shown(tmp_path: Path) -> None:
    # This head speaks of red and against green: not the tiny model's own, so means do not fit.
    head = np.zeros((len(LABELS), 3), np.float32)
    head[0] = (20, -30, 0)
    spotter = load(tiny_model.write(tmp_path / "signed.onnx", head=head))
    image = patched((0, 0, 10, SIZE))
    image.paste(GREEN, (20, 0, SIZE, SIZE))
    [car] = spotter.explain(image, label=LABELS[0]).cars
    assert inside(car.evidence, (0, 0, 10, SIZE)) == pytest.approx(20)
    assert inside(car.evidence, (20, 0, SIZE, SIZE)) == pytest.approx(-30)
    assert (inside(car.heat, (0, 0, 10, SIZE)) == 1).all()
    assert not inside(car.heat, (20, 0, SIZE, SIZE)).any()


def test_nothing_speaks_for_the_class(spotter: Spotter) -> None:
    explained = spotter.explain(plain(BLACK))
    assert not explained.cars[0].heat.any()
    assert explained.overlay().size


@pytest.mark.parametrize("colour", ANSWERS)
def test_the_result_is_that_of_identify(spotter: Spotter, colour: tuple[int, int, int]) -> None:
    photo = plain(colour)
    explained = spotter.explain(photo, top_k=2)
    assert explained.result == spotter.identify(photo, top_k=2)
    # At whatever level the answer is, the most probable class is explained.
    assert [car.label for car in explained.cars] == [explained.result.candidates[0].label]
    with_label = spotter.explain(photo, label=LABELS[3], top_k=2)
    assert with_label.result == explained.result
    assert with_label.cars[0].label == LABELS[3]


def test_a_class_that_the_model_does_not_have(spotter: Spotter) -> None:
    with pytest.raises(UsageError, match=r"no class 'Audi S4 Sedan'.*'Audi S4 Sedan 20"):
        spotter.explain(plain(RED), label="Audi S4 Sedan")
    with pytest.raises(UsageError, match=r"no class 'qqq'$"):
        spotter.explain_many([], label="qqq")


def test_only_the_box_is_looked_at(spotter: Spotter) -> None:
    image = patched((0, 0, 20, 80), size=(120, 80))
    image.paste(GREEN, (60, 0, 120, 80))
    explained = spotter.explain(image, box=(60, 10, 200, 70))
    [car] = explained.cars
    assert car.box == car.region == explained.result.box == (60, 10, 120, 70)
    assert car.heat.shape == (60, 60)
    assert (car.heat == 1).all()
    with pytest.raises(PhotoError) as raised:
        spotter.explain(image, box=(500, 0, 600, 10))
    assert raised.value.code == "box_outside"


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"crop": "maybe"}, {"box": (5, 5, 1, 1)}], ids=str)
def test_wrong_calls(spotter: Spotter, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        spotter.explain(plain(RED), **wrong)
    with pytest.raises(UsageError):
        spotter.explain_many([], **wrong)


# --- several cars ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def street(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Spotter:
    """Finds two cars on a white photo: the right half, and a small one at the left top."""
    width, height = tiny_detectors.SIZE
    boxes = [[2, 2, 10, 10], [width / 2, 4, width - 2, height - 4]]
    file = tmp_path_factory.mktemp("detector") / "two.onnx"
    return load(model, detector=tiny_detectors.localiser(file, boxes, [0.9, 0.8]))


def test_each_car_is_explained(street: Spotter) -> None:
    photo = plain((255, 255, 255), (400, 320))
    photo.paste(RED, (190, 20, 400, 300))
    explained = street.explain(photo)
    result = explained.result
    assert result == street.identify(photo)
    assert len(result.others) == 1
    boxes = [result.box, result.others[0].box]
    assert [car.box for car in explained.cars] == boxes
    for car, box in zip(explained.cars, boxes, strict=True):
        assert box is not None
        left, top, right, bottom = car.region
        assert car.region == with_margin(box, 400, 320) != box
        assert car.heat.shape == (bottom - top, right - left)
    assert [car.label for car in explained.cars] == [
        result.candidates[0].label,
        result.others[0].candidates[0].label,
    ]
    # The heat lies on what was looked at, and the rest of the photo stays as it is.
    before, after = np.asarray(photo.resize((640, 512))), np.asarray(explained.overlay())
    assert (after[250:450, 30:280] == before[250:450, 30:280]).all()
    assert (after[150:400, 340:560] != before[150:400, 340:560]).any(axis=2).all()


def test_the_photo_as_a_whole(street: Spotter) -> None:
    photo = plain((255, 255, 255), (400, 320))
    [car] = street.explain(photo, crop="none").cars
    assert (car.box, car.region) == (None, (0, 0, 400, 320))
    [car] = street.explain(plain(BLACK, (400, 320))).cars  # no car is found on it
    assert (car.box, car.region) == (None, (0, 0, 400, 320))


# --- many --------------------------------------------------------------------------------------


def test_many_are_explained_as_one(spotter: Spotter, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    photos: list[Any] = [plain(colour) for colour in ANSWERS] * 5
    photos.insert(3, tmp_path / "no.jpg")
    found = list(spotter.explain_many(photos))
    assert [e.result for e in found] == list(spotter.identify_many(photos))
    for place, explained in enumerate(found):
        if place == 3:
            assert explained.cars == ()
            with pytest.raises(PhotoError, match=r"no\.jpg"):
                explained.overlay()
        else:
            again = spotter.explain(photos[place])
            assert (explained.cars[0].evidence == again.cars[0].evidence).all()
            assert explained.overlay() == again.overlay()


def test_the_network_runs_once_and_gives_no_more_than_is_asked(model: Path) -> None:
    spotter = load(model, threads=1)
    counting = Counting(spotter._model._session)
    spotter._model._opened.ort = counting
    spotter.identify(plain(RED))
    list(spotter.identify_many([plain(RED)] * 3))  # a few go one by one
    assert counting.asked == [["logits", "embedding"]] * 4
    list(spotter.identify_many([plain(RED)] * 20))  # many by fours
    assert counting.asked == [["logits", "embedding"]] * 9
    counting.asked.clear()
    spotter.explain(plain(RED)).overlay()
    assert len(counting.asked) == 1
    for explained in spotter.explain_many([plain(RED)] * 20):
        explained.overlay()
    assert len(counting.asked) == 6


# --- how it is shown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((3200, 800), (1600, 400)), ((800, 900), (800, 900)), ((64, 48), (640, 480))],
)
def test_the_picture_has_a_size_to_look_at(
    spotter: Spotter, size: tuple[int, int], drawn: tuple[int, int]
) -> None:
    explained = spotter.explain(plain(GREY, size))
    assert explained.overlay().size == drawn
    assert explained.cars[0].heat.shape == size[::-1]


def test_the_picture_is_upright(spotter: Spotter) -> None:
    lying = plain(BLACK, (900, 700))
    lying.paste(RED, (0, 0, 900, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees: what was above is at the right
    explained = spotter.explain(encoded(lying, exif=exif), label=LABELS[0])
    assert explained.overlay().size == (700, 900)
    heat = explained.cars[0].heat
    assert heat[:, 480:].min() > 0.95
    assert heat[:, :350].max() < 0.05


def test_hot_places_are_yellow_and_cold_ones_violet(spotter: Spotter) -> None:
    hot = (400, 300, 800, 800)
    photo = patched(hot, size=(800, 800))
    overlay = np.asarray(spotter.explain(photo, label=LABELS[0]).overlay()).astype(int)
    red, green, blue = inside(overlay, (450, 350, 750, 750)).mean(axis=(0, 1))
    assert min(red, green) > blue + 60
    red, green, blue = inside(overlay, (50, 350, 350, 750)).mean(axis=(0, 1))
    assert blue > max(red, green)


def test_equal_steps_of_heat_look_equal() -> None:
    colours = coloured(np.linspace(0, 1, 256, dtype=np.float32)[None])[0] / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    cube = np.where(luminance > 216 / 24389, np.cbrt(luminance), 841 / 108 * luminance + 4 / 29)
    lightness = 116 * cube - 16  # CIELAB's L*
    even = np.linspace(lightness[0], lightness[-1], 256)
    assert lightness[-1] - lightness[0] > 80
    assert np.abs(lightness - even).max() < 2
    assert np.diff(lightness).min() > -0.1


def written_on(explained: Explanation) -> np.ndarray:
    """Where the picture has the label's dark ground."""
    dark = (np.asarray(explained.overlay()) == 16).all(axis=2)
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


def test_names_are_written_within_the_picture(spotter: Spotter, street: Spotter) -> None:
    photo = plain(GREY, (900, 700))
    left, top, right, bottom = written_on(spotter.explain(photo))
    assert (left, top) == (0, 0)
    assert right > 200
    assert 20 < bottom < 120
    # A box at the right edge: its label is moved to the left, and stays whole.
    boxed = written_on(spotter.explain(photo, box=(880, 300, 900, 400)))
    assert boxed[0] < 700
    assert boxed[2] <= 899
    # A narrow picture: the name takes several lines.
    narrow = written_on(spotter.explain(plain(GREY, (150, 900))))
    assert narrow[2] <= 149
    assert narrow[3] > bottom


def test_the_photo_is_not_changed(spotter: Spotter) -> None:
    pixels = np.full((700, 900, 3), 90, np.uint8)
    explained = spotter.explain(pixels)
    first = explained.overlay()
    assert (pixels == 90).all()
    assert explained.overlay() == first


# --- files -------------------------------------------------------------------------------------


def test_a_file_of_half_precision(model: Path, tmp_path: Path) -> None:
    half = load(tiny_model.write(tmp_path / "half.onnx", head=WEIGHTS.T.astype(np.float16)))
    photo = patched((3, 4, 20, 20))
    found, expected = (s.explain(photo).cars[0].evidence for s in (half, load(model)))
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [({}, "carspotter export"), ({HEAD_KEY: "its head is crooked"}, "no exact.*head is crooked")],
)
def test_a_file_without_the_head(tmp_path: Path, metadata: dict[str, str], said: str) -> None:
    file = tiny_model.write(tmp_path / "old.onnx", head=None, metadata=metadata)
    spotter = load(file)
    assert spotter.identify(plain(RED)).answer is not None
    for call in (spotter.explain, lambda photo: spotter.explain_many([photo])):
        with pytest.raises(ModelFileError, match=rf"old\.onnx: .*{said}"):
            call(plain(BLUE))


@pytest.mark.parametrize("shape", [(3, 4), (4, 5), (4,)])
def test_a_head_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = tiny_model.write(tmp_path / "odd.onnx", head=np.zeros(shape, np.float32))
    with pytest.raises(ModelFileError, match=r"odd\.onnx: its graph does not fit its card"):
        load(file)

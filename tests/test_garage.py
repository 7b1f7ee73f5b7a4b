"""Cars that were taught: what is answered, what is refused, and what becomes of the file."""

from __future__ import annotations

import io
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_detectors
import tiny_model
from PIL import Image
from taught_cars import OLIVE, PLUM, TEAL, model_with_space, photos
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, RED, plain

import carspotter
from carspotter import CarName, GarageError, Spotter, UsageError
from carspotter.garage import Garage, JointScores, TaughtPhoto, read_garage, write_garage
from carspotter.likeness import fit_space, likeness_in
from carspotter.names import name_of, split_name
from carspotter.teaching import teach

PLUM_CAR = CarName("Acme Plum SUV 2026", "Acme", "Plum", "SUV", 2026)


@pytest.fixture(scope="module")
def spotter(tmp_path_factory: pytest.TempPathFactory) -> Spotter:
    return carspotter.load(model_with_space(tmp_path_factory.mktemp("model")), threads=1)


@pytest.fixture
def garage(tmp_path: Path) -> Path:
    return tmp_path / "garage.npz"


@pytest.fixture
def taught(spotter: Spotter, garage: Path, tmp_path: Path) -> Path:
    """A garage of two cars."""
    teach(spotter, garage, PLUM_CAR, photos(tmp_path / "plum", PLUM, 2))
    teach(spotter, garage, CarName("Teal Thing"), photos(tmp_path / "teal", TEAL, 1))
    return garage


def labels(garage: Path) -> list[tuple[str, int]]:
    return [(car.name.label, len(car.photos)) for car in read_garage(garage).cars]


def bytes_of(colour: tuple[int, int, int], width: int = 48) -> bytes:
    buffer = io.BytesIO()
    plain(colour, (width, 40)).save(buffer, "PNG")
    return buffer.getvalue()


class TestAnswers:
    def test_taught_cars_are_answered(self, spotter: Spotter, taught: Path) -> None:
        both = carspotter.load(spotter.path, garage=taught, threads=1)
        found = both.identify(plain(PLUM))
        assert found.answer is not None
        assert (found.answer.level, found.answer.name) == ("exact", PLUM_CAR)
        assert found.candidates[0].name == PLUM_CAR
        teal = both.identify(plain(TEAL)).answer
        assert teal is not None
        assert (teal.label, teal.name.make, teal.name.year) == ("Teal Thing", None, None)
        assert spotter.identify(plain(PLUM)).answer != found.answer

    @pytest.mark.parametrize("colour", [RED, GREEN, BLUE])
    def test_known_cars_stay(
        self, spotter: Spotter, taught: Path, colour: tuple[int, int, int]
    ) -> None:
        both = spotter.with_garage(read_garage(taught))
        answer = both.identify(plain(colour)).answer
        assert answer is not None
        assert (answer.level, answer.label) == ANSWERS[colour]

    @pytest.mark.parametrize("colour", [RED, BLACK, PLUM, OLIVE, (90, 10, 70)])
    def test_one_scale(self, spotter: Spotter, taught: Path, colour: tuple[int, int, int]) -> None:
        both = spotter.with_garage(read_garage(taught))
        found = both.identify(plain(colour), top_k=100)
        assert len(found.candidates) == 6
        assert sum(c.confidence for c in found.candidates) == pytest.approx(1)
        assert {c.label for c in found.candidates} >= {"Teal Thing", PLUM_CAR.label}
        (many,) = both.identify_many([plain(colour)], top_k=100)
        assert many.to_dict() == found.to_dict()

    def test_levels_join_taught_cars(self, spotter: Spotter, garage: Path, tmp_path: Path) -> None:
        files = photos(tmp_path / "plum", PLUM, 2)
        for year, file in zip((2025, 2026), files, strict=True):
            name = CarName(f"Acme Plum SUV {year}", "Acme", "Plum", "SUV", year)
            teach(spotter, garage, name, [file])
        answer = spotter.with_garage(read_garage(garage)).identify(plain(PLUM)).answer
        assert answer is not None
        assert (answer.level, answer.label, answer.name.year) == ("model", "Acme Plum", None)

    def test_without_a_space_the_known_logits_are_compared(
        self, tmp_path: Path, garage: Path
    ) -> None:
        plain_model = carspotter.load(tiny_model.write(tmp_path / "plain.onnx"), threads=1)
        teach(plain_model, garage, PLUM_CAR, [plain(PLUM)])
        both = plain_model.with_garage(read_garage(garage))
        answer = both.identify(plain(PLUM)).answer
        assert answer is not None
        assert answer.name == PLUM_CAR

    def test_more_photos_count(self, spotter: Spotter, garage: Path) -> None:
        teach(spotter, garage, CarName("Mixture"), [plain(PLUM)])
        alone = spotter.with_garage(read_garage(garage)).identify(plain(TEAL), top_k=9)
        teach(spotter, garage, CarName("mixture"), [plain(TEAL)], add=True)
        both = spotter.with_garage(read_garage(garage)).identify(plain(TEAL), top_k=9)
        assert labels(garage) == [("Mixture", 2)]
        share = [
            next(c.confidence for c in found.candidates if c.label == "Mixture")
            for found in (alone, both)
        ]
        assert share[1] > share[0]

    def test_with_and_without(self, spotter: Spotter, taught: Path) -> None:
        both = spotter.with_garage(read_garage(taught))
        for photo in (plain(PLUM), plain(RED)):
            assert both.with_garage(None).identify(photo) == spotter.identify(photo)
        empty = Garage(spotter.info, tuple(c.label for c in spotter.card.classes))
        assert spotter.with_garage(empty).identify(plain(RED)) == spotter.identify(plain(RED))

    def test_many_threads(self, spotter: Spotter, taught: Path) -> None:
        both = spotter.with_garage(read_garage(taught))
        colours = [RED, PLUM, TEAL, BLACK] * 6
        expected = [both.identify(plain(c)).to_dict() for c in colours]
        with ThreadPoolExecutor(6) as pool:
            found = pool.map(lambda c: both.identify(plain(c)).to_dict(), colours)
            assert list(found) == expected

    def test_a_thousand_cars_are_one_matrix_product(self) -> None:
        rng = np.random.default_rng(0)
        info = carspotter.ModelInfo("m", "1", "0" * 64)
        garage = Garage(info, tuple(f"known {n}" for n in range(196)))
        cars = []
        for n in range(1000):
            embedding = rng.random(1280).astype(np.float16)
            photo = TaughtPhoto(f"{n:064}", rng.normal(size=196).astype(np.float16), embedding)
            cars.append(carspotter.garage.TaughtCar(CarName(f"car {n}"), (photo,)))
        garage = replace(garage, cars=tuple(cars))
        space = fit_space(
            rng.random((392, 1280)).astype(np.float32), np.arange(392, dtype=np.int64) % 196, 196
        )
        scores = JointScores(garage, likeness_in(space), 1.0)
        row = scores(
            np.zeros((1, 196), np.float32), cars[7].photos[0].embedding[None].astype(np.float32)
        )
        assert row.shape == (1, 1196)
        assert row[0].argmax() == 196 + 7


class TestTeaching:
    def test_what_is_reported(self, spotter: Spotter, garage: Path, tmp_path: Path) -> None:
        good = photos(tmp_path / "plum", PLUM, 2)
        (tmp_path / "text.jpg").write_text("no photo")
        lesson = teach(
            spotter, garage, PLUM_CAR, [good[0], tmp_path / "text.jpg", good[0], good[1]]
        )
        assert (lesson.photos, lesson.added) == (2, (str(good[0]), str(good[1])))
        assert lesson.skipped == (str(good[0]),)
        ((photo, failure),) = lesson.failed
        assert (photo, failure.code) == (str(tmp_path / "text.jpg"), "not_an_image")
        assert lesson.to_dict()["label"] == PLUM_CAR.label

    def test_nothing_to_teach(self, spotter: Spotter, garage: Path, tmp_path: Path) -> None:
        lesson = teach(spotter, garage, PLUM_CAR, [tmp_path / "none.jpg", b"text"])
        assert (lesson.photos, len(lesson.failed)) == (0, 2)
        assert not garage.exists()

    def test_every_kind_of_source(self, spotter: Spotter, garage: Path, tmp_path: Path) -> None:
        data = bytes_of(PLUM)
        (tmp_path / "a.png").write_bytes(data)
        sources = [data, io.BytesIO(data), tmp_path / "a.png", str(tmp_path / "a.png")]
        lesson = teach(spotter, garage, PLUM_CAR, sources)
        assert (len(lesson.added), len(lesson.skipped)) == (1, 3)
        image = plain(PLUM, (60, 50))
        more = teach(spotter, garage, PLUM_CAR, [image, np.asarray(image)], add=True)
        assert (len(more.added), len(more.skipped), more.photos) == (1, 1, 2)

    def test_a_photo_of_another_car(self, spotter: Spotter, taught: Path, tmp_path: Path) -> None:
        lesson = teach(spotter, taught, CarName("Other"), [tmp_path / "plum" / "0.png"])
        assert lesson.failed[0][1].code == "taught_before"
        assert PLUM_CAR.label in lesson.failed[0][1].message
        assert labels(taught) == [(PLUM_CAR.label, 2), ("Teal Thing", 1)]

    def test_a_photo_of_a_known_car_is_told(self, spotter: Spotter, garage: Path) -> None:
        lesson = teach(spotter, garage, PLUM_CAR, [plain(PLUM), plain(RED)])
        assert [(p, c.label) for p, c in lesson.taken_for] == [("<image>", ANSWERS[RED][1])]

    def test_names_in_use(self, spotter: Spotter, taught: Path) -> None:
        for name, add, message in (
            ("audi s4 sedan 2012", False, "one of the classes"),
            ("Audi S4 Sedan 2012", True, "not taught yet"),
            ("ACME Plum, SUV 2026", False, "taught already, from 2 photos"),
            ("Nothing", True, "leave --add out; in the garage: Acme Plum SUV 2026, Teal Thing"),
        ):
            with pytest.raises(UsageError, match=message):
                teach(spotter, taught, CarName(name), [plain(OLIVE)], add=add)
        with pytest.raises(UsageError, match="other parts"):
            teach(spotter, taught, replace(PLUM_CAR, year=2027), [plain(OLIVE)], add=True)
        assert labels(taught) == [(PLUM_CAR.label, 2), ("Teal Thing", 1)]

    def test_a_private_file_stays_private(self, taught: Path) -> None:
        for mode in (0o600, 0o644):
            taught.chmod(mode)
            write_garage(taught, read_garage(taught).rename("Teal Thing", CarName("Teal Thing")))
            assert stat.S_IMODE(taught.stat().st_mode) == mode

    def test_forget_and_rename(self, taught: Path) -> None:
        garage = read_garage(taught)
        assert [c.name.label for c in garage.forget("teal thing").cars] == [PLUM_CAR.label]
        renamed = garage.rename("Teal Thing", name_of("Teal Car 2020", make="Teal", year=2020))
        assert renamed.cars[1].name == CarName("Teal Car 2020", "Teal", "Car", None, 2020)
        assert garage.rename("teal thing", CarName("TEAL THING")).cars[1].name.label == "TEAL THING"
        for old, new in (
            ("gone", "x"),
            ("Teal Thing", PLUM_CAR.label),
            ("Teal Thing", "audi TT hatchback 2011"),
        ):
            with pytest.raises(UsageError):
                garage.rename(old, CarName(new))

    def test_the_car_that_a_detector_finds(
        self, spotter: Spotter, garage: Path, tmp_path: Path
    ) -> None:
        file = tiny_detectors.localiser(tmp_path / "l.onnx", [[0, 0, 20, 16]], [0.9])
        looking = carspotter.load(spotter.path, detector=file, threads=1)
        scene = Image.new("RGB", (320, 256), (250, 250, 250))
        scene.paste(PLUM, (0, 0, 160, 128))
        assert not teach(looking, garage, PLUM_CAR, [scene]).failed
        answer = spotter.with_garage(read_garage(garage)).identify(plain(PLUM)).answer
        assert answer is not None
        assert answer.name == PLUM_CAR
        empty = Image.new("RGB", (320, 256))
        lesson = teach(looking, garage, PLUM_CAR, [empty], add=True)
        assert lesson.failed[0][1].code == "no_car"
        assert len(teach(looking, garage, PLUM_CAR, [empty], add=True, crop="none").added) == 1

    def test_a_box(self, spotter: Spotter, garage: Path) -> None:
        scene = Image.new("RGB", (320, 256), (250, 250, 250))
        scene.paste(PLUM, (0, 0, 160, 128))
        teach(spotter, garage, PLUM_CAR, [scene], box=(0, 0, 160, 128))
        answer = spotter.with_garage(read_garage(garage)).identify(plain(PLUM)).answer
        assert answer is not None
        assert answer.name == PLUM_CAR
        lesson = teach(spotter, garage, CarName("x"), [plain(TEAL)], box=(900, 0, 950, 10))
        assert lesson.failed[0][1].code == "box_outside"


class TestFile:
    def test_it_is_kept_exactly(self, taught: Path, tmp_path: Path) -> None:
        first = read_garage(taught)
        write_garage(tmp_path / "copy", first)
        second = read_garage(tmp_path / "copy")
        assert (first.model, first.known) == (second.model, second.known)
        for one, other in zip(first.cars, second.cars, strict=True):
            assert one.name == other.name
            for a, b in zip(one.photos, other.photos, strict=True):
                assert a.sha256 == b.sha256
                assert np.array_equal(a.embedding, b.embedding)
                assert np.array_equal(a.logits, b.logits)

    def test_it_needs_no_pickle(self, taught: Path) -> None:
        with np.load(taught, allow_pickle=False) as file:
            assert set(file) == {"about", "logits", "embeddings", "sha256"}
            about = json.loads(bytes(file["about"]))
        assert about["format_version"] == 1
        assert set(about["model"]) == {"name", "version", "sha256"}

    def test_an_empty_garage(self, taught: Path, tmp_path: Path) -> None:
        garage = read_garage(taught).forget("Teal Thing").forget(PLUM_CAR.label)
        write_garage(tmp_path / "empty.npz", garage)
        assert read_garage(tmp_path / "empty.npz").cars == ()

    def test_damage_is_seen(self, taught: Path, tmp_path: Path) -> None:
        data = taught.read_bytes()
        names = labels(taught)
        bad = tmp_path / "bad.npz"
        refused = 0
        for place in range(0, len(data), 7):
            bad.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
            try:
                found = labels(bad)
            except GarageError:
                refused += 1
            else:
                assert found == names  # a date in the archive, or the like
        assert refused > 0.6 * len(data) / 7
        for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
            bad.write_bytes(data[:cut])
            with pytest.raises(GarageError, match=r"bad\.npz"):
                read_garage(bad)

    def test_files_that_are_no_garage(self, tmp_path: Path) -> None:
        (tmp_path / "text.npz").write_text("text")
        np.save(tmp_path / "array.npy", np.zeros(3))
        np.savez(tmp_path / "other.npz", a=np.zeros(3))
        np.savez(tmp_path / "pickle.npz", about=np.array([{}], object))
        for name in ("text.npz", "array.npy", "other.npz", "pickle.npz", "."):
            with pytest.raises(GarageError, match="not a garage"):
                read_garage(tmp_path / name)
        with pytest.raises(GarageError, match="no such garage"):
            read_garage(tmp_path / "gone.npz")

    def test_a_checksum_that_does_not_fit(self, taught: Path, tmp_path: Path) -> None:
        with np.load(taught) as file:
            parts = {key: file[key] for key in file}
        parts["embeddings"] = parts["embeddings"] + 1
        np.savez(tmp_path / "changed.npz", **parts)
        with pytest.raises(GarageError, match="checksum"):
            read_garage(tmp_path / "changed.npz")

    def test_a_newer_format(self, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        garage = read_garage(taught)
        monkeypatch.setattr("carspotter.garage.FORMAT_VERSION", 2)
        write_garage(taught, garage)
        monkeypatch.undo()
        with pytest.raises(GarageError, match="pip install -U carspotter"):
            read_garage(taught)

    def test_another_model(self, taught: Path, tmp_path: Path) -> None:
        other = carspotter.load(tiny_model.write(tmp_path / "other.onnx"), threads=1)
        before = taught.read_bytes()
        with pytest.raises(GarageError, match="embeddings are others"):
            carspotter.load(other.path, garage=taught)
        with pytest.raises(GarageError, match="embeddings are others"):
            teach(other, taught, CarName("x"), [plain(OLIVE)])
        assert taught.read_bytes() == before

    def test_a_damaged_file_is_kept(self, spotter: Spotter, taught: Path) -> None:
        taught.write_bytes(taught.read_bytes()[:-30])
        before = taught.read_bytes()
        with pytest.raises(GarageError):
            teach(spotter, taught, CarName("x"), [plain(OLIVE)])
        assert taught.read_bytes() == before

    def test_a_disk_that_is_full(
        self, spotter: Spotter, taught: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before, files = taught.read_bytes(), set(taught.parent.iterdir())

        def full(file: io.BufferedWriter, **parts: object) -> None:
            file.write(b"some of it")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            teach(spotter, taught, CarName("x"), [plain(OLIVE)])
        assert taught.read_bytes() == before
        assert set(taught.parent.iterdir()) == files

    def test_a_link_stays_one(self, spotter: Spotter, taught: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.npz"
        link.symlink_to(taught)
        teach(spotter, link, CarName("Olive"), [plain(OLIVE)])
        assert link.is_symlink()
        assert len(read_garage(taught).cars) == 3


class TestNames:
    def test_parts(self) -> None:
        found = name_of(
            " Land Rover Defender 110 SUV 2023 ", make="land rover", body="suv", year=2023
        )
        assert found == CarName(
            "Land Rover Defender 110 SUV 2023", "Land Rover", "Defender 110", "SUV", 2023
        )
        assert name_of("Kia EV6", make="Kia") == CarName("Kia EV6", "Kia", "EV6")
        assert name_of("Kia EV6") == CarName("Kia EV6")
        assert name_of("Audi TT Hatchback 2011") == split_name("Audi TT Hatchback 2011")

    @pytest.mark.parametrize(
        ("label", "parts"),
        [
            ("", {}),
            ("  -- ", {}),
            ("two\nlines", {}),
            ("Kia EV6 2024", {"year": 2024}),
            ("Kia EV6 2024", {"body": "SUV"}),
            ("Kia EV6 2024", {"make": "Audi"}),
            ("Kia EV6 2024", {"make": "Kia", "year": 2023}),
            ("Kia EV6 2024", {"make": "Kia", "body": "SUV", "year": 2024}),
            ("Kia EV6 40000", {"make": "Kia", "year": 40000}),
            ("Kia EV6 1884", {"make": "Kia", "year": 1884}),
            ("Kia 2024", {"make": "Kia", "year": 2024}),
            ("Kia", {"make": "Kia"}),
            ("Kia EV6", {"make": " "}),
            ("Kia SUV", {"make": "Kia SUV", "body": "SUV"}),
        ],
    )
    def test_parts_that_do_not_fit(self, label: str, parts: dict[str, object]) -> None:
        with pytest.raises(UsageError):
            name_of(label, **parts)  # type: ignore[arg-type]  # of several types

    def test_names_in_any_script(self, spotter: Spotter, garage: Path) -> None:
        teach(spotter, garage, name_of("日産 サクラ"), [plain(PLUM)])
        teach(spotter, garage, name_of("日産 リーフ"), [plain(TEAL)])
        assert [label for label, _ in labels(garage)] == ["日産 サクラ", "日産 リーフ"]

"""Recognition with a model file that is small enough to be made here."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_model
from conftest import draw_car, encoded
from PIL import Image
from tiny_model import ANSWERS, BLACK, BLUE, GREEN, RED, plain

import carspotter
from carspotter import Identification, ModelFileError, PhotoError, Spotter, UsageError
from carspotter.card import CARD_KEY, sealed
from carspotter.session import open_session


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def spotter(model: Path) -> Spotter:
    return carspotter.load(model, threads=1)


def pictures(count: int) -> list[np.ndarray]:
    return [np.asarray(draw_car(seed, seed)) for seed in range(count)]


def same(one: Identification, other: Identification) -> bool:
    return one.to_dict() == other.to_dict()


class TestLoad:
    def test_a_file_by_path_or_text(self, model: Path) -> None:
        for given in (model, str(model)):
            found = carspotter.load(given)
            assert found.path == model
            assert found.card == tiny_model.card()
            assert found.info.to_dict() == {
                "name": "tiny",
                "version": "1",
                "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            }

    @pytest.mark.parametrize("threads", [0, -1])
    def test_bad_threads(self, model: Path, threads: int) -> None:
        with pytest.raises(UsageError, match=str(threads)):
            carspotter.load(model, threads=threads)

    @pytest.mark.parametrize("max_pixels", [-5, 0, 1e6])
    def test_bad_max_pixels(self, model: Path, max_pixels: Any) -> None:
        with pytest.raises(UsageError, match=f"max_pixels .* not {max_pixels}"):
            carspotter.load(model, max_pixels=max_pixels)

    def test_an_unknown_name_lists_what_is_there(
        self, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shipped = {"one-model": model, "another-model": model}
        monkeypatch.setattr("carspotter.loading.shipped_models", lambda: shipped)
        with pytest.raises(ModelFileError) as raised:
            carspotter.load("no-such-model")
        for name in ("no-such-model", *shipped):
            assert name in str(raised.value)
        assert carspotter.load("another-model").path == model

    def test_a_folder_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="neither"):
            carspotter.load(tmp_path)

    def test_a_damaged_file(self, model: Path, tmp_path: Path) -> None:
        damaged = bytearray(model.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        with pytest.raises(ModelFileError, match="damaged"):
            carspotter.load(tmp_path / "damaged.onnx")

    def test_a_sealed_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_bytes(sealed(b"this is no model" * 20))
        with pytest.raises(ModelFileError, match=r"text\.onnx"):
            carspotter.load(tmp_path / "text.onnx")

    def test_a_model_without_a_card(self, tmp_path: Path) -> None:
        (tmp_path / "bare.onnx").write_bytes(sealed(tiny_model.graph().SerializeToString()))
        with pytest.raises(ModelFileError, match=r"bare\.onnx: has no card"):
            carspotter.load(tmp_path / "bare.onnx")

    def test_a_card_of_a_newer_format(self, tmp_path: Path) -> None:
        file = tiny_model.write(tmp_path / "new.onnx", '{"format_version": 99}')
        with pytest.raises(ModelFileError, match=r"new\.onnx.*pip install -U carspotter"):
            carspotter.load(file)

    @pytest.mark.parametrize(
        "change",
        [
            {"classes": tiny_model.card().classes[:3]},
            {"classes": (*tiny_model.card().classes, tiny_model.card().classes[0])},
            {"input_size": 64},
        ],
        ids=["fewer classes", "more classes", "another size"],
    )
    def test_a_card_that_does_not_fit_the_model(
        self, change: dict[str, object], tmp_path: Path
    ) -> None:
        card = dataclasses.replace(tiny_model.card(), **change)
        with pytest.raises(ModelFileError):
            carspotter.load(tiny_model.write(tmp_path / "m.onnx", card.to_json()))

    def test_a_model_without_logits(self, tmp_path: Path) -> None:
        model = tiny_model.graph()
        del model.graph.output[0]
        onnx.helper.set_model_props(model, {CARD_KEY: tiny_model.card().to_json()})
        (tmp_path / "m.onnx").write_bytes(sealed(model.SerializeToString()))
        with pytest.raises(ModelFileError):
            carspotter.load(tmp_path / "m.onnx")


class TestIdentify:
    @pytest.mark.parametrize("colour", ANSWERS)
    def test_answers(self, spotter: Spotter, colour: tuple[int, int, int]) -> None:
        found = spotter.identify(plain(colour))
        assert found.answer is not None
        assert (found.answer.level, found.answer.label) == ANSWERS[colour]
        assert (found.error, found.box, found.photo) == (None, None, "<image>")
        assert found.model == spotter.info

    def test_logits_are_the_models(self, spotter: Spotter) -> None:
        inputs = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        expected = (inputs / 255).mean((1, 2)) @ tiny_model.WEIGHTS
        np.testing.assert_allclose(spotter.logits(inputs), expected, rtol=1e-5)

    def test_every_kind_of_source_gives_the_same(self, spotter: Spotter, tmp_path: Path) -> None:
        image = draw_car(3, 1)
        data = encoded(image, "PNG")
        file = tmp_path / "a.png"
        file.write_bytes(data)
        sources = (file, str(file), data, io.BytesIO(data), image, np.asarray(image))
        found = [spotter.identify(source) for source in sources]
        names = [f.photo for f in found]
        assert names == [str(file), str(file), "<bytes>", "<file>", "<image>", "<array>"]
        assert len({f.answer for f in found}) == len({f.candidates for f in found}) == 1

    def test_sources_are_not_changed(self, spotter: Spotter) -> None:
        for side in (32, 50):
            array = np.full((side, side, 3), 77, np.uint8)
            spotter.identify(array, box=(0, 0, 20, 20))
            spotter.identify(array)
            assert (array == 77).all()

    @pytest.mark.parametrize("top_k", [1, 2, 4, 100])
    def test_top_k(self, spotter: Spotter, top_k: int) -> None:
        found = spotter.identify(plain(RED), top_k=top_k)
        assert len(found.candidates) == min(top_k, 4)
        assert found.candidates[0].label == "Audi S4 Sedan 2012"
        (many,) = spotter.identify_many([plain(RED)], top_k=top_k)
        assert same(found, many)

    @pytest.mark.parametrize("top_k", [0, -3])
    def test_bad_top_k(self, spotter: Spotter, top_k: int) -> None:
        with pytest.raises(UsageError, match=str(top_k)):
            spotter.identify(plain(RED), top_k=top_k)
        # At the call, not at the first result.
        with pytest.raises(UsageError, match=str(top_k)):
            spotter.identify_many([], top_k=top_k)

    @pytest.mark.parametrize("top_k", [1.5, "2", None])
    def test_top_k_that_is_no_number(self, spotter: Spotter, top_k: Any) -> None:
        with pytest.raises(UsageError, match="whole number"):
            spotter.identify(plain(RED), top_k=top_k)

    @pytest.mark.parametrize("kind", [np.array, list, lambda box: tuple(map(np.int64, box))])
    def test_numbers_of_other_kinds(self, spotter: Spotter, kind: Callable[[Any], Any]) -> None:
        found = spotter.identify(plain(RED), box=kind((0, 0, 20, 30)), top_k=np.int64(2))
        (many,) = spotter.identify_many([plain(RED)], box=kind((0, 0, 20, 30)), top_k=np.int64(2))
        assert same(found, many)
        assert json.loads(json.dumps(found.to_dict()))["box"] == [0, 0, 20, 30]

    @pytest.mark.parametrize(
        "box", [(1, 2, 3), (0.5, 0, 20, 30), "0,0,9,9", 7, (0, 0, None, 9), (9, 0, 9, 9)]
    )
    def test_what_is_no_box(self, spotter: Spotter, box: Any) -> None:
        for call in (spotter.identify, spotter.explain, spotter.main_view):
            with pytest.raises(UsageError, match="the box "):
                call(plain(RED), box=box)

    def test_box(self, spotter: Spotter) -> None:
        image = plain(RED, (100, 50))
        image.paste(BLUE, (60, 0, 100, 50))
        for box, colour in (((0, 0, 60, 50), RED), ((60, 0, 100, 50), BLUE)):
            found = spotter.identify(image, box=box)
            (many,) = spotter.identify_many([image], box=box)
            assert same(found, many)
            assert found.answer is not None
            assert (found.answer.level, found.answer.label) == ANSWERS[colour]
            assert found.box == box

    def test_a_box_speaks_of_the_upright_photo(self, spotter: Spotter) -> None:
        # Stored upside down: red at the bottom is red at the top once it is upright.
        image = plain(BLUE, (40, 80))
        image.paste(RED, (0, 40, 40, 80))
        exif = Image.Exif()
        exif[0x112] = 3
        found = spotter.identify(encoded(image, "PNG", exif=exif), box=(0, 0, 40, 40))
        assert found.answer is not None
        assert found.answer.label == ANSWERS[RED][1]

    @pytest.mark.parametrize("box", [(200, 0, 300, 50), (-9, -9, 0, 0), (0, 50, 10, 60)])
    def test_a_box_outside(self, spotter: Spotter, box: tuple[int, int, int, int]) -> None:
        with pytest.raises(PhotoError, match="<image>") as raised:
            spotter.identify(plain(RED, (100, 50)), box=box)
        assert raised.value.code == "box_outside"

    def test_a_failure_is_raised(self, spotter: Spotter, tmp_path: Path) -> None:
        with pytest.raises(PhotoError) as raised:
            spotter.identify(tmp_path / "none.jpg")
        assert raised.value.code == "not_found"


class TestIdentifyMany:
    @pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 50])
    def test_it_equals_identify_and_keeps_the_order(self, spotter: Spotter, count: int) -> None:
        sources = pictures(count)
        found = list(spotter.identify_many(sources))
        assert [f.to_dict() for f in found] == [spotter.identify(s).to_dict() for s in sources]

    @pytest.mark.parametrize("threads", [2, 3])
    def test_side_by_side_they_are_as_each_alone(self, model: Path, threads: int) -> None:
        several = carspotter.load(model, threads=threads)
        sources: list[Any] = [*pictures(30), b"no photo", *pictures(7)]
        found = [f.to_dict() for f in several.identify_many(sources)]
        assert found[30]["error"]["code"] == "not_an_image"
        del sources[30], found[30]
        assert found == [several.identify(s).to_dict() for s in sources]

    def test_slow_photos_do_not_change_the_order(self, spotter: Spotter, tmp_path: Path) -> None:
        files = []
        for k in range(40):
            files.append(tmp_path / f"{k}.png")
            plain(RED if k % 2 else BLUE, (1500, 1500) if k % 7 == 0 else (40, 40)).save(files[-1])
        found = list(spotter.identify_many(files))
        assert [f.photo for f in found] == [str(file) for file in files]
        labels = [f.answer and f.answer.label for f in found]
        assert labels == [ANSWERS[RED if k % 2 else BLUE][1] for k in range(40)]

    def test_failures_are_results(self, spotter: Spotter, tmp_path: Path) -> None:
        (tmp_path / "text.jpg").write_text("no photo")
        sources = [
            plain(RED),
            tmp_path / "none.jpg",
            b"",
            plain(BLUE),
            tmp_path / "text.jpg",
            tmp_path,
            np.zeros((4, 4, 3), np.uint8),
            plain(BLACK),
            plain(GREEN),
        ]
        found = list(spotter.identify_many(sources))
        codes = [None if f.error is None else f.error.code for f in found]
        assert codes == [
            *(None, "not_found", "empty", None, "not_an_image", "unreadable", "too_small"),
            *(None, None),
        ]
        for result in found:
            if result.error is None:
                assert result.answer is not None
            else:
                assert (result.answer, result.candidates, result.box) == (None, (), None)
                assert result.error.message.startswith(f"{result.photo}: ")
                assert result.model == spotter.info
        assert [f.answer.label for f in found if f.answer] == [
            ANSWERS[colour][1] for colour in (RED, BLUE, BLACK, GREEN)
        ]

    def test_what_is_no_photo_fails_alone(self, spotter: Spotter, colours: Path) -> None:
        class Torn(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise EOFError

        with (colours / "red.png").open(encoding="utf-8") as text:
            sources: list[Any] = [plain(RED), None, text, io.StringIO("x"), Torn(), 7, plain(BLUE)]
            found = list(spotter.identify_many(sources))
        names = ["<image>", "<NoneType>", text.name, "<file>", "<file>", "<int>", "<image>"]
        assert [f.photo for f in found] == names
        assert [f.error and f.error.code for f in found] == [None, *["unreadable"] * 5, None]
        assert all(f.error.message.startswith(f"{f.photo}: ") for f in found if f.error)
        assert found[2].error is not None
        assert "binary mode" in found[2].error.message

    @pytest.mark.parametrize("photo", ["a.jpg", Path("a.jpg"), b"a", io.BytesIO(), plain(RED)])
    def test_one_photo_is_not_many(self, spotter: Spotter, photo: Any) -> None:
        for many in (spotter.identify_many, spotter.explain_many, spotter.observe_many):
            with pytest.raises(UsageError, match=f"not one {type(photo).__name__}"):
                many(photo)

    def test_nothing_but_failures(self, spotter: Spotter) -> None:
        found = list(spotter.identify_many([b"x"] * 20))
        assert [f.error and f.error.code for f in found] == ["not_an_image"] * 20

    def test_it_is_lazy_and_bounded(self, spotter: Spotter) -> None:
        taken = 0

        def endless() -> Iterator[np.ndarray]:
            nonlocal taken
            for taken in range(1, 1001):  # noqa: B007 (counted for the test)
                yield np.zeros((32, 32, 3), np.uint8)

        results = spotter.identify_many(endless())
        assert taken == 0
        most = 0
        for given, _ in enumerate(results, start=1):
            most = max(most, taken - given)
        assert (given, taken) == (1000, 1000)
        assert most <= 40

    def test_it_can_be_given_up(self, spotter: Spotter) -> None:
        results = spotter.identify_many(iter(lambda: plain(RED), None))
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert next(results, None) is None
        assert spotter.identify(plain(RED)).answer is not None

    def test_an_error_of_the_callers_iterable_is_passed_on(self, spotter: Spotter) -> None:
        def sources() -> Iterator[Image.Image]:
            yield plain(RED)
            raise KeyError("the caller's own")

        with pytest.raises(KeyError, match="the caller's own"):
            list(spotter.identify_many(sources()))

    def test_a_box_outside_of_one_photo(self, spotter: Spotter) -> None:
        found = list(
            spotter.identify_many(
                [plain(RED, (20, 20)), plain(RED, (90, 90))], box=(30, 30, 80, 80)
            )
        )
        assert [f.error and f.error.code for f in found] == ["box_outside", None]
        assert [f.box for f in found] == [None, (30, 30, 80, 80)]


def test_one_spotter_serves_many_threads(spotter: Spotter) -> None:
    sources = pictures(12)
    options = [
        {"top_k": 1 + k % 4, "box": (0, 0, 40 + k, 50) if k % 2 else None} for k in range(12)
    ]
    jobs = list(zip(sources, options, strict=True))
    expected = [spotter.identify(s, **o).to_dict() for s, o in jobs]  # type: ignore[arg-type]

    def work(shift: int) -> bool:
        for round_ in range(5):
            for k in range(len(jobs)):
                place = (k * 5 + shift + round_) % len(jobs)
                source, option = jobs[place]
                found = spotter.identify(source, **option)  # type: ignore[arg-type]
                if found.to_dict() != expected[place]:
                    return False
        many = [spotter.identify(s).to_dict() for s in sources]
        return [f.to_dict() for f in spotter.identify_many(sources)] == many

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_calls_that_begin_together_open_one_more_session(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def slow(*arguments: Any) -> Any:
        opened.append(arguments)
        time.sleep(0.2)
        return open_session(*arguments)

    spotter = carspotter.load(model, threads=2)
    monkeypatch.setattr("carspotter.session.open_session", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: list(spotter.identify_many(pictures(10))), range(4)))
    assert len(opened) == 1


def test_observations_are_results_with_what_they_rest_on(model: Path, colours: Path) -> None:
    spotter = carspotter.load(model)
    photos = [str(colours / "red.png"), str(colours / "none.png"), str(colours / "blue.png")]
    seen = list(spotter.observe_many(photos, readers=3))
    assert [one.result for one in seen] == list(spotter.identify_many(photos))
    red, failed, blue = seen
    assert red.embedding == pytest.approx([1, 0, 0])
    assert blue.embedding == pytest.approx([0, 0, 1])
    assert red.seconds is not None
    assert red.seconds > 0
    assert (failed.embedding, failed.seconds) == (None, None)

"""Photos that cannot be used: each trouble has its code, and none escapes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import encoded
from PIL import Image
from ugly_photos import CAR, LOSSLESS, PIXELS, hand_made_png, icon, refusal

from carspotter.errors import PhotoError
from carspotter.photo import MAX_PIXELS, MIN_SIDE, read_photo


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return hand_made_png(30_000, 30_000)


ENDLESS = 2_000
"""Bytes that are kept of a drawn JPEG, to cut it off in the middle."""


class TestTrouble:
    @pytest.fixture
    def put(self, tmp_path: Path) -> Callable[[str, bytes], Path]:
        def write(name: str, content: bytes) -> Path:
            (tmp_path / name).write_bytes(content)
            return tmp_path / name

        return write

    @pytest.fixture
    def sources(self, put: Callable[[str, bytes], Path], tmp_path: Path, bomb: bytes) -> dict:
        heic = io.BytesIO()
        pillow_heif.from_pillow(CAR).save(heic)
        one = Image.new("RGB", (1, 1))
        (tmp_path / "folder.jpg").mkdir()
        return {
            put("truncated.jpg", encoded(CAR, quality=95)[:ENDLESS]): "broken",
            put("truncated.png", LOSSLESS[:-2_000]): "broken",
            put("truncated.webp", encoded(CAR, "WEBP")[:-200]): "broken",
            put("truncated.gif", encoded(CAR, "GIF")[:ENDLESS]): "broken",
            put("truncated.heic", heic.getvalue()[:-200]): "broken",
            put("text.jpg", b"This is no photo.\n" * 50): "not_an_image",
            put("zeros.jpg", bytes(5_000)): "not_an_image",
            put("page.png", b"<!DOCTYPE html><html><body>404</body></html>"): "not_an_image",
            put("jpeg-start.jpg", b"\xff\xd8\xff"): "not_an_image",
            put("empty.jpg", b""): "empty",
            put("dot.png", encoded(one, "PNG")): "too_small",
            put("flat.png", encoded(one.resize((500, MIN_SIDE - 1)), "PNG")): "too_small",
            put("bomb.png", bomb): "too_large",
            put("bomb.ico", icon(bomb)): "too_large",
            tmp_path / "missing.jpg": "not_found",
            tmp_path / "missing" / "a.jpg": "not_found",
            tmp_path / "folder.jpg": "unreadable",
            tmp_path / ("long" * 100): "unreadable",
            tmp_path / "nul\0.jpg": "unreadable",
        }

    def test_each_trouble_has_its_code(self, sources: dict[Path, str]) -> None:
        found = {file.name: refusal(file).code for file in sources}
        assert found == {file.name: code for file, code in sources.items()}
        # The one code that is left needs a box.
        assert set(found.values()) == PhotoError.CODES - {"box_outside"}

    def test_each_message_is_one_line_that_names_the_photo(self, sources: dict[Path, str]) -> None:
        for file in sources:
            for message in (str(refusal(file)), str(refusal(str(file)))):
                assert message.startswith(f"{file}: ")
                assert "\n" not in message or file.suffix == ".heic"
                assert len(message) < 1000 + len(str(file))

    def test_a_message_has_no_line_breaks(self, sources: dict[Path, str]) -> None:
        assert [str(refusal(file)) for file in sources if "\n" in str(refusal(file))] == []

    def test_a_given_name_is_used(self, sources: dict[Path, str]) -> None:
        for file in sources:
            assert str(refusal(file, name="upload 1")).startswith("upload 1: ")

    def test_bytes_and_files_get_the_same_codes(self, sources: dict[Path, str]) -> None:
        for file, code in sources.items():
            if "\0" not in str(file) and code not in ("not_found", "unreadable"):
                error = refusal(file.read_bytes())
                assert (error.code, str(error).partition(": ")[0]) == (code, "<bytes>")
                assert refusal(io.BytesIO(file.read_bytes())).code == code

    def test_the_smallest_photo(self) -> None:
        read_photo(encoded(Image.new("RGB", (MIN_SIDE, MIN_SIDE)), "PNG"))
        error = refusal(Image.new("RGB", (MIN_SIDE, MIN_SIDE - 1)))
        assert error.code == "too_small"
        assert f"{MIN_SIDE}x{MIN_SIDE - 1}" in str(error)

    def test_a_bomb_is_refused_before_it_is_decoded(self, bomb: bytes) -> None:
        import tracemalloc

        assert len(bomb) < 500_000
        tracemalloc.start()
        try:
            assert refusal(bomb).code == "too_large"
            assert tracemalloc.get_traced_memory()[1] < 50_000_000
        finally:
            tracemalloc.stop()

    def test_a_bomb_is_refused_whatever_pillow_was_told(
        self, bomb: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        error = refusal(bomb)
        assert error.code == "too_large"
        assert "30000x30000" in str(error)

    def test_an_array_too_large(self) -> None:
        side = int(MAX_PIXELS**0.5) + 1
        array = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (side, side, 3))
        assert refusal(array).code == "too_large"

    def test_a_file_too_large(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("carspotter.photo.MAX_BYTES", 1 << 20)
        file = tmp_path / "device"
        file.write_bytes(bytes((1 << 20) + 1))
        for source in (file, io.BytesIO(file.read_bytes())):
            error = refusal(source)
            assert (error.code, "1 MiB" in str(error)) == ("too_large", True)
        file.write_bytes(LOSSLESS + bytes((1 << 20) - len(LOSSLESS)))
        np.testing.assert_array_equal(read_photo(file), PIXELS)

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((32, 32), np.uint8),
            np.zeros((32, 32, 1), np.uint8),
            np.zeros((32, 32, 4), np.uint8),
            np.zeros((3, 32, 32), np.uint8),
            np.zeros((1, 32, 32, 3), np.uint8),
            np.zeros((32, 32, 3), np.float32),
            np.zeros((32, 32, 3), np.uint16),
        ],
        ids=lambda array: f"{array.shape}-{array.dtype}",
    )
    def test_arrays_of_other_kinds(self, array: np.ndarray) -> None:
        error = refusal(array)
        assert error.code == "not_an_image"
        assert str(array.shape) in str(error)

    def test_an_array_too_small(self) -> None:
        assert refusal(np.zeros((15, 40, 3), np.uint8)).code == "too_small"
        assert refusal(np.zeros((0, 0, 3), np.uint8)).code == "too_small"

    def test_closed_things(self) -> None:
        opened = Image.open(io.BytesIO(LOSSLESS))
        opened.close()
        assert refusal(opened).code == "broken"
        file = io.BytesIO(LOSSLESS)
        file.close()
        assert refusal(file).code == "unreadable"

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "ICO"])
    def test_damage_gives_pixels_or_a_photo_error(self, form: str) -> None:
        whole = encoded(CAR, form)
        rng = np.random.default_rng(0)
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(256)
            with contextlib.suppress(PhotoError):
                found = read_photo(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
                assert (found.dtype, found.ndim, found.shape[2]) == (np.uint8, 3, 3)

    @pytest.mark.parametrize("source", [bytearray(LOSSLESS), memoryview(LOSSLESS), None, 3])
    def test_what_is_no_source_at_all(self, source: object) -> None:
        with contextlib.suppress(PhotoError):
            read_photo(source)  # type: ignore[arg-type]

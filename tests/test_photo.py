"""Photos of every kind."""

from __future__ import annotations

import io
import os
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import encoded
from PIL import Image, ImageOps
from ugly_photos import CAR, LOSSLESS, PIXELS, with_chunk

from carspotter.errors import PhotoError
from carspotter.listing import in_folder
from carspotter.photo import PHOTO_ENDINGS, PhotoSource, photo_name, read_photo


class TestKindsOfSource:
    def check(self, source: PhotoSource) -> None:
        found = read_photo(source)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, PIXELS)

    def test_path(self, tmp_path: Path) -> None:
        file = tmp_path / "ein Auto 日産.png"
        file.write_bytes(LOSSLESS)
        self.check(file)
        self.check(str(file))

    def test_bytes(self) -> None:
        self.check(LOSSLESS)

    def test_file_objects(self, tmp_path: Path) -> None:
        self.check(io.BytesIO(LOSSLESS))
        file = tmp_path / "a.png"
        file.write_bytes(LOSSLESS)
        with file.open("rb") as opened:
            self.check(opened)

    def test_file_object_that_cannot_seek(self) -> None:
        class Pipe(io.RawIOBase):
            rest = LOSSLESS

            def readable(self) -> bool:
                return True

            def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
                part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
                buffer[: len(part)] = part
                return len(part)

        self.check(io.BufferedReader(Pipe()))

    def test_file_object_that_gives_a_part_at_a_time(self) -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as unbuffered, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.check, unbuffered)
            with os.fdopen(writing, "wb", buffering=0) as sender:
                for place in range(0, len(LOSSLESS), 5000):
                    sender.write(LOSSLESS[place : place + 5000])
                    time.sleep(0.01)
            waiting.result()

    def test_a_read_asks_for_no_more_than_a_photo_has(self, tmp_path: Path) -> None:
        """Python makes room for all that is asked for, which need not be there."""
        (tmp_path / "a.png").write_bytes(LOSSLESS)
        tracemalloc.start()
        try:
            self.check(tmp_path / "a.png")
            assert tracemalloc.get_traced_memory()[1] < 50_000_000
        finally:
            tracemalloc.stop()

    def test_image(self) -> None:
        self.check(CAR)
        self.check(Image.open(io.BytesIO(LOSSLESS)))

    def test_array(self) -> None:
        self.check(PIXELS)

    def test_array_that_is_a_view(self) -> None:
        self.check(PIXELS[::-1, ::-1].copy()[::-1, ::-1])

    @pytest.mark.parametrize("form", ["JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000"])
    def test_formats(self, form: str) -> None:
        plain = Image.new("RGB", (64, 48), (200, 100, 50))
        found = read_photo(encoded(plain, form)).astype(int)
        assert found.shape == (48, 64, 3)
        assert abs(found - (200, 100, 50)).max() <= 4

    def test_a_folder_gives_what_can_be_read(self, tmp_path: Path) -> None:
        """All endings that Pillow knows of these formats, but icons and animations."""
        pillow_heif.register_heif_opener()
        forms = {"JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF", "PPM", "HEIF"}
        Image.init()
        endings = {ending for ending, form in Image.EXTENSION.items() if form in forms}
        assert endings - PHOTO_ENDINGS == {".apng", ".avifs", ".heics", ".heifs", ".pfm"}
        for ending in sorted(PHOTO_ENDINGS):
            assert Image.EXTENSION[ending] in forms
            (tmp_path / f"a{ending}").touch()
        assert len(list(in_folder(str(tmp_path)))) == len(PHOTO_ENDINGS)

    def test_an_ending_says_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(LOSSLESS)
        self.check(tmp_path / "a.jpg")


class TestSourcesAreNotChanged:
    def test_array(self) -> None:
        array = PIXELS.copy()
        array.setflags(write=False)
        read_photo(array)
        np.testing.assert_array_equal(array, PIXELS)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "CMYK", "1", "F", "I"])
    def test_image(self, mode: str) -> None:
        image = CAR.convert("L").convert(mode) if mode in "FI" else CAR.convert(mode)
        image.getexif()[0x112] = 6
        before = image.copy()
        read_photo(image)
        assert (image.mode, image.size) == (mode, CAR.size)
        assert image.tobytes() == before.tobytes()
        assert image.getexif()[0x112] == 6

    def test_what_is_given_does_not_change_the_image(self) -> None:
        image = CAR.copy()
        found = read_photo(image).copy()
        image.paste((0, 0, 0), (0, 0, *image.size))
        np.testing.assert_array_equal(found, PIXELS)


class TestModes:
    def test_cmyk(self) -> None:
        plain = Image.new("RGB", (32, 32), (200, 60, 20)).convert("CMYK")
        found = read_photo(encoded(plain, "JPEG", quality=95)).astype(int)
        assert abs(found - (200, 60, 20)).max() <= 6

    def test_grey(self) -> None:
        grey = CAR.convert("L")
        found = read_photo(encoded(grey, "PNG"))
        np.testing.assert_array_equal(found, np.asarray(grey)[..., None].repeat(3, axis=2))

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    def test_16_bit_levels_are_scaled_not_clipped(self, form: str) -> None:
        levels = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (32, 1))
        found = read_photo(encoded(Image.fromarray(levels), form))
        expected = np.rint(levels / 257).astype(np.uint8)
        assert len(np.unique(found)) > 60
        np.testing.assert_array_equal(found, expected[..., None].repeat(3, axis=2))

    def test_32_bit_levels(self) -> None:
        levels = np.tile(np.array([-5, 0, 257 * 100, 65535, 2**31 - 1], np.int32), (20, 4))
        found = read_photo(encoded(Image.fromarray(levels), "TIFF"))
        assert found[0, :5, 0].tolist() == [0, 0, 100, 255, 255]

    @pytest.mark.parametrize("top", [1.0, 255.0])
    def test_floats(self, top: float) -> None:
        levels = np.tile(np.array([0.0, 0.2, 0.4, 1.0], np.float32) * top, (16, 4))
        found = read_photo(encoded(Image.fromarray(levels), "TIFF"))
        assert found[0, :4, 0].tolist() == [0, 51, 102, 255]

    def test_floats_that_are_no_numbers(self) -> None:
        levels = np.full((16, 16), np.nan, np.float32)
        assert (read_photo(Image.fromarray(levels)) == 0).all()
        levels[:, 8:] = np.inf
        assert read_photo(Image.fromarray(levels))[0, [0, 15], 0].tolist() == [0, 255]

    def test_bilevel(self) -> None:
        half = Image.new("1", (32, 32))
        half.paste(1, (0, 0, 16, 32))
        found = read_photo(encoded(half, "PNG"))
        assert (found[:, :16] == 255).all()
        assert (found[:, 16:] == 0).all()

    def test_palette(self) -> None:
        found = read_photo(encoded(two_colours().convert("P"), "PNG"))
        assert found[0, 0].tolist() == [255, 0, 0]
        assert found[0, -1].tolist() == [0, 0, 255]

    def test_palette_with_transparency(self) -> None:
        image = Image.new("P", (32, 32))
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.paste(1, (16, 0, 32, 32))
        found = read_photo(encoded(image, "PNG", transparency=1))
        assert found[0, 0].tolist() == [255, 0, 0]
        assert found[0, -1].tolist() == [255, 255, 255]

    def test_palette_with_half_transparency(self) -> None:
        image = Image.new("P", (32, 32))
        image.putpalette([255, 0, 0, 0, 0, 255])
        found = read_photo(encoded(image, "PNG", transparency=bytes([0x80, 0xFF])))
        assert abs(found[0, 0].astype(int) - (255, 127, 127)).max() <= 1

    def test_transparency_is_laid_over_white(self) -> None:
        image = Image.new("RGBA", (32, 32), (200, 0, 0, 255))
        image.paste((0, 0, 0, 0), (0, 0, 10, 32))
        image.paste((0, 0, 0, 128), (10, 0, 20, 32))
        for source in (encoded(image, "PNG"), encoded(image, "WEBP", lossless=True), image):
            found = read_photo(source).astype(int)
            assert found[0, 5].tolist() == [255, 255, 255]
            assert abs(found[0, 15] - 127).max() <= 1
            assert found[0, 25].tolist() == [200, 0, 0]

    def test_grey_with_transparency(self) -> None:
        image = Image.new("LA", (32, 32), (0, 0))
        image.paste((90, 255), (16, 0, 32, 32))
        found = read_photo(encoded(image, "PNG"))
        assert found[0, 0].tolist() == [255, 255, 255]
        assert found[0, -1].tolist() == [90, 90, 90]

    @pytest.mark.parametrize("mode", ["L", "1"])
    def test_a_transparent_grey(self, mode: str) -> None:
        found = read_photo(encoded(Image.new(mode, (32, 32), 0), "PNG", transparency=0))
        assert (found == 255).all()

    def test_a_transparent_colour(self) -> None:
        image = Image.new("RGB", (32, 32), (10, 20, 30))
        image.paste((200, 0, 0), (16, 0, 32, 32))
        found = read_photo(encoded(image, "PNG", transparency=(10, 20, 30)))
        assert found[0, -1].tolist() == [200, 0, 0]
        assert found[0, 0].tolist() == [255, 255, 255]

    @pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "RGBa"])
    def test_rarer_modes(self, mode: str) -> None:
        image = Image.new("RGB", (32, 32), (200, 60, 20))
        image = image.convert("RGBA").convert(mode) if mode == "RGBa" else image.convert(mode)
        assert abs(read_photo(image).astype(int) - (200, 60, 20)).max() <= 4


def two_colours() -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 32))
    return image


# How a camera that is held in each of the eight ways stores an upright scene, after the EXIF
# standard: what row 0 and column 0 of the stored picture are in the scene.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda scene: scene,
    2: lambda scene: scene[:, ::-1],
    3: lambda scene: scene[::-1, ::-1],
    4: lambda scene: scene[::-1],
    5: lambda scene: scene.transpose(1, 0, 2),
    6: lambda scene: scene[:, ::-1].transpose(1, 0, 2),
    7: lambda scene: scene[::-1, ::-1].transpose(1, 0, 2),
    8: lambda scene: scene[::-1].transpose(1, 0, 2),
}


def turned(orientation: int) -> tuple[Image.Image, Image.Exif]:
    stored = np.ascontiguousarray(STORED[orientation](PIXELS))
    exif = Image.Exif()
    exif[0x112] = orientation
    return Image.fromarray(stored), exif


class TestRotation:
    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
    def test_photos_are_upright(self, orientation: int, form: str) -> None:
        image, exif = turned(orientation)
        found = read_photo(encoded(image, form, exif=exif, lossless=True))
        np.testing.assert_array_equal(found, PIXELS)

    @pytest.mark.parametrize("orientation", STORED)
    def test_jpegs_are_upright(self, orientation: int) -> None:
        image, exif = turned(orientation)
        found = read_photo(encoded(image, "JPEG", exif=exif, quality=100, subsampling=0))
        assert found.shape == PIXELS.shape
        assert abs(found.astype(int) - PIXELS).mean() < 3

    def test_an_opened_image_is_upright(self) -> None:
        image, exif = turned(6)
        opened = Image.open(io.BytesIO(encoded(image, "PNG", exif=exif)))
        np.testing.assert_array_equal(read_photo(opened), PIXELS)
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(opened)), PIXELS)

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_an_orientation_that_does_not_exist(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x112] = orientation
        np.testing.assert_array_equal(read_photo(encoded(CAR, "PNG", exif=exif)), PIXELS)

    def test_exif_that_makes_no_sense(self) -> None:
        found = read_photo(encoded(CAR, "JPEG", exif=b"Exif\0\0no such thing"))
        assert found.shape == PIXELS.shape

    @pytest.mark.parametrize("at_the_end", [False, True])
    @pytest.mark.parametrize(
        ("kind", "data"),
        [
            (b"eXIf", b"no such thing"),
            (b"eXIf", b"Exif\0\0II*\0\xff\xff\xff\xff"),
            (b"zTXt", b"history\0\0" + zlib.compress(bytes(2_000_000))),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
            (b"zTXt", b"of another compression\0\7"),
        ],
    )
    def test_metadata_that_cannot_be_read(self, kind: bytes, data: bytes, at_the_end: bool) -> None:
        found = read_photo(with_chunk(LOSSLESS, kind, data, at_the_end=at_the_end))
        np.testing.assert_array_equal(found, PIXELS)

    def test_a_photo_with_a_long_text_is_upright(self) -> None:
        image, exif = turned(6)
        text = b"history\0\0" + zlib.compress(bytes(2_000_000))
        found = read_photo(with_chunk(encoded(image, "PNG", exif=exif), b"zTXt", text))
        np.testing.assert_array_equal(found, PIXELS)

    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    def test_heic(self, orientation: int, tmp_path: Path) -> None:
        image, exif = turned(orientation)
        heif = pillow_heif.from_pillow(image)
        heif.info["exif"] = exif.tobytes()
        file = tmp_path / "IMG_0001.HEIC"
        heif.save(file, quality=95)
        found = read_photo(file)
        assert found.shape == PIXELS.shape
        # HEIC halves the resolution of colour, so only the broad picture is the same.
        blocks = [p.astype(float).reshape(9, 8, 12, 8, 3).mean((1, 3)) for p in (found, PIXELS)]
        assert abs(blocks[0] - blocks[1]).mean() < 8


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (32, 32), c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for form, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert read_photo(data)[0, 0].tolist() == [255, 0, 0], form


def test_the_first_of_two_jpegs_in_one_file() -> None:
    """As some cameras and phones save a photo with a second view of it."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert data.startswith(b"\xff\xd8\xff")
    np.testing.assert_allclose(read_photo(data)[0, 0], [255, 0, 0], atol=3)


def test_an_unknown_code_is_a_mistake_in_the_code() -> None:
    with pytest.raises(ValueError, match="sunny"):
        PhotoError("sunny", "a.jpg: too sunny")


def test_names_of_sources(tmp_path: Path) -> None:
    assert photo_name("a/b.jpg") == "a/b.jpg"
    assert photo_name(tmp_path / "b.jpg") == str(tmp_path / "b.jpg")
    assert photo_name(b"\xff\xd8") == "<bytes>"
    assert photo_name(PIXELS) == "<array>"
    assert photo_name(CAR) == "<image>"
    assert photo_name(io.BytesIO()) == "<file>"
    (tmp_path / "c.png").write_bytes(LOSSLESS)
    with (tmp_path / "c.png").open("rb") as opened:
        assert photo_name(opened) == str(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert photo_name(image) == str(tmp_path / "c.png")

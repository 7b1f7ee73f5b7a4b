"""Large JPEG files are decoded at a part of their size, and answered as if they were not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from conftest import draw_car, encoded
from PIL import Image

from carspotter import PhotoError, load
from carspotter.photo import read_photo, read_reduced
from carspotter.preprocess import part_of, scaled_box, to_input
from carspotter.views import read_views

WIDE = (1601, 1203)


@pytest.fixture(scope="module")
def large() -> Image.Image:
    return draw_car(5).resize(WIDE, Image.Resampling.BICUBIC)


def test_a_jpeg_is_decoded_at_the_part_that_keeps_the_detail(large: Image.Image) -> None:
    data = encoded(large, "JPEG", quality=90)
    for share, part in ((1.0, 1), (0.51, 1), (0.49, 2), (0.3, 2), (0.2, 4), (0.12, 8), (0.01, 8)):
        found = read_reduced(data, lambda w, h, share=share: share)
        assert found.size == WIDE
        assert found.image.size == (-(-WIDE[0] // part), -(-WIDE[1] // part)), share
        assert min(found.image.size[0] / WIDE[0], found.image.size[1] / WIDE[1]) >= min(
            share, 1
        ) - 1e-9 or (part == 8)


def test_the_detail_is_asked_for_by_the_size_of_the_photo(large: Image.Image) -> None:
    asked = []

    def detail(width: int, height: int) -> float:
        asked.append((width, height))
        return 1.0

    read_reduced(encoded(large, "JPEG"), detail)
    assert asked == [WIDE]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_decoded_in_full(large: Image.Image, form: str) -> None:
    found = read_reduced(encoded(large, form), lambda w, h: 0.1)
    assert found.image.size == found.size == WIDE


def test_an_image_of_the_callers_is_left_as_it_is(large: Image.Image) -> None:
    opened = Image.open(io.BytesIO(encoded(large, "JPEG")))
    assert read_reduced(opened, lambda w, h: 0.1).image.size == WIDE
    assert opened.size == WIDE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_photos_are_upright(large: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encoded(large, "JPEG", exif=exif, quality=95)
    whole, part = read_photo(data), read_reduced(data, lambda w, h: 0.25)
    assert part.size == (whole.shape[1], whole.shape[0])
    difference = to_input(part.image, 64).astype(int) - to_input(whole, 64)
    assert abs(difference).mean() < 2


def test_broken_files_say_so_when_they_are_reduced(large: Image.Image) -> None:
    data = encoded(large, "JPEG")
    with pytest.raises(PhotoError, match="broken"):
        read_reduced(data[: len(data) // 2], lambda w, h: 0.1)


def test_boxes_keep_their_place() -> None:
    assert scaled_box((0, 0, 1601, 1203), WIDE, (201, 151)) == (0, 0, 201, 151)
    assert scaled_box((800, 600, 1000, 900), (1600, 1200), (400, 300)) == (200, 150, 250, 225)
    assert scaled_box((1600, 1202, 1601, 1203), WIDE, (201, 151)) == (200, 150, 201, 151)
    assert scaled_box((3, 4, 5, 6), WIDE, WIDE) == (3, 4, 5, 6)


def test_a_part_is_the_same_of_a_reduced_photo(large: Image.Image) -> None:
    data = encoded(large, "JPEG", quality=95)
    region = (200, 100, 1400, 1000)
    whole, part = read_reduced(data, None), read_reduced(data, lambda w, h: 0.25)
    difference = to_input(part_of(part, region), 64).astype(int) - to_input(
        part_of(whole, region), 64
    )
    assert abs(difference).mean() < 2


def test_answers_are_those_of_the_whole_photo(large: Image.Image, tmp_path: Path) -> None:
    """A file is reduced, an array never is."""
    spotter = load(tiny_model.write(tmp_path / "tiny.onnx"))
    photo = tmp_path / "large.jpg"
    photo.write_bytes(encoded(large, "JPEG", quality=90))
    pixels = read_photo(photo)
    for box in (None, (300, 200, 1500, 1100), (10, 10, 60, 50)):
        ours, theirs = spotter.identify(photo, box=box), spotter.identify(pixels, box=box)
        assert ours.box == theirs.box
        for one, other in zip(ours.candidates, theirs.candidates, strict=True):
            assert one.label == other.label
            assert one.confidence == pytest.approx(other.confidence, abs=0.02)


def test_a_small_box_of_a_large_photo_is_seen_in_full(tmp_path: Path) -> None:
    """A coloured square of 40 pixels, whose neighbours are of another colour."""
    pixels = np.zeros((1200, 1600, 3), np.uint8)
    pixels[500:540, 700:740] = tiny_model.RED
    photo = tmp_path / "square.jpg"
    Image.fromarray(pixels).save(photo, quality=95, subsampling=0)
    spotter = load(tiny_model.write(tmp_path / "tiny.onnx"))
    found = spotter.identify(photo, box=(700, 500, 740, 540))
    assert found.answer is not None
    assert found.answer.label == tiny_model.ANSWERS[tiny_model.RED][1]
    assert found.box == (700, 500, 740, 540)


@pytest.mark.parametrize("orientation", [1, 6])
def test_what_counts_of_a_box_is_what_the_photo_has_of_it(
    large: Image.Image, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encoded(large, "JPEG", exif=exif)
    width, height = WIDE if orientation == 1 else WIDE[::-1]
    beyond = (width - 50, 0, width + 4000, 4000)
    read, (view,) = read_views(data, tiny_model.card(), box=beyond, detector=None)
    assert read.image.size == read.size == (width, height)
    assert view.box == (width - 50, 0, width, height)

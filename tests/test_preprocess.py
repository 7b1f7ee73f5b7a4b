"""From pixels to model input, and boxes."""

from __future__ import annotations

import numpy as np
import pytest

from carspotter.preprocess import crop_to_box, to_input


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(72, 96), (96, 72), (16, 500), (64, 64), (20, 20), (2, 1)])
def test_input_is_a_square_of_bytes(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    before = picture.copy()
    found = to_input(picture, 64)
    assert found.shape == (64, 64, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(picture, before)


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    picture = noise(64, 64)
    np.testing.assert_array_equal(to_input(picture, 64), picture)


def test_the_whole_picture_is_squashed() -> None:
    picture = np.zeros((40, 200, 3), np.uint8)
    picture[:, :100] = (255, 0, 0)
    picture[:, 100:] = (0, 0, 255)
    found = to_input(picture, 32)
    assert (found[:, :14] == (255, 0, 0)).all()
    assert (found[:, 18:] == (0, 0, 255)).all()


def test_channels_and_rows_keep_their_order() -> None:
    picture = np.zeros((90, 60, 3), np.uint8)
    picture[:45] = (10, 20, 30)
    picture[45:] = (200, 210, 220)
    found = to_input(picture, 30)
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[-1, -1].tolist() == [200, 210, 220]


def test_scaling_down_is_antialiased() -> None:
    # Without antialiasing a fine grid turns into black or white, or into beats of both.
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[::2, ::2] = picture[1::2, 1::2] = 255
    found = to_input(picture, 60)
    assert abs(found.astype(int) - 127).max() < 30


def test_scaling_is_bilinear() -> None:
    ramp = np.repeat(np.linspace(0, 255, 256)[None, :, None], 3, axis=2)
    picture = np.repeat(np.rint(ramp), 256, axis=0).astype(np.uint8)
    found = to_input(picture, 64).astype(float)
    # A straight ramp stays one: the centre of small pixel k lies at 4k + 1.5.
    np.testing.assert_allclose(
        found[:, 2:-2, 0], np.tile(4 * np.arange(2, 62) + 1.5, (64, 1)), atol=1
    )


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="stretch"):
        to_input(noise(20, 20), 16, "stretch")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        ((10, 5, 30, 25), 0, (5, 25), (10, 30)),
        ((10, 5, 30, 25), 4, (1, 29), (6, 34)),
        ((10, 5, 30, 25), 8, (0, 33), (2, 38)),
        ((0, 0, 60, 40), 0, (0, 40), (0, 60)),
        ((0, 0, 60, 40), 100, (0, 40), (0, 60)),
        ((-7, -9, 12, 11), 0, (0, 11), (0, 12)),
        ((50, 30, 900, 700), 0, (30, 40), (50, 60)),
        ((59, 39, 60, 40), 0, (39, 40), (59, 60)),
        ((62, 10, 70, 20), 4, (6, 24), (58, 60)),
    ],
)
def test_a_box_is_cut_out_and_clipped(
    box: tuple[int, int, int, int],
    margin: int,
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> None:
    picture = noise(40, 60)
    np.testing.assert_array_equal(
        crop_to_box(picture, box, margin), picture[slice(*rows), slice(*columns)]
    )


@pytest.mark.parametrize(
    "box",
    [
        (60, 0, 70, 10),
        (0, 40, 10, 50),
        (-20, 0, 0, 10),
        (0, -20, 10, 0),
        (500, 500, 600, 600),
        (10, 10, 10, 20),
        (30, 10, 20, 20),
    ],
)
def test_a_box_that_holds_nothing_of_the_picture(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"60x40") as raised:
        crop_to_box(noise(40, 60), box)
    assert str(box) in str(raised.value)

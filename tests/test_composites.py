"""Scenes that a localiser learns from: what is drawn, and where it is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import encoded
from PIL import Image

from carspotter.data import Crop, Picture, decoded_pictures
from carspotter.data.scenes import part_of, read_backgrounds, read_frames
from carspotter.errors import DataError
from carspotter.localise import composites
from carspotter.localise.composites import KINDS, USUAL, Mix, SceneParts, draw_scene

CAR, GROUND, STREET, TRUCK = (250, 0, 0), (0, 0, 120), (0, 120, 0), (250, 250, 0)
WIDTH, HEIGHT = 160, 128
MARGIN = 0.1


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "cache"))
    return None


def plain(colour: tuple[int, int, int], size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, colour)


def a_car() -> Image.Image:
    """A red car in a picture whose margin of a tenth is grey."""
    image = plain((128, 128, 128), (100, 100))
    image.paste(plain(CAR, (80, 80)), (10, 10))
    return image


def a_frame() -> Image.Image:
    image = plain(STREET, (320, 180))
    image.paste(plain(TRUCK, (100, 60)), (40, 80))
    for stripe in range(40, 140, 3):  # smeared, it is neither yellow nor blue
        image.paste(plain((0, 0, 250), (1, 60)), (stripe, 80))
    image.paste(plain((9, 9, 9), (40, 30)), (250, 20))  # a region that nobody labelled
    return image


def written(folder: Path, name: str, image: Image.Image) -> Picture:
    file = folder / name
    file.write_bytes(encoded(image, "PNG"))
    return Picture(name, "train", "car", file)


@pytest.fixture
def parts(tmp_path: Path) -> SceneParts:
    cars = decoded_pictures([written(tmp_path, "car.png", a_car())], Crop(), 256)
    ground = decoded_pictures([written(tmp_path, "g.png", plain(GROUND, (90, 60)))], Crop(), 256)
    frames = decoded_pictures([written(tmp_path, "street.png", a_frame())], Crop(), 512)
    return SceneParts(
        cars,
        np.array([[200, 100]], np.float32),
        np.array([[MARGIN, MARGIN, 1 - MARGIN, 1 - MARGIN]], np.float32),
        ground,
        frames,
        [np.array([[40, 80, 140, 140]], np.float32)],
        [np.array([[250, 20, 290, 50]], np.float32)],
    )


def only(kind: str, crowded: float = 0.0) -> Mix:
    first, second, third, fourth = (float(kind == one) for one in KINDS)
    return Mix((first, second, third, fourth), crowded)


def share_of(pixels: np.ndarray, colour: tuple[int, int, int], box: np.ndarray) -> float:
    """Share of a box whose hue is that of a colour, however bright it was made."""
    left, top, right, bottom = np.rint(box).astype(int)
    inside = pixels[top:bottom, left:right].astype(float) + 1e-6
    unit = np.array(colour) / np.linalg.norm(colour)
    return float((inside @ unit / np.linalg.norm(inside, axis=2) > 0.97).mean())


def outside(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    rest = pixels.copy()
    for left, top, right, bottom in np.rint(boxes).astype(int):
        rest[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = 0
    return rest


def scenes(parts: SceneParts, count: int = 40, mix: Mix = USUAL) -> Iterator[composites.Scene]:
    for seed in range(count):
        yield draw_scene(np.random.default_rng(seed), parts, 0, WIDTH, HEIGHT, mix)


@pytest.mark.parametrize("kind", ["pasted", "close", "frame", "empty"])
def test_boxes_lie_within_the_scene(parts: SceneParts, kind: str) -> None:
    for scene in scenes(parts, mix=only(kind)):
        assert scene.pixels.shape == (HEIGHT, WIDTH, 3)
        assert scene.pixels.dtype == np.uint8
        assert scene.boxes.shape[1] == 4
        for left, top, right, bottom in scene.boxes:
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT
            assert min(right - left, bottom - top) >= composites.LEAST_SIDE - 1e-3


@pytest.mark.parametrize(
    ("kind", "colour", "least"),
    # Edges are softened, and another car may hide up to a third; a third of the truck is striped.
    [("pasted", CAR, 0.5), ("close", CAR, 0.5), ("frame", TRUCK, 0.3)],
)
def test_each_box_holds_its_vehicle_and_nothing_else_does(
    parts: SceneParts,
    kind: str,
    colour: tuple[int, int, int],
    least: float,
) -> None:
    boxes = 0
    for scene in scenes(parts, mix=only(kind)):
        boxes += len(scene.boxes)
        for box in scene.boxes:
            if min(box[2] - box[0], box[3] - box[1]) > 20:
                assert share_of(scene.pixels, colour, box) > least
        rest = outside(scene.pixels, scene.boxes).reshape(-1, 3)
        unit = np.array(colour) / np.linalg.norm(colour)
        bright = rest[rest.sum(axis=1) > 90].astype(float)
        found = bright @ unit / np.linalg.norm(bright, axis=1) > 0.97
        assert found.sum() < 0.02 * WIDTH * HEIGHT
    assert boxes > 15


def test_cars_are_pasted_on_street_frames_too(parts: SceneParts) -> None:
    pasted = trucks = 0
    for scene in scenes(parts, mix=only("frame", crowded=1.0)):
        for box in scene.boxes:
            pasted += share_of(scene.pixels, CAR, box) > 0.5
            trucks += share_of(scene.pixels, TRUCK, box) > 0.3
        assert len(scene.boxes) <= 3
    assert pasted > 5
    assert trucks > 15


def test_scenes_without_cars_have_none(parts: SceneParts) -> None:
    for scene in scenes(parts, mix=only("empty")):
        assert len(scene.boxes) == 0
        assert not (scene.pixels[..., 0] > 200).any()


def test_what_is_not_labelled_is_smeared(parts: SceneParts) -> None:
    # Seen whole it would be nearly black; smeared over its own region it still is, but plain.
    for scene in scenes(parts, 10, only("frame")):
        dark = scene.pixels[(scene.pixels.sum(axis=2) < 40)]
        assert len(np.unique(dark, axis=0)) <= 2


def test_a_seed_draws_one_scene(parts: SceneParts) -> None:
    for one, same in zip(scenes(parts, 12), scenes(parts, 12), strict=True):
        assert np.array_equal(one.pixels, same.pixels)
        assert np.array_equal(one.boxes, same.boxes)
    drawn = [scene.pixels.tobytes() for scene in scenes(parts, 12)]
    assert len(set(drawn)) == 12


def test_all_kinds_come_up(parts: SceneParts) -> None:
    counts = [len(scene.boxes) for scene in scenes(parts, 80)]
    assert 0 in counts
    assert max(counts) >= 2
    without_frames = SceneParts(parts.cars, parts.sizes, parts.places, parts.backgrounds)
    yellow = [
        (s.pixels[..., 1] > 200).any() & (s.pixels[..., 2] < 60).any()
        for s in scenes(without_frames, 40)
    ]
    assert not any(yellow)


# --- the files -----------------------------------------------------------------------------------


def parquet(file: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def row(name: str, **columns: object) -> dict[str, object]:
    return {"image": {"bytes": encoded(plain(GROUND, (32, 32))), "path": name}, **columns}


def box(label: str, *corners: float) -> dict[str, object]:
    return {"label": label, **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))}


def test_frames_are_read(tmp_path: Path) -> None:
    boxes = [
        box("car", 1, 2, 11, 12),
        box("pedestrian", 0, 0, 4, 9),
        box("truck", 5, 5, 30, 30),
        box("ignore", 20, 0, 31, 4),
    ]
    file = parquet(
        tmp_path / "frames.parquet",
        [row("a.jpg", split="train", boxes=boxes), row("b.jpg", split="test", boxes=[])],
    )
    first, second = read_frames(file)
    assert first.vehicles.tolist() == [[1, 2, 11, 12], [5, 5, 30, 30]]
    assert first.ignored.tolist() == [[20, 0, 31, 4]]
    assert (len(second.vehicles), len(second.ignored)) == (0, 0)
    (only_test,) = read_frames(file, "test")
    assert only_test.picture.key == second.picture.key == "frames/b.jpg"


def test_pictures_that_may_show_a_car_are_left_out(tmp_path: Path) -> None:
    rows = [row("a.jpg", may_show_a_car=False), row("b.jpg", may_show_a_car=True)]
    (picture,) = read_backgrounds(parquet(tmp_path / "grounds.parquet", rows))
    assert picture.key == "grounds/a.jpg"
    plain_rows = [row("a.jpg"), row("b.jpg")]
    assert len(read_backgrounds(parquet(tmp_path / "plain.parquet", plain_rows))) == 2


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet: no such"):
        read_backgrounds(tmp_path / "gone.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"text\.parquet"):
        read_frames(tmp_path / "text.parquet")
    with pytest.raises(DataError, match=r"plain\.parquet.*boxes"):
        read_frames(parquet(tmp_path / "plain.parquet", [row("a.jpg")]))
    turned = [row("a.jpg", boxes=[box("car", 9, 2, 1, 12)])]
    with pytest.raises(DataError, match=r"turned\.parquet, turned/a\.jpg.*turned around"):
        read_frames(parquet(tmp_path / "turned.parquet", turned))
    lame = [row("a.jpg", boxes=[{"label": "car", "x1": 1.0}])]
    with pytest.raises(DataError, match=r"lame\.parquet.*x1, y1"):
        read_frames(parquet(tmp_path / "lame.parquet", lame))
    frames = parquet(tmp_path / "frames.parquet", [row("a.jpg", split="test", boxes=[])])
    with pytest.raises(DataError, match="no frame of split 'train'"):
        read_frames(frames, "train")
    cars = parquet(tmp_path / "cars.parquet", [row("a.jpg", may_show_a_car=True)])
    with pytest.raises(DataError, match="no picture without a car"):
        read_backgrounds(cars)


def test_parts_follow_from_the_key_alone() -> None:
    pictures = [Picture(f"grounds/{n}.jpg", "", "", Path("x")) for n in range(2000)]
    shares = {part: np.mean([part_of(p) == part for p in pictures]) for part in ("train", "val")}
    assert shares["train"] == pytest.approx(0.7, abs=0.05)
    assert shares["val"] == pytest.approx(0.1, abs=0.03)

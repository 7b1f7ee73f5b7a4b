"""The validation part, and the cache of decoded pictures."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, Carspotter, draw_car, encoded, write_parquet
from PIL import Image
from training import tiny

from carspotter.data import (
    Crop,
    Picture,
    PictureReader,
    cache,
    decoded_pictures,
    open_data_set,
    read_pixels,
    stratified_split,
)
from carspotter.errors import DataError

# --- splits ------------------------------------------------------------------------------------


def made_up(counts: dict[str, int]) -> list[Picture]:
    """Pictures that are never read: `counts` of each label."""
    return [
        Picture(f"train/{label}-{i:04d}.jpg", "train", label, Path("nowhere"))
        for label, count in counts.items()
        for i in range(count)
    ]


COUNTS = {"b": 40, "a": 2, "d": 25, "c": 3}


def keys(pictures: tuple[Picture, ...]) -> list[str]:
    return [picture.key for picture in pictures]


def test_split_takes_each_picture_once_in_order() -> None:
    pictures = made_up(COUNTS)
    train, val = stratified_split(pictures, 0.2, 0)
    chosen = set(keys(val))
    assert keys(train) == [p.key for p in pictures if p.key not in chosen]
    assert keys(val) == [p.key for p in pictures if p.key in chosen]
    assert len(train) + len(val) == len(pictures)


def test_split_takes_the_fraction_of_each_class() -> None:
    train, val = stratified_split(made_up(COUNTS), 0.2, 0)
    assert Counter(p.label for p in val) == {"b": 8, "a": 1, "d": 5, "c": 1}
    assert Counter(p.label for p in train) == {"b": 32, "a": 1, "d": 20, "c": 2}


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_every_class_is_on_both_sides(fraction: float) -> None:
    train, val = stratified_split(made_up(COUNTS), fraction, 0)
    assert {p.label for p in train} == {p.label for p in val} == set(COUNTS)


def test_split_depends_on_neither_order_nor_call() -> None:
    pictures = made_up(COUNTS)
    val = set(keys(stratified_split(pictures, 0.2, 7)[1]))
    shuffled = [pictures[i] for i in np.random.default_rng(1).permutation(len(pictures))]
    assert set(keys(stratified_split(pictures, 0.2, 7)[1])) == val
    assert set(keys(stratified_split(shuffled, 0.2, 7)[1])) == val


def test_another_seed_makes_another_choice() -> None:
    choices = {frozenset(keys(stratified_split(made_up(COUNTS), 0.2, s)[1])) for s in range(8)}
    assert len(choices) == 8


def test_split_needs_two_pictures_of_a_class() -> None:
    with pytest.raises(DataError, match="'lonely' has one picture"):
        stratified_split(made_up({**COUNTS, "lonely": 1}), 0.2, 0)


def test_a_val_split_validates(carspotter: Carspotter, tmp_path: Path) -> None:
    root, recipe, run = tmp_path / "cars", tmp_path / "tiny.toml", tmp_path / "run"
    for split, count, start in (("train", 24, 0), ("val", 9, 100), ("test", 6, 200)):
        for i in range(start, start + count):
            file = root / split / CLASSES[i % 3] / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(draw_car(i, i % 3)))
    recipe.write_text(tiny(batch_size=8).to_toml())
    env = {"OMP_NUM_THREADS": "1"}
    done = carspotter("train", recipe, "--data", root, "--out", run, "--quiet", env=env)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in (run / "split.csv").read_text().splitlines()[1:]]
    assert Counter(part for *_, part in rows) == {"train": 24, "val": 9}
    assert all(key.startswith(f"{part}/") for key, _, part in rows)
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    where = ("--data", root, "--split", "val")
    done = carspotter("evaluate", run, *where, "--json", "--quiet", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["data"]["pictures"] == 9
    assert found["metrics"]["exact"]["top1"] == json.loads(line)["val_accuracy"]
    # The temperature is fitted there too, and the accuracy measured on the test split as ever.
    done = carspotter("export", run, "--out", tmp_path / "own.onnx", "--json", env=env)
    assert done.returncode == 0, done.stderr
    accuracy = json.loads(done.stdout)["accuracy"]
    assert (accuracy["validation"]["pictures"], accuracy["measured"]["pictures"]) == (9, 6)


# --- the cache ---------------------------------------------------------------------------------


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CARSPOTTER_CACHE", str(folder))
    return folder


def photo_file(folder: Path, number: int, size: tuple[int, int] = (96, 72)) -> Picture:
    folder.mkdir(exist_ok=True)
    file = folder / f"{number:05d}.jpg"
    file.write_bytes(encoded(draw_car(number, number, size)))
    return Picture(f"train/{file.name}", "train", f"class {number % 2}", file)


@pytest.fixture
def photos(tmp_path: Path) -> list[Picture]:
    sizes = [(96, 72), (40, 90), (33, 33), (300, 200), (150, 400)]
    return [photo_file(tmp_path / "photos", i, size) for i, size in enumerate(sizes)]


def no_decoding(*arguments: object) -> None:
    raise AssertionError("decoded again")


def test_cached_pixels_are_those_of_the_pictures(
    drawn_data: Path, photos: list[Picture], cache_folder: Path
) -> None:
    pictures = [*open_data_set(drawn_data).split("train")[10:50], *photos]
    decoded = decoded_pictures(pictures, Crop(), 1000)
    assert len(decoded) == len(pictures)
    assert decoded.broken == {}
    assert decoded.folder.is_relative_to(cache_folder)
    reader = PictureReader()
    for place, picture in enumerate(pictures):
        assert np.array_equal(decoded[place], read_pixels(picture, reader, Crop())), picture.key


def test_cached_pixels_are_cut_to_the_box(photos: list[Picture], cache_folder: Path) -> None:
    first = photos[0]
    boxed = Picture(first.key, first.split, first.label, first.source, (20, 10, 70, 60))
    whole = read_pixels(boxed, PictureReader(), Crop())
    decoded = decoded_pictures([boxed], Crop(to_box=True, margin=4), 1000)
    assert np.array_equal(decoded[0], whole[6:64, 16:74])
    assert np.array_equal(decoded_pictures([boxed], Crop(), 1000)[0], whole)


def test_only_larger_pictures_shrink_and_keep_their_aspect(
    photos: list[Picture], cache_folder: Path
) -> None:
    decoded = decoded_pictures(photos, Crop(), 72)
    shapes = [decoded[place].shape for place in range(len(photos))]
    assert shapes == [(72, 96, 3), (90, 40, 3), (33, 33, 3), (72, 108, 3), (192, 72, 3)]
    reader = PictureReader()
    for place in range(3):
        assert np.array_equal(decoded[place], read_pixels(photos[place], reader, Crop()))
    # What is shrunk is the same picture: compared with it, shrunk by averages.
    large = Image.fromarray(read_pixels(photos[3], reader, Crop()))
    expected = np.asarray(large.resize((108, 72), Image.Resampling.BOX), np.int16)
    assert np.abs(decoded[3].astype(np.int16) - expected).mean() < 8


def test_second_call_decodes_nothing(
    photos: list[Picture], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    first = decoded_pictures(
        photos, Crop(), 64, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(i + 1, len(photos)) for i in range(len(photos))]
    monkeypatch.setattr(cache, "read_pixels", no_decoding)
    second = decoded_pictures(photos, Crop(), 64)
    assert all(np.array_equal(first[i], second[i]) for i in range(len(photos)))
    # The guard guards: another list, size or crop is decoded anew.
    for changed in ((photos[:-1], Crop(), 64), (photos, Crop(), 65), (photos, Crop(margin=1), 64)):
        with pytest.raises(AssertionError, match="decoded again"):
            decoded_pictures(*changed)


def test_nothing_is_left_behind_when_decoding_fails(
    photos: list[Picture], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "read_pixels", no_decoding)
    with pytest.raises(AssertionError):
        decoded_pictures(photos, Crop(), 64)
    assert list(cache_folder.iterdir()) == []


def test_a_shared_cache_can_be_read_by_all(photos: list[Picture], cache_folder: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = decoded_pictures(photos, Crop(), 64).folder
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "pixels").stat().st_mode & 0o777 == 0o644


def test_what_killed_processes_left_is_removed(photos: list[Picture], cache_folder: Path) -> None:
    old, new = (cache_folder / f".{letter * 24}.abcd1234" for letter in "ab")
    for folder, age in ((old, 90_000), (new, 3_000)):
        folder.mkdir(parents=True)
        (folder / "pixels").write_bytes(b"pixels")
        for place in (folder / "pixels", folder):
            os.utime(place, (time.time() - age,) * 2)
    folder = decoded_pictures(photos, Crop(), 64).folder
    assert set(cache_folder.iterdir()) == {new, folder}


def test_two_processes_may_make_the_same(
    photos: list[Picture], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(part: Path, target: Path) -> Path:
        monkeypatch.undo()
        monkeypatch.setenv("CARSPOTTER_CACHE", str(cache_folder))
        decoded_pictures(photos, Crop(), 64)
        return rename(part, target)

    monkeypatch.setattr(Path, "rename", late)
    decoded = decoded_pictures(photos, Crop(), 64)
    assert len(decoded) == len(photos)
    assert list(cache_folder.iterdir()) == [decoded.folder]


def test_broken_pictures_are_named_and_left_out(photos: list[Picture], cache_folder: Path) -> None:
    assert isinstance(photos[1].source, Path)
    assert isinstance(photos[3].source, Path)
    photos[1].source.write_bytes(photos[1].source.read_bytes()[:300])
    photos[3].source.unlink()
    for _ in range(2):  # the second answer comes from the cache
        decoded = decoded_pictures(photos, Crop(), 1000)
        assert len(decoded) == 3
        assert decoded.kept.tolist() == [0, 2, 4]
        assert set(decoded.broken) == {photos[1].key, photos[3].key}
        assert "no such file" in decoded.broken[photos[3].key]
        reader = PictureReader()
        for place, kept in enumerate(decoded.kept):
            assert np.array_equal(decoded[place], read_pixels(photos[kept], reader, Crop()))


def test_a_damaged_part_of_a_parquet_file_costs_its_pictures_alone(
    tmp_path: Path, cache_folder: Path
) -> None:
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    rows = [(f"{i:05d}.jpg", encoded(draw_car(i, i % 3)), i % 3) for i in range(36)]
    write_parquet(file, rows)  # in groups of 16
    pictures = open_data_set(tmp_path).split("train")
    start = pq.read_metadata(file).row_group(1).column(0).data_page_offset
    with file.open("r+b") as damaged:
        damaged.seek(start - 40)
        damaged.write(b"\xff" * 80)
    decoded = decoded_pictures(pictures, Crop(), 1000)
    assert decoded.kept.tolist() == [*range(16), *range(32, 36)]
    key = "train/00016.jpg"
    assert decoded.broken[key].startswith(f"{key}: cannot be read from {file} (")


def test_no_picture_that_can_be_read(tmp_path: Path, cache_folder: Path) -> None:
    picture = photo_file(tmp_path, 0)
    assert isinstance(picture.source, Path)
    picture.source.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no picture could be decoded: train/00000\.jpg"):
        decoded_pictures([picture], Crop(), 64)


def test_changed_source_is_decoded_again(photos: list[Picture], cache_folder: Path) -> None:
    before = decoded_pictures(photos, Crop(), 1000)[0]
    file = photos[0].source
    assert isinstance(file, Path)
    about = file.stat()
    file.write_bytes(encoded(draw_car(77, 2)))
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns + 1_000_000))
    after = decoded_pictures(photos, Crop(), 1000)[0]
    assert not np.array_equal(before, after)
    assert np.array_equal(after, read_pixels(photos[0], PictureReader(), Crop()))


def test_cache_that_cannot_be_written(
    photos: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CARSPOTTER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="CARSPOTTER_CACHE"):
        decoded_pictures(photos, Crop(), 64)

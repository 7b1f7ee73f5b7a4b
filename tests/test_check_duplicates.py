"""Near copies: which changes of a photo are seen through, and what is no copy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scenery import NAMES, clean, put, scenery

from carspotter.audit import Check, check_data_set, exclusions
from carspotter.data import open_data_set
from carspotter.train.progress import counting

ONE, OTHER = NAMES


def check(root: Path) -> Check:
    from rich.console import Console

    console = Console(quiet=True)
    return check_data_set(open_data_set(root), None, lambda what: counting(what, console))


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": recompressed,
    "scaled down": lambda image: image.resize((120, 90)),
    "squeezed": lambda image: image.resize((224, 224)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cut at the left": lambda image: image.crop((12, 0, 240, 180)),
    "cut all round": lambda image: image.crop((8, 8, 232, 170)),
    "cut and squeezed": lambda image: image.crop((5, 16, 236, 170)).resize((200, 200)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copy_is_found(tmp_path: Path, change: str) -> None:
    root = clean(tmp_path, start=1000)
    put(root, "train", ONE, "original.png", scenery(7))
    put(root, "test", OTHER, "copy.png", CHANGES[change](scenery(7)))
    (group,) = check(root).duplicates.groups
    assert {p.key for p in group.pictures} == {"train/original.png", "test/copy.png"}
    assert group.kind == "near"
    assert 0.86 <= group.similarity < 1
    assert group.contradictory
    assert group.leak


def test_other_pictures_of_one_outline_are_no_copies(tmp_path: Path) -> None:
    """What studio photos of several cars share is the coarse alone."""
    outline = scenery(7).resize((12, 9)).resize((240, 180), Image.Resampling.BICUBIC)
    root = clean(tmp_path, start=1000)
    for number in range(4):
        detail = scenery(20 + number)
        put(root, "train", ONE, f"{number}.png", Image.blend(outline, detail, 0.25))
    assert check(root).duplicates.groups == ()


def test_pictures_that_show_nothing_are_no_near_copies(tmp_path: Path) -> None:
    root = clean(tmp_path, start=1000)
    for number, level in enumerate((40, 41, 90, 200)):
        put(root, "train", ONE, f"{number}.png", Image.new("RGB", (240, 180), (level,) * 3))
    assert check(root).duplicates.groups == ()


def test_near_copies_of_one_label_in_one_split_stay(tmp_path: Path) -> None:
    root = clean(tmp_path, start=1000)
    put(root, "train", ONE, "a.png", scenery(7))
    put(root, "train", ONE, "b.png", CHANGES["cut all round"](scenery(7)))
    found = check(root)
    assert len(found.duplicates.groups) == 1
    assert exclusions(found) == ()


def test_what_near_copies_take_out_of_training(tmp_path: Path) -> None:
    root = clean(tmp_path, start=1000)
    put(root, "train", ONE, "a.png", scenery(7))
    put(root, "test", ONE, "b.png", CHANGES["cut all round"](scenery(7)))
    put(root, "train", ONE, "c.png", scenery(8))
    put(root, "train", OTHER, "d.png", CHANGES["compressed"](scenery(8)))
    listed = {one.picture: one.reason for one in exclusions(check(root))}
    assert listed.keys() == {"train/a.png", "train/c.png", "train/d.png"}
    assert listed["train/a.png"].startswith("leak: near copy (0.")
    assert listed["train/c.png"].startswith("contradictory: near copy (0.")
    assert listed["train/c.png"].endswith(f"of train/d.png, which is labelled {OTHER!r}")


def test_validation_pictures_of_their_own(tmp_path: Path) -> None:
    root = clean(tmp_path, start=1000)
    for label, split, name, seed in (
        (ONE, "train", "a.png", 7),  # in val too: the training copy goes
        (ONE, "val", "b.png", 7),
        (OTHER, "val", "c.png", 8),  # in test too: the validation copy goes
        (OTHER, "test", "d.png", 8),
        (ONE, "val", "e.png", 9),  # twice: the first stays
        (ONE, "val", "f.png", 9),
        (OTHER, "test", "g.png", 10),  # in test alone: nothing to leave out
        (ONE, "test", "h.png", 10),
    ):
        put(root, split, label, name, scenery(seed))
    found = {one.picture: one.reason.partition(":")[0] for one in exclusions(check(root))}
    assert found == {"train/a.png": "leak", "val/c.png": "leak", "val/f.png": "duplicate"}


def test_groups_hang_together_by_their_links(tmp_path: Path) -> None:
    root = clean(tmp_path, start=1000)
    put(root, "train", ONE, "a.png", scenery(7))
    put(root, "train", ONE, "b.png", scenery(7))
    put(root, "train", ONE, "c.png", CHANGES["cut at the left"](scenery(7)))
    found = check(root)
    assert [(g.kind, len(g.pictures)) for g in found.duplicates.groups] == [
        ("exact", 2),
        ("near", 3),
    ]
    assert [one.picture for one in exclusions(found)] == ["train/b.png"]


def test_many_pictures_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are the same, however few distances are held at a time."""
    from carspotter.audit import near
    from carspotter.audit.scan import hashes

    pictures = [scenery(number % 25).convert("L") for number in range(40)]
    small = [image.resize((64, 64), Image.Resampling.BOX) for image in pictures]
    thumbnails = np.stack([np.asarray(image) for image in small])
    packed = np.stack([hashes(image) for image in small])
    pairs, values = near.near_pairs(thumbnails, packed)
    assert pairs.tolist() == [[number, number + 25] for number in range(15)]
    assert values == pytest.approx(1, abs=1e-3)
    monkeypatch.setattr(near, "_CELLS", 100)
    assert near.near_pairs(thumbnails, packed)[0].tolist() == pairs.tolist()


CROSS = """00114/07699 00115/04160 01321/04507 01969/02880 02176/04006 02268/05725 02668/05831
02967/02449 03371/05250 03416/06881 04639/07681 04676/06781 07019/05059 07152/04813 07371/07365
07535/04250 07743/06693 08130/07855 00862/05487"""
TRAIN = """00050/03436 00151/04892 00595/03516 02045/04665 02456/02598 02641/07765 02843/06839
04223/06153 04250/06713 05334/05614 06353/07381"""
TEST = """00288/06136 01236/05844 01389/05063 01723/02854 03331/07491 03745/06765 04340/06530
07308/07703"""
SAME_LABEL = {
    frozenset({"train/00862.jpg", "test/05487.jpg"}),
    frozenset({"test/07308.jpg", "test/07703.jpg"}),
}


def pairs_of(text: str, one: str, other: str) -> set[frozenset[str]]:
    return {
        frozenset({f"{one}/{pair[:5]}.jpg", f"{other}/{pair[6:]}.jpg"}) for pair in text.split()
    }


def test_known_faults_of_stanford_cars(stanford: Path) -> None:
    expected = {
        *pairs_of(CROSS, "train", "test"),
        *pairs_of(TRAIN, "train", "train"),
        *pairs_of(TEST, "test", "test"),
    }
    assert len(expected) == 19 + 11 + 8
    found = check(stanford)
    exact = {
        frozenset(p.key for p in g.pictures): g
        for g in found.duplicates.groups
        if g.kind == "exact"
    }
    assert exact.keys() == expected
    assert {pair for pair, group in exact.items() if not group.contradictory} == SAME_LABEL
    assert {pair for pair, group in exact.items() if group.leak} == pairs_of(CROSS, "train", "test")
    assert not found.broken
    assert found.usual_size == (224, 224)
    listed = {one.picture for one in exclusions(found)}
    taken: set[Any] = {key for pair in expected for key in pair if key.startswith("train/")}
    assert taken <= listed
    assert not any(key.startswith("test/") for key in listed)
    # The same photo, cut to another box: seen by eye.
    near = [frozenset(p.key for p in g.pictures) for g in found.duplicates.groups]
    for one, other in (
        ("test/02025.jpg", "test/05475.jpg"),
        ("train/02065.jpg", "test/03838.jpg"),
        ("train/04922.jpg", "train/05994.jpg"),
        ("train/03053.jpg", "test/05516.jpg"),
        ("train/07673.jpg", "test/07886.jpg"),
    ):
        assert any({one, other} <= group for group in near), (one, other)
    # Other cars in one pose: taken for copies by their outline alone.
    for one, other in (
        ("test/00323.jpg", "train/06500.jpg"),
        ("test/07168.jpg", "train/00128.jpg"),
        ("test/01743.jpg", "train/03232.jpg"),
    ):
        assert not any({one, other} <= group for group in near), (one, other)

"""Several model files as one: the first asks the others where it is unsure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_model
from conftest import Carspotter, draw_car
from untrained_run import RECIPE, SIZE, make_run

from carspotter.card_text import card_text
from carspotter.decide import softmax
from carspotter.export import export_cascade, export_int8, export_run
from carspotter.export.cascade_graph import SURE
from carspotter.loading import load
from carspotter.model_file import ModelFile


@pytest.fixture(scope="module")
def members(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("members")
    files = []
    for seed in (3, 4):
        run = make_run(folder / f"run{seed}", drawn_data, seed=seed)
        files.append(folder / f"seed{seed}.onnx")
        export_run(run, files[-1], data_root=drawn_data)
    return list(map(str, files))


@pytest.fixture(scope="module")
def both(members: list[str], drawn_data: Path) -> Path:
    out = Path(members[0]).parent / "both.onnx"
    export_cascade(members, out, data_root=drawn_data)
    return out


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack([np.asarray(draw_car(n, n % 3).resize((SIZE, SIZE))) for n in range(9)])


def test_pictures_of_which_the_first_is_unsure_get_the_mean(
    both: Path, members: list[str], pixels: np.ndarray
) -> None:
    whole, parts = ModelFile(both, 1), [ModelFile(Path(one), 1) for one in members]
    first, second = (part.logits(pixels) / part.card.temperature for part in parts)
    assert np.abs(first - second).max() > 0.1
    sure = softmax(first, 1.0).max(axis=1) >= SURE
    assert 0 < sure.sum() < len(sure), "pictures of both kinds are looked at"
    expected = np.where(sure[:, None], first, (first + second) / 2)
    np.testing.assert_allclose(whole.logits(pixels), expected, atol=1e-4)
    for kind in (sure, ~sure):  # the branches, each taken by a whole batch
        np.testing.assert_allclose(whole.logits(pixels[kind]), expected[kind], atol=1e-4)
    one_by_one = np.concatenate([whole.logits(row[None]) for row in pixels])
    np.testing.assert_allclose(one_by_one, expected, atol=1e-4)


def test_embeddings_are_the_first_networks(
    both: Path, members: list[str], pixels: np.ndarray
) -> None:
    whole, first = ModelFile(both, 1), ModelFile(Path(members[0]), 1)
    np.testing.assert_allclose(whole.familiarity(pixels), first.familiarity(pixels), atol=1e-5)
    ours, theirs = (model.outputs(pixels).embedding for model in (whole, first))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_heat_maps_are_those_of_its_logits(
    both: Path, members: list[str], pixels: np.ndarray
) -> None:
    """The head gives the logits from the map, but for what its bias and familiarity do."""
    seen = ModelFile(both, 1).evidence(pixels)
    from_map = np.einsum("ndhw,cd->nchw", seen.feature_map, seen.head).mean(axis=(2, 3))
    own = []
    for one in members:
        part = ModelFile(Path(one), 1)
        alone = part.evidence(pixels)
        maps = np.einsum("ndhw,cd->nchw", alone.feature_map, alone.head).mean(axis=(2, 3))
        own.append(maps / part.card.temperature)
        if len(own) == 1:
            sure = softmax(alone.logits, part.card.temperature).max(axis=1) >= SURE
    expected = np.where(sure[:, None], own[0], np.mean(own, axis=0))
    np.testing.assert_allclose(from_map, expected, atol=1e-4)
    explained = load(both, detector="none").explain(draw_car(1), crop="none")
    assert explained.cars[0].evidence.shape == seen.feature_map.shape[2:]


def test_the_card_says_of_what_it_is_made(both: Path, members: list[str]) -> None:
    card, files = load(both).card, [load(one) for one in members]
    assert card.name == "tiny-x2"
    assert [one["sha256"] for one in card.accuracy["members"]] == [f.info.sha256 for f in files]
    assert card.accuracy["validation"]["pictures"] == 18
    assert card.accuracy["measured"]["pictures"] == 24
    text = " ".join(card_text(card).split())
    first, second = (f.info.sha256[:12] for f in files)
    assert f"a cascade of 2 networks: tiny (SHA-256 {first}) looks at each picture" in text
    assert f"less probable than 0.9, so does tiny (SHA-256 {second})" in text
    assert "cascade" not in card_text(files[0].card)


def test_by_the_command(
    members: list[str], both: Path, drawn_data: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    out = tmp_path / "both.onnx"
    options = ("--with", members[1], "--data", drawn_data, "--out", out)
    done = carspotter_here("export", members[0], *options)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == both.read_bytes()
    assert "of each alone: tiny" in done.stdout
    again = carspotter_here("export", members[0], *options, "--json")
    assert json.loads(again.stdout)["accuracy"] == load(both).card.accuracy


def test_what_cannot_be_one_model(
    members: list[str], both: Path, drawn_data: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    small, other_part = tmp_path / "small.onnx", tmp_path / "other.onnx"
    export_int8(members[0], small, data_root=drawn_data)
    recipe = RECIPE.model_copy(update={"split_seed": 5})
    export_run(make_run(tmp_path / "run", drawn_data, recipe), other_part, data_root=drawn_data)
    out, data = tmp_path / "out.onnx", ("--data", drawn_data)
    for options, said in (
        (("--with", small, *data), "computes in other bits than"),
        (("--with", other_part, *data), "was trained on other pictures than"),
        (("--with", tiny_model.write(tmp_path / "tiny.onnx"), *data), "its training part is not"),
        (("--with", members[1]), "by --data"),
        (("--with", members[1], "--int8", *data), "--with takes files as they are"),
        (("--with", tmp_path / "none.onnx", *data), "neither a model file nor a shipped model"),
        (("--with", members[1], "--calibrated-by", small, *data), "calibrate by one in 32 bits"),
        (("--with", members[1], "--calibrated-by", members[0], *data), "made of 1 network(s)"),
        (("--with", both, *data), "both.onnx: is made of several networks"),
    ):
        done = carspotter_here("export", members[0], *options, "--out", out)
        assert done.returncode == 2, options
        assert said in done.stderr, done.stderr
        assert not out.exists()


def test_members_in_8_bits_are_calibrated_by_others_in_8_bits(
    members: list[str], both: Path, drawn_data: Path, tmp_path: Path
) -> None:
    small = []
    for one in members:
        small.append(str(tmp_path / f"{Path(one).stem}-int8.onnx"))
        export_int8(one, Path(small[-1]), data_root=drawn_data)
    sister, out = tmp_path / "sister.onnx", tmp_path / "both.onnx"
    export_cascade(small, sister, data_root=drawn_data)
    card = export_cascade(small, out, data_root=drawn_data, calibrated_by=str(sister))
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert "QLinearConv" in kinds
    assert card.accuracy["calibrated_by"]["name"] == "tiny-int8-x2"
    assert card.thresholds == load(sister).card.thresholds
    assert load(out).logits(np.zeros((1, SIZE, SIZE, 3), np.uint8)).shape == (1, 3)

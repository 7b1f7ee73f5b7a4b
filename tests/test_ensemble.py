"""Several model files as one, which gives the mean of their answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from conftest import Carspotter, draw_car
from untrained_run import RECIPE, SIZE, make_run

from carspotter.card_text import card_text
from carspotter.export import export_ensemble, export_int8, export_run
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
    export_ensemble(members, out, data_root=drawn_data)
    return out


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack([np.asarray(draw_car(n).resize((SIZE, SIZE))) for n in range(6)])


def test_it_gives_the_mean_of_their_answers(
    both: Path, members: list[str], pixels: np.ndarray
) -> None:
    whole, parts = ModelFile(both, 1), [ModelFile(Path(one), 1) for one in members]
    scaled = [part.logits(pixels) / part.card.temperature for part in parts]
    assert np.abs(scaled[0] - scaled[1]).max() > 0.1
    np.testing.assert_allclose(whole.logits(pixels), np.mean(scaled, axis=0), atol=1e-4)
    sure = np.mean([part.familiarity(pixels) for part in parts], axis=0)
    np.testing.assert_allclose(whole.familiarity(pixels), sure, atol=1e-5)
    side_by_side = np.concatenate([part.outputs(pixels).embedding for part in parts], axis=1)
    np.testing.assert_allclose(whole.outputs(pixels).embedding, side_by_side, atol=1e-4)


def test_heat_maps_are_those_of_its_logits(
    both: Path, members: list[str], pixels: np.ndarray
) -> None:
    """The head gives differences between classes from the map, but for what its bias adds."""
    seen = ModelFile(both, 1).evidence(pixels)
    from_map = np.einsum("ndhw,cd->nchw", seen.feature_map, seen.head).mean(axis=(2, 3))
    ungated = []
    for one in members:
        part = ModelFile(Path(one), 1)
        own = part.evidence(pixels)
        maps = np.einsum("ndhw,cd->nchw", own.feature_map, own.head).mean(axis=(2, 3))
        ungated.append(maps / part.card.temperature)
    np.testing.assert_allclose(from_map, np.mean(ungated, axis=0), atol=1e-4)
    explained = load(both, detector="none").explain(draw_car(1), crop="none")
    assert explained.cars[0].evidence.shape == seen.feature_map.shape[2:]


def test_the_card_says_whose_mean_it_is(both: Path, members: list[str]) -> None:
    card, files = load(both).card, [load(one) for one in members]
    assert card.name == "tiny-x2"
    assert [one["sha256"] for one in card.accuracy["members"]] == [f.info.sha256 for f in files]
    assert card.accuracy["validation"]["pictures"] == 18
    assert card.accuracy["measured"]["pictures"] == 24
    text = " ".join(card_text(card).split())
    first, second = (f.info.sha256[:12] for f in files)
    assert f"the mean of 2 networks: tiny (SHA-256 {first}), tiny (SHA-256 {second})." in text
    assert "the mean of" not in card_text(files[0].card)


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
    export_ensemble(small, sister, data_root=drawn_data)
    card = export_ensemble(small, out, data_root=drawn_data, calibrated_by=str(sister))
    assert card.accuracy["calibrated_by"]["name"] == "tiny-int8-x2"
    assert card.thresholds == load(sister).card.thresholds
    assert load(out).logits(np.zeros((1, SIZE, SIZE, 3), np.uint8)).shape == (1, 3)

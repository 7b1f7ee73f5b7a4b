"""A model trained on nearly all pictures takes its calibration from one with more set aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_model
from conftest import Carspotter
from untrained_run import RECIPE, make_run

from carspotter.card import Card
from carspotter.card_text import card_text
from carspotter.errors import DataError
from carspotter.export import export_int8, export_run
from carspotter.loading import load
from carspotter.train import checkpoint


@pytest.fixture(scope="module")
def sister(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the recipe with a quarter of the pictures set aside."""
    folder = tmp_path_factory.mktemp("sister")
    export_run(make_run(folder / "run", drawn_data), folder / "sister.onnx", data_root=drawn_data)
    return folder / "sister.onnx"


@pytest.fixture(scope="module")
def run(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one picture of each car set aside, by another seed."""
    most = RECIPE.model_copy(update={"val_fraction": 0.01, "split_seed": 3})
    return make_run(tmp_path_factory.mktemp("most") / "run", drawn_data, most)


@pytest.fixture(scope="module")
def calibrated(run: Path, sister: Path, drawn_data: Path) -> Path:
    out = run.parent / "model.onnx"
    export_run(run, out, data_root=drawn_data, calibrated_by=str(sister))
    return out


def calibration(card: Card) -> tuple[object, ...]:
    return card.temperature, dict(card.thresholds), dict(card.sets)


def test_the_calibration_is_the_sisters_and_the_figures_are_its_own(
    calibrated: Path, sister: Path
) -> None:
    card, other = load(calibrated).card, load(sister)
    assert calibration(card) == calibration(other.card)
    assert card.accuracy["validation"]["pictures"] == 3
    assert card.accuracy["measured"]["pictures"] == 24
    source = {"name": "tiny", "sha256": other.info.sha256, "pictures": 18}
    assert card.accuracy["calibrated_by"] == source
    text = " ".join(card_text(card).split())
    assert f"but to tiny (SHA-256 {other.info.sha256[:12]}), on 18 pictures" in text
    assert "were not fitted to this model" not in card_text(other.card)


def test_without_one_it_is_fitted_to_the_run(
    run: Path, calibrated: Path, drawn_data: Path, tmp_path: Path
) -> None:
    export_run(run, tmp_path / "own.onnx", data_root=drawn_data)
    card = load(tmp_path / "own.onnx").card
    assert calibration(card) != calibration(load(calibrated).card)
    assert "calibrated_by" not in card.accuracy


def test_in_8_bits_the_pictures_of_its_own_split_judge(
    calibrated: Path,
    sister: Path,
    drawn_data: Path,
    tmp_path: Path,
    carspotter_here: Carspotter,
) -> None:
    small_sister, small = tmp_path / "sister-int8.onnx", tmp_path / "small.onnx"
    export_int8(str(sister), small_sister, data_root=drawn_data)
    options = ("--int8", "--data", drawn_data, "--out", small)
    forgotten = carspotter_here("export", calibrated, *options)
    assert forgotten.returncode == 2
    assert "--calibrated-by" in forgotten.stderr
    assert not small.exists()
    in_32 = carspotter_here("export", calibrated, *options, "--calibrated-by", sister)
    assert in_32.returncode == 2
    assert "sister.onnx: computes in 32 bits, the model to export in 8 bits" in in_32.stderr
    assert not small.exists()
    done = carspotter_here(
        "export", calibrated, *options, "--calibrated-by", small_sister, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["loss"]["pictures"] == 3
    card = load(small).card
    assert calibration(card) == calibration(load(small_sister).card)
    assert card.accuracy["calibrated_by"]["name"] == "tiny-int8"


def test_what_cannot_calibrate(
    run: Path, calibrated: Path, drawn_data: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    others = tiny_model.write(tmp_path / "others.onnx")
    out = tmp_path / "out.onnx"
    for model, said in (
        (others, "knows other cars"),
        (calibrated, "was calibrated by another model itself, tiny"),
        (tmp_path / "none.onnx", "neither a model file nor a shipped model"),
    ):
        done = carspotter_here(
            "export", run, "--data", drawn_data, "--out", out, "--calibrated-by", model
        )
        assert done.returncode in (1, 2), said
        assert said in done.stderr
        assert model.name in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["others.onnx"]


def test_a_file_that_does_not_say_how_its_pictures_were_chosen(
    run: Path, drawn_data: Path, tmp_path: Path
) -> None:
    """As those of the first versions: by the shipped recipes' split, which is not this one."""
    content = checkpoint.load(run / "best.ckpt")
    for key in ("val_fraction", "split_seed"):
        del content["trained_on"][key]
    old = tmp_path / "run"
    old.mkdir()
    checkpoint.save(old / "best.ckpt", content)
    (old / "split.csv").write_bytes((run / "split.csv").read_bytes())
    export_run(old, tmp_path / "old.onnx", data_root=drawn_data)
    with pytest.raises(DataError, match=r"not what .* was trained on"):
        export_int8(str(tmp_path / "old.onnx"), tmp_path / "small.onnx", data_root=drawn_data)

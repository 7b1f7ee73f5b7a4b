"""The exported file: its outputs, its card, and when it is not written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from conftest import CLASSES, Carspotter, draw_car
from untrained_run import SIZE, classifier, make_run

from carspotter.card import CARD_KEY, Card, parse_card
from carspotter.data import PictureReader, open_data_set
from carspotter.errors import DataError, ExportError, ModelFileError
from carspotter.evaluate import Predictions
from carspotter.evaluate.metrics import guesses_at
from carspotter.export import export_run, onnx_file
from carspotter.export.fitted import card_of
from carspotter.export.half import LEAST_SIZE, weights_in_half
from carspotter.loading import load
from carspotter.names import LEVELS, CarName
from carspotter.photo import read_photo
from carspotter.preprocess import to_input
from carspotter.train import load_checkpoint


@pytest.fixture(scope="module")
def run(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "run", drawn_data)


@pytest.fixture(scope="module")
def exported(run: Path, drawn_data: Path) -> tuple[Path, Card, onnx_file.Parity]:
    out = run.parent / "model.onnx"
    return (out, *export_run(run, out, data_root=drawn_data))


@pytest.fixture(scope="module")
def plain(run: Path) -> onnx.ModelProto:
    """The run's graph, before its logits are scaled."""
    return onnx_file.to_onnx(load_checkpoint(run).model, SIZE)


@pytest.fixture(scope="module")
def session(exported: tuple[Path, Card, onnx_file.Parity]) -> Any:
    return ort.InferenceSession(str(exported[0]), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def inputs(drawn_data: Path) -> np.ndarray:
    """(24, S, S, 3): the test pictures as the model takes them."""
    reader = PictureReader()
    pictures = open_data_set(drawn_data).split("test")
    return np.stack([to_input(read_photo(reader.read(p)), SIZE) for p in pictures])


# --- what is written ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_outputs_have_their_shapes(session: Any, inputs: np.ndarray, count: int) -> None:
    assert [output.name for output in session.get_outputs()] == [
        "logits",
        "embedding",
        "feature_map",
        "head",
        "familiarity",
    ]
    logits, embedding, feature_map, head, familiarity = session.run(
        None, {"pixels": inputs[:count]}
    )
    assert familiarity.shape == (count,)
    assert head.shape == (len(CLASSES), feature_map.shape[1])
    assert logits.shape == (count, len(CLASSES))
    assert embedding.ndim == 2
    assert feature_map.ndim == 4
    assert len(embedding) == len(feature_map) == count
    assert embedding.shape[1] == feature_map.shape[1]
    assert {v.dtype for v in (logits, embedding, feature_map, head)} == {np.dtype(np.float32)}
    # The heat map's promise: the embedding is the mean of the feature map.
    assert np.allclose(feature_map.mean(axis=(2, 3)), embedding, atol=1e-4)


def test_outputs_are_those_of_the_checkpoint(session: Any, inputs: np.ndarray, run: Path) -> None:
    found = session.run(["logits", "embedding", "feature_map"], {"pixels": inputs})
    model = load_checkpoint(run).model
    with torch.inference_mode():
        expected = model.outputs(torch.from_numpy(inputs).permute(0, 3, 1, 2))
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 1e-3
    # The logits are scaled, each picture's by one factor: 1 for nearly all that look like cars.
    scaled = (found[0] / expected[0].numpy()).mean(axis=1, keepdims=True)
    assert np.abs(found[0] - scaled * expected[0].numpy()).max() < 1e-3
    assert np.isclose(scaled, 1, atol=1e-2).mean() > 0.5
    assert len(set(found[0].argmax(axis=1))) > 1  # not one answer for all


def test_batch_changes_no_answer(session: Any, inputs: np.ndarray) -> None:
    together = session.run(["logits"], {"pixels": inputs})[0]
    alone = np.concatenate(
        [session.run(["logits"], {"pixels": inputs[i : i + 1]})[0] for i in (0, 7)]
    )
    assert np.abs(together[[0, 7]] - alone).max() < 1e-3


def test_parity_is_measured_on_the_test_split(exported: tuple[Path, Card, Any]) -> None:
    parity = exported[2]
    assert parity.pictures == 24
    assert parity.agreement == 1.0
    assert 0 <= parity.largest_difference < 1e-3


def test_card_is_in_the_file(exported: tuple[Path, Card, Any], session: Any) -> None:
    text = session.get_modelmeta().custom_metadata_map[CARD_KEY]
    assert json.loads(text)["format_version"] == 2
    card = parse_card(text, "model.onnx")
    assert card == exported[1]
    assert card.name == "tiny"
    assert tuple(name.label for name in card.classes) == CLASSES
    assert (card.input_size, card.resize) == (SIZE, "squash")
    assert len(card.mean) == len(card.std) == 3
    assert all(0 <= m < 1 and 0 < s < 1 for m, s in zip(card.mean, card.std, strict=True))
    assert card.temperature > 0
    assert set(card.thresholds) == set(LEVELS)
    assert all(0 < value <= 1 for value in card.thresholds.values())
    trained_on = dict(card.trained_on)
    assert len(trained_on.pop("fingerprint")) == 64
    split = {"val_fraction": 0.25, "split_seed": 0}
    assert trained_on == {"layout": "huggingface", "pictures": 54, **split}


def test_classes_are_spelled_as_in_the_data(run: Path) -> None:
    """As training keeps them where not all are of the table, whose spelling is another."""
    names = ("bmw m3 coupe 2012", "Tesla Model 3 Sedan 2020", "Blue Bolt Sedan 2010")
    trained = dataclasses.replace(load_checkpoint(run), class_names=names)
    said = Predictions((), np.eye(3, dtype=np.float32), np.arange(3), {})
    first, *others = card_of(trained, said, None).classes
    assert first == CarName("bmw m3 coupe 2012", "BMW", "M3", "Coupe", 2012)
    assert others == [CarName(name) for name in names[1:]]
    assert guesses_at("exact", said.logits, said.targets, names).names == names


def test_card_has_the_measured_accuracy(
    exported: tuple[Path, Card, Any], session: Any, inputs: np.ndarray
) -> None:
    measured = exported[1].accuracy["measured"]
    guesses = session.run(["logits"], {"pixels": inputs})[0].argmax(axis=1)
    right = np.mean(guesses == np.arange(24) % 3)
    assert (measured["split"], measured["crop"], measured["pictures"]) == ("test", "whole", 24)
    assert measured["exact"]["top1"] == pytest.approx(right, abs=1e-6)
    assert set(measured) >= set(LEVELS)
    assert exported[1].accuracy["validation"]["pictures"] == 18


def test_card_has_the_figures_of_each_make_and_body(exported: tuple[Path, Card, Any]) -> None:
    measured = exported[1].accuracy["measured"]
    for part in ("make", "body"):
        groups = measured[f"by_{part}"]
        assert sum(group["pictures"] for group in groups) == 24
        right = sum(group["exact"] * group["pictures"] for group in groups)
        assert right / 24 == pytest.approx(measured["exact"]["top1"])


def test_notes_go_into_the_card(
    run: Path, drawn_data: Path, carspotter: Carspotter, tmp_path: Path
) -> None:
    notes, out = tmp_path / "notes.md", tmp_path / "model.onnx"
    arguments = ("export", run, "--out", out, "--data", drawn_data, "--notes", notes)
    missing = carspotter(*arguments)
    assert missing.returncode == 2
    assert str(notes) in missing.stderr
    assert not out.exists()
    notes.write_text("## Not for\n\nFällt nicht ins Gewicht.\n", encoding="utf-8")
    assert carspotter(*arguments).returncode == 0
    assert load(out).card.notes == notes.read_text(encoding="utf-8")


def test_mean_and_std_of_the_card_are_those_inside(exported: tuple[Path, Card, Any]) -> None:
    model = classifier()
    assert exported[1].mean == pytest.approx((model.mean.flatten() / 255).tolist(), abs=1e-5)
    assert exported[1].std == pytest.approx((model.std.flatten() / 255).tolist(), abs=1e-5)


def test_file_holds_no_path_of_this_machine(exported: tuple[Path, Card, Any]) -> None:
    content = exported[0].read_bytes()
    assert b"onnx_file.py" not in content
    assert str(Path(__file__).parents[1]).encode() not in content


def test_file_loads_for_recognition(exported: tuple[Path, Card, Any], session: Any) -> None:
    spotter = load(exported[0])
    assert spotter.card == exported[1]
    assert spotter.info.sha256 == hashlib.sha256(exported[0].read_bytes()).hexdigest()
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    found = spotter.identify(photo, top_k=3)
    logits = session.run(["logits"], {"pixels": to_input(photo, SIZE)[None]})[0][0]
    assert [c.label for c in found.candidates] == [CLASSES[i] for i in np.argsort(-logits)]


def test_changed_byte_is_refused(exported: tuple[Path, Card, Any], tmp_path: Path) -> None:
    data = bytearray(exported[0].read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.onnx").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"changed\.onnx.*checksum"):
        load(tmp_path / "changed.onnx")


def test_without_a_test_split_the_validation_part_is_measured(
    plain: onnx.ModelProto,
    run: Path,
    drawn_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_file, "to_onnx", lambda model, size: plain)
    (tmp_path / "data").mkdir()
    for file in (drawn_data / "data").glob("train-*"):
        shutil.copy(file, tmp_path / "data")
    card, parity = export_run(run, tmp_path / "model.onnx", data_root=tmp_path)
    assert parity.pictures == 18
    assert card.accuracy["measured"]["split"] == "validation"
    assert card.accuracy["measured"]["pictures"] == 18


# --- in half the bytes -------------------------------------------------------------------------


def test_half_answers_alike_in_fewer_bytes(
    exported: tuple[Path, Card, Any], run: Path, drawn_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "half.onnx"
    card, parity = export_run(run, out, data_root=drawn_data, half=True)
    assert 0 < parity.largest_difference < onnx_file.LARGEST_DIFFERENCE_IN_HALF
    assert out.stat().st_size < exported[0].stat().st_size - 2 * 2 * LEAST_SIZE
    assert card.classes == exported[1].classes
    photo = draw_car(3)
    ours, theirs = load(out).identify(photo), load(exported[0]).identify(photo)
    for one, other in zip(ours.candidates, theirs.candidates, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=0.02)


def test_half_refuses_what_it_cannot_hold() -> None:
    large = np.full(LEAST_SIZE, 70_000, np.float32)
    graph = onnx.helper.make_graph(
        [], "large", [], [], [onnx.numpy_helper.from_array(large, "weight")]
    )
    with pytest.raises(ValueError, match="weight has values that float16 cannot hold"):
        weights_in_half(onnx.helper.make_model(graph))


# --- what is refused ---------------------------------------------------------------------------


def with_changed_logits(
    model: onnx.ModelProto, node: str, constant: np.ndarray, **attributes: int
) -> onnx.ModelProto:
    """A model, its logits sent through one more node."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for there in proto.graph.node:
        there.output[:] = ["as they were" if name == "logits" else name for name in there.output]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(constant, "constant"))
    proto.graph.node.append(
        onnx.helper.make_node(node, ["as they were", "constant"], ["logits"], **attributes)
    )
    return proto


@pytest.mark.parametrize("fault", ["other classes", "other confidences"])
def test_other_answers_are_not_written(
    plain: onnx.ModelProto,
    run: Path,
    drawn_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    if fault == "other classes":
        broken = with_changed_logits(plain, "Gather", np.array([1, 2, 0]), axis=1)
    else:
        broken = with_changed_logits(plain, "Mul", np.array(2, np.float32))
    monkeypatch.setattr(onnx_file, "to_onnx", lambda model, size: broken)
    out = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"model\.onnx was not written"):
        export_run(run, out, data_root=drawn_data)
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"an older model")
    with pytest.raises(ExportError):
        export_run(run, out, data_root=drawn_data)
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() == b"an older model"


def test_run_without_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ModelFileError, match="no such checkpoint"):
        export_run(tmp_path / "run", tmp_path / "model.onnx")


def test_data_that_has_moved(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data"):
        export_run(run, tmp_path / "model.onnx", data_root=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_data_of_another_run(run: Path, drawn_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(drawn_data / "data" / "train-00000-of-00002.parquet", tmp_path / "data")
    with pytest.raises(DataError, match="not the data set of"):
        export_run(run, tmp_path / "model.onnx", data_root=tmp_path)
    assert not (tmp_path / "model.onnx").exists()

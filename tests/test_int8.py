"""The file in 8 bits: that it computes so, what it keeps, and when it is not written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import CLASSES, Carspotter, draw_car
from onnx import TensorProto, helper, numpy_helper
from untrained_run import RECIPE, SIZE, make_run

from carspotter.card import Card
from carspotter.errors import DataError, ExportError
from carspotter.export import Loss, export_int8, export_run, int8_file
from carspotter.export.int8 import calibrated, most_sensitive, quantised
from carspotter.loading import load

SHIPPED_SPLIT = RECIPE.model_copy(update={"val_fraction": 0.1})


@pytest.fixture(scope="module")
def run(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("int8") / "run", drawn_data, SHIPPED_SPLIT)


@pytest.fixture(scope="module")
def exact(run: Path, drawn_data: Path) -> Path:
    out = run.parent / "exact.onnx"
    export_run(run, out, data_root=drawn_data, half=True)
    return out


@pytest.fixture(scope="module")
def small(run: Path, drawn_data: Path) -> tuple[Path, Card, Loss]:
    out = run.parent / "small.onnx"
    return (out, *export_int8(str(run), out, data_root=drawn_data, notes="Of a test."))


def cars(count: int = 6) -> np.ndarray:
    """(count, S, S, 3) uint8."""
    return np.stack(
        [np.asarray(draw_car(500 + n, n % 3).resize((SIZE, SIZE))) for n in range(count)]
    )


# --- what is written ---------------------------------------------------------------------------


def test_it_answers_nearly_alike_in_fewer_bytes(
    small: tuple[Path, Card, Loss], exact: Path
) -> None:
    file, _, loss = small
    assert file.stat().st_size < 0.75 * exact.stat().st_size  # of which the weights have 16 bits
    assert loss.is_small
    assert loss.pictures == 6
    assert loss.largest_difference > 0
    found, expected = load(file).logits(cars()), load(exact).logits(cars())
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_onnxruntime_computes_in_8_bits_from_the_pixels_on(
    small: tuple[Path, Card, Loss], tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = ort.InferenceSession(str(small[0]), options, ["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    assert (pixels.type, pixels.shape[1:]) == ("tensor(uint8)", [SIZE, SIZE, 3])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    kinds = [node.op_type for node in nodes]
    assert kinds.count("QLinearConv") > 5
    # None but those that were left on purpose, which a network of random weights may need.
    left = sum("Conv" in name for name in small[2].left)
    assert kinds.count("Conv") + kinds.count("FusedConv") == left < kinds.count("QLinearConv")
    (first,) = (node for node in nodes if "pixels" in node.input and node.op_type != "Shape")
    assert first.op_type in ("QLinearConv", "Transpose")


def test_the_card_is_fitted_anew_and_says_what_was_lost(
    small: tuple[Path, Card, Loss], exact: Path
) -> None:
    file, card, loss = small
    before = load(exact).card
    assert load(file).card == card
    assert (card.name, card.notes) == ("tiny-int8", "Of a test.")
    assert card.classes == before.classes
    assert card.trained_on == before.trained_on
    assert card.temperature != before.temperature
    assert set(card.sets) == set(before.sets)
    assert card.accuracy["in_8_bits"]["agreement"] == loss.agreement
    assert card.accuracy["measured"]["pictures"] == 24
    assert card.accuracy["validation"]["top1"] == pytest.approx(loss.after)


def test_heat_map_and_garage_work_on_it(small: tuple[Path, Card, Loss]) -> None:
    session = ort.InferenceSession(str(small[0]), providers=["CPUExecutionProvider"])
    outputs = session.run(["logits", "embedding", "feature_map", "head"], {"pixels": cars()})
    logits, embedding, feature_map, head = outputs
    assert np.allclose(feature_map.mean(axis=(2, 3)), embedding, atol=1e-4)
    spread = np.abs(logits).max()
    assert np.allclose(np.ptp(embedding @ head.T - logits, axis=0), 0, atol=2e-3 * spread)
    spotter = load(small[0])
    assert spotter.explains
    assert spotter.likeness.space is not None
    explained = spotter.explain(draw_car(3))
    assert explained.cars[0].evidence.shape == feature_map.shape[2:]


# --- from a file -------------------------------------------------------------------------------


def test_a_file_is_made_smaller_without_its_run(
    exact: Path, drawn_data: Path, tmp_path: Path, carspotter_here: Carspotter
) -> None:
    out = tmp_path / "small.onnx"
    done = carspotter_here("export", exact, "--int8", "--data", drawn_data, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["loss"]["pictures"] == 6
    assert said["accuracy"]["measured"]["split"] == "test"
    assert load(out).card.name == "tiny-int8"
    assert len(load(out).identify(draw_car(1), top_k=3).candidates) == len(CLASSES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--int8",), "--data"),
        (("--int8", "--half", "--data", "DATA"), "exclude each other"),
        (("--data", "DATA"), "by --int8 or --with alone"),
    ],
)
def test_what_does_not_go_with_a_file(
    exact: Path,
    drawn_data: Path,
    tmp_path: Path,
    carspotter_here: Carspotter,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    given = [str(drawn_data) if one == "DATA" else one for one in arguments]
    done = carspotter_here("export", exact, *given, "--out", tmp_path / "small.onnx")
    assert done.returncode == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_data_than_it_was_trained_on(exact: Path, drawn_data: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "half", tmp_path / "out"
    (data / "data").mkdir(parents=True)
    out.mkdir()
    shutil.copy(next((drawn_data / "data").glob("train-*")), data / "data")
    with pytest.raises(DataError, match=r"half: its training part is not what .* was trained on"):
        export_int8(str(exact), out / "small.onnx", data_root=data)
    assert list(out.iterdir()) == []


# --- what is left in 32 bits, and what is refused ----------------------------------------------


def test_lossy_files_are_not_written(
    exact: Path, drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*arguments: Any, **options: Any) -> onnx.ModelProto:
        model = quantised(*arguments, **options)
        for node in model.graph.node:
            node.output[:] = ["as they were" if n == "logits" else n for n in node.output]
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 0]), "order"))
        model.graph.node.append(
            helper.make_node("Gather", ["as they were", "order"], ["logits"], axis=1)
        )
        return model

    monkeypatch.setattr(int8_file, "quantised", spoilt)
    monkeypatch.setattr(int8_file, "most_sensitive", lambda source, inputs: [])
    out = tmp_path / "small.onnx"
    with pytest.raises(ExportError, match=r"small\.onnx was not written: in 8 bits"):
        export_int8(str(exact), out, data_root=drawn_data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("after", "agreement", "small"),
    [(0.912, 0.99, True), (0.909, 0.99, True), (0.908, 0.99, False), (0.912, 0.97, False)],
)
def test_what_is_a_small_loss(after: float, agreement: float, small: bool) -> None:
    assert Loss(1000, agreement, 0.912, after, 1.0, ()).is_small == small


OUTLIER = 1e4
"""So much larger than the others is one channel between the second and the third layer."""


def three_layers() -> onnx.ModelProto:
    """A network of which the second layer's output cannot be told in 8 bits."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((8, 3), (8, 8), (4, 8))]
    weights[1][0] *= OUTLIER
    weights[2][:, 0] /= OUTLIER
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["0"]),
        *(
            helper.make_node("Conv", [f"{n}", f"w{n}", f"b{n}"], [f"{n + 1}"], f"layer {n}")
            for n in range(3)
        ),
        helper.make_node("ReduceMean", ["3", "axes"], ["logits"], keepdims=0),
    ]
    constants = [
        *(numpy_helper.from_array(w[:, :, None, None], f"w{n}") for n, w in enumerate(weights)),
        *(
            numpy_helper.from_array(np.ones(len(w), np.float32), f"b{n}")
            for n, w in enumerate(weights)
        ),
        numpy_helper.from_array(np.array([120, 110, 100], np.float32).reshape(1, 3, 1, 1), "mean"),
        numpy_helper.from_array(np.array([60, 50, 40], np.float32).reshape(1, 3, 1, 1), "std"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "three", [pixels], [logits], constants)
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def logits_of(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["logits"], {"pixels": cars()})[0]
    return found


def test_the_most_sensitive_layers_are_found_and_leaving_them_pays() -> None:
    model = three_layers()
    source = calibrated(model, cars())
    order = most_sensitive(source, cars())
    assert sorted(order[:2]) == ["layer 1", "layer 2"]
    exact = logits_of(model)
    errors = [
        np.abs(logits_of(quantised(source, leave=order[:number])) - exact).max()
        for number in (0, 2)
    ]
    assert errors[1] < 0.1 * errors[0]


def test_mean_and_deviation_go_into_the_first_layer() -> None:
    source = calibrated(three_layers(), cars())
    assert "Div" not in {node.op_type for node in source.model.graph.node}
    assert np.abs(logits_of(source.model) - logits_of(three_layers())).max() < 1e-2
    names = {name for node in quantised(source).graph.node for name in node.output}
    assert "centred" not in names

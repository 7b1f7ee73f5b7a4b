"""The roofline: operations are counted as by hand, and each part is measured beside its bound."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import tiny_model
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper

from benchmarks.roofline import multiplications
from carspotter.loading import shipped_models


def test_multiplications_are_those_counted_by_hand() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "full", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "d"], ["b"], "depthwise", group=4, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "h"], ["y"], "head", transB=1),
    ]
    shapes = {"w": (4, 3, 3, 3), "d": (4, 1, 3, 3), "h": (5, 4)}
    weights = [numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in shapes.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    model = helper.make_model(helper.make_graph(nodes, "known", [x], [y], weights))
    by_hand = 8 * 8 * 4 * (3 * 3 * 3) + 8 * 8 * 4 * (3 * 3) + 5 * 4
    assert multiplications(model) == by_hand


def test_the_embedded_network_has_those_that_it_is_known_for() -> None:
    found = multiplications(onnx.load(shipped_models()["stanford-cars-lite2"]))
    # The convolutions of timm's tf_efficientnet_lite2 have 858.5 million at 260 px, as published,
    # and 751.3 million at 256 px, where no map is rounded up.
    assert 1 < found / 751.3e6 < 1.01


def test_each_part_has_a_bound(tmp_path: Path) -> None:
    model, out = tiny_model.write(tmp_path / "tiny.onnx"), tmp_path / "roofline.json"
    small = ["--rounds", "2", "--megapixels", "0.05", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.roofline", "--model", model, *small, "--out", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert [part["part"] for part in parts] == [
        "network, 1 at once",
        "network, 8 at once",
        "reading 0.05 megapixels",
    ]
    for part in parts:
        assert part["measured_ms"] > 0
        assert part["bound_ms"] > 0
    assert done.stdout.count("bound") == 3

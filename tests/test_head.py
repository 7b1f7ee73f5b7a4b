"""The head's weights in an exported file: they give the logits, or there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import CLASSES, draw_car
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers import float16
from PIL import Image
from torch import Tensor, nn
from training import tiny

from carspotter import ModelFileError, load
from carspotter.card import HEAD_KEY, Card
from carspotter.export.head import linear_head
from carspotter.export.onnx_file import to_onnx, with_card
from carspotter.names import split_name
from carspotter.train.model import CarClassifier

SIDE = 64


def classifier(**changes: Any) -> CarClassifier:
    """A network whose answers differ from picture to picture, though it never learned."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = CarClassifier(tiny(**{"eval_size": SIDE, **changes}), len(CLASSES)).train()
        with torch.no_grad():
            for _ in range(20):  # batch norm learns the statistics of noise
                model(torch.randint(0, 256, (16, 3, SIDE, SIDE), dtype=torch.uint8))
            for parameter in model.head.parameters():  # no norm that does nothing, no bias of 0
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def written(model: CarClassifier, file: Path) -> Path:
    card = Card(
        name="tiny",
        version="1",
        classes=tuple(map(split_name, CLASSES)),
        input_size=SIDE,
        resize="squash",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        temperature=1.0,
        thresholds={"exact": 0.8, "model": 0.8, "make": 0.8},
    )
    file.write_bytes(with_card(to_onnx(model, SIDE), card))
    return file


class Cosine(nn.Module):
    """Logits are cosines: not linear in the embedding, though they have weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(CLASSES), width))

    def forward(self, embedding: Tensor) -> Tensor:
        return 20 * nn.functional.linear(
            nn.functional.normalize(embedding), nn.functional.normalize(self.weight)
        )


def logits_of(model: CarClassifier, photo: Image.Image) -> np.ndarray:
    pixels = np.array(photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    with torch.no_grad():
        return model(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()


def bias_of(model: CarClassifier) -> np.ndarray:
    with torch.no_grad():
        return model.head(torch.zeros(1, model.backbone.head_hidden_size))[0].numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[CarClassifier, Path]:
    model = classifier()
    return model, written(model, tmp_path_factory.mktemp("head") / "model.onnx")


@pytest.mark.parametrize("test_flip", [False, True])
def test_the_maps_mean_is_the_logit(
    exported: tuple[CarClassifier, Path], tmp_path: Path, test_flip: bool
) -> None:
    model, file = exported
    if test_flip:
        model = classifier(test_flip=True)
        file = written(model, tmp_path / "model.onnx")
    bias = bias_of(model)
    spotter = load(file)
    found = []
    for seed in range(6):
        photo = draw_car(seed, seed)
        logits = logits_of(model, photo)
        for number, label in enumerate(CLASSES):
            evidence = spotter.explain(photo, label=label).cars[0].evidence
            assert evidence.mean() + bias[number] == pytest.approx(logits[number], abs=1e-3)
        found.append(logits)
    assert np.std(found, axis=0).min() > 0.01  # no figure is right for all
    # The weights are held once, and are given when they alone are asked for.
    proto = onnx.load(file)
    assert HEAD_KEY not in {entry.key for entry in proto.metadata_props}
    shape = [len(CLASSES), model.backbone.head_hidden_size]
    assert [list(i.dims) for i in proto.graph.initializer].count(shape) == 1
    pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    [head] = onnxruntime.InferenceSession(str(file)).run(["head"], {"pixels": pixels})
    expected = linear_head(model, SIDE)
    assert expected is not None
    assert (head == expected.weight.numpy()).all()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_carry_it(
    exported: tuple[CarClassifier, Path], tmp_path: Path, precision: str
) -> None:
    (model, file), other = exported, tmp_path / "other.onnx"
    if precision == "fp16":
        halved = float16.convert_float_to_float16(onnx.load(file), keep_io_types=True)
        onnx.save(halved, other)
    else:
        quantize_dynamic(file, other, op_types_to_quantize=["Gemm"])
    session = onnxruntime.InferenceSession(str(other))
    [head] = session.run(["head"], {"pixels": np.zeros((1, SIDE, SIDE, 3), np.uint8)})
    expected = linear_head(model, SIDE)
    assert expected is not None
    assert np.allclose(head, expected.weight.numpy(), atol=2e-3)


@pytest.mark.parametrize("kind", ["linear alone", "linear twice"])
def test_heads_that_are_linear(kind: str) -> None:
    model = classifier()
    width = model.backbone.head_hidden_size
    last = nn.Linear(width if kind == "linear alone" else 16, len(CLASSES))
    first = nn.Dropout(0.2) if kind == "linear alone" else nn.Linear(width, 16)
    model.head = nn.Sequential(first, last).eval()
    found = linear_head(model, SIDE)
    assert found is not None
    expected = last.weight if kind == "linear alone" else last.weight @ first.weight
    assert torch.allclose(found.weight, expected, atol=1e-5)
    assert np.allclose(found.bias, bias_of(model), atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["hidden layer", "cosine", "class token", "widening after pooling"]
)
def test_heads_that_are_not(kind: str) -> None:
    backbones = {"class token": "test_vit", "widening after pooling": "mobilenetv3_small_050"}
    model = classifier(**({"backbone": backbones[kind]} if kind in backbones else {}))
    width = model.backbone.head_hidden_size
    if kind == "hidden layer":
        layers = nn.Linear(width, 32), nn.GELU(), nn.Linear(32, len(CLASSES))
        model.head = nn.Sequential(*layers).eval()
    elif kind == "cosine":
        model.head = nn.Sequential(Cosine(width))
    assert linear_head(model, SIDE) is None


def test_a_file_of_a_head_that_is_not_linear_says_so(tmp_path: Path) -> None:
    model = classifier()
    model.head = nn.Sequential(Cosine(model.backbone.head_hidden_size))
    spotter = load(written(model, tmp_path / "model.onnx"))
    photo = draw_car(0)
    with pytest.raises(ModelFileError, match=r"model\.onnx: has no exact.*not linear"):
        spotter.explain(photo)
    pixels = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.allclose(spotter.logits(pixels[None])[0], logits_of(model, photo), atol=1e-3)

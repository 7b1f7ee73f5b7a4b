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


@pytest.mark.parametrize("test_flip", [False, True])
@pytest.mark.parametrize("head", ["as it is", "linear alone", "linear twice"])
def test_the_maps_mean_is_the_logit(tmp_path: Path, test_flip: bool, head: str) -> None:
    model = classifier(test_flip=test_flip)
    width = model.head[-1].in_features
    if head == "linear alone":
        model.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, len(CLASSES))).eval()
    elif head == "linear twice":
        model.head = nn.Sequential(nn.Linear(width, 16), nn.Linear(16, len(CLASSES))).eval()
    with torch.no_grad():
        bias = model.head(torch.zeros(1, width))[0].numpy()
    file = written(model, tmp_path / "model.onnx")
    assert HEAD_KEY not in {entry.key for entry in onnx.load(file).metadata_props}
    spotter = load(file)
    spread = []
    for seed in range(6):
        photo = draw_car(seed, seed)
        pixels = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        with torch.no_grad():
            logits = model(torch.tensor(pixels).permute(2, 0, 1)[None])[0].numpy()
        for number, label in enumerate(CLASSES):
            evidence = spotter.explain(photo, label=label).cars[0].evidence
            assert evidence.mean() + bias[number] == pytest.approx(logits[number], abs=1e-3)
        spread.append(logits)
    assert np.std(spread, axis=0).min() > 0.01  # no figure is right for all


def test_the_weights_are_held_once_and_asked_for_by_themselves() -> None:
    model = classifier()
    proto = to_onnx(model, SIDE)
    shape = [len(CLASSES), model.head[-1].in_features]
    assert [list(i.dims) for i in proto.graph.initializer].count(shape) == 1
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    [head] = session.run(["head"], {"pixels": pixels})
    found = linear_head(model, SIDE)
    assert found is not None
    assert (head == found.weight.numpy()).all()


@pytest.mark.parametrize("kind", ["hidden layer", "cosine", "class token"])
def test_a_head_that_is_not_linear_has_no_map(tmp_path: Path, kind: str) -> None:
    model = classifier(**({"backbone": "test_vit"} if kind == "class token" else {}))
    width = model.head[-1].in_features
    if kind == "hidden layer":
        layers = nn.Linear(width, 32), nn.GELU(), nn.Linear(32, len(CLASSES))
        model.head = nn.Sequential(*layers)
    elif kind == "cosine":
        model.head = nn.Sequential(Cosine(width))
    model.eval()
    assert linear_head(model, SIDE) is None
    spotter = load(written(model, tmp_path / "model.onnx"))
    photo = draw_car(0)
    assert spotter.identify(photo).answer is not None
    with pytest.raises(ModelFileError, match=r"model\.onnx: has no exact.*not linear"):
        spotter.explain(photo)
    pixels = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    with torch.no_grad():
        logits = model(torch.tensor(pixels).permute(2, 0, 1)[None])[0].numpy()
    assert np.allclose(spotter.logits(pixels[None])[0], logits, atol=1e-3)


def test_a_widening_after_pooling_has_no_map() -> None:
    model = classifier(backbone="mobilenetv3_small_050")
    assert linear_head(model, SIDE) is None

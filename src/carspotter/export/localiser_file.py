"""From a localiser's run to one ONNX file that carries its card."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from carspotter import __version__
from carspotter.card import LocaliserCard
from carspotter.data import open_data_set
from carspotter.detect import Localiser
from carspotter.errors import DataError, ExportError
from carspotter.export.onnx_file import Counter, Parity, graph_of, sealed_with
from carspotter.files import replacing
from carspotter.localise.composites import Scene
from carspotter.localise.measure import (
    LEAST_COUNTED,
    Found,
    best_setting,
    large_enough,
    shorter_side,
)
from carspotter.localise.model import LocaliserNetwork
from carspotter.localise.scenes import scene_parts, scene_size, validation_scenes
from carspotter.localise.training import TrainedLocaliser, load_localiser
from carspotter.train.run import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_AGREEMENT = 0.99
"""Share of scenes on which file and checkpoint must find the same vehicles, within a pixel."""


class _FileModel(nn.Module):
    """The network as the file has it: (H, W, 3) uint8 in, boxes and scores out."""

    def __init__(self, network: LocaliserNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        places = self.network(pixels.permute(2, 0, 1)[None].float())
        return self.network.vehicles(places)


def export_localiser(
    run: Path,
    out: Path,
    *,
    data_root: Path | None = None,
    counting: Callable[[str], contextlib.AbstractContextManager[Counter]],
) -> tuple[LocaliserCard, Parity]:
    """Export the best checkpoint of a localiser's run.

    The least score of a vehicle is chosen on the validation scenes, for the best F1; on the same
    scenes the file's boxes are compared with the checkpoint's.

    Args:
        run: the run folder.
        out: the file to write; it is replaced only when all went well.
        data_root: the run's data set, if it has moved.
        counting: as in `export_run`.

    Returns:
        The card that was written, and how far file and checkpoint agree.

    Raises:
        ExportError: the file's boxes differ too much; nothing is written.
        ModelFileError: the run has no checkpoint that can be used.
        DataError: the run's data is not there.
    """
    trained = load_localiser(run)
    scenes = _scenes(run, trained, data_root)
    with counting("checkpoint") as count:
        expected = [_answer(trained.network, scene) for scene in _counted(scenes, count)]
    counted = [
        large_enough(scene.boxes, found, LEAST_COUNTED, shorter_side)
        for scene, found in zip(scenes, expected, strict=True)
    ]
    setting = best_setting(*zip(*counted, strict=True))
    card = LocaliserCard(
        name=trained.recipe.name,
        version=__version__,
        input_size=scene_size(trained.recipe.eval_size),
        threshold=setting.threshold,
        trained_on=trained.trained_on,
        accuracy={"validation": {"scenes": len(scenes), **setting.to_dict()}},
    )
    width, height = card.input_size
    example = torch.zeros(height, width, 3, dtype=torch.uint8)
    graph = graph_of(_FileModel(trained.network), (example,), ["boxes", "scores"], None)
    content = sealed_with(graph, card.to_json())
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "localiser.onnx"
        file.write_bytes(content)
        localiser = Localiser(file, threads=torch.get_num_threads())
        with counting("exported file") as count:
            found = [
                localiser.boxes(Image.fromarray(scene.pixels)) for scene in _counted(scenes, count)
            ]
    parity = _compare(expected, [Found(*one) for one in found], setting.threshold)
    if parity.agreement < LEAST_AGREEMENT:
        raise ExportError(
            f"{out} was not written: on {parity.pictures} scenes the file finds the checkpoint's "
            f"vehicles in {100 * parity.agreement:.1f} %, needed are {100 * LEAST_AGREEMENT:.0f} %"
        )
    with replacing(out) as part:
        part.write_bytes(content)
    return card, parity


def _scenes(run: Path, trained: TrainedLocaliser, data_root: Path | None) -> list[Scene]:
    folder = RunFolder(run)
    root = data_root or folder.data_root()
    if not root.is_dir():
        raise DataError(f"the run's data set is not at {root}; say where it is by --data")
    data = open_data_set(root)
    parts = scene_parts(data, folder.pictures(data, "val"), trained.recipe, "val")
    return validation_scenes(parts, trained.recipe)


@torch.no_grad()
def _answer(network: LocaliserNetwork, scene: Scene) -> Found:
    pixels = torch.from_numpy(scene.pixels).permute(2, 0, 1)[None].float()
    boxes, scores = network.vehicles(network(pixels))
    return Found(boxes.numpy(), scores.numpy())


def _counted(scenes: Sequence[Scene], count: Counter) -> Iterator[Scene]:
    for number, scene in enumerate(scenes, start=1):
        yield scene
        count(number, len(scenes))


def _compare(expected: Sequence[Found], found: Sequence[Found], threshold: float) -> Parity:
    """Whether the vehicles are the same; the largest difference is of a corner, in pixels."""
    same, largest = 0, 0.0
    for one, other in zip(expected, found, strict=True):
        first, second = (_sorted(f.boxes[f.scores >= threshold]) for f in (one, other))
        if first.shape != second.shape:
            continue
        difference = float(np.abs(first - second).max(initial=0.0))
        same += difference < 1
        largest = max(largest, difference)
    return Parity(len(expected), same / max(1, len(expected)), largest)


def _sorted(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return boxes[np.lexsort(boxes.T)]

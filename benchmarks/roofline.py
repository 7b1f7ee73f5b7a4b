"""How near each part of naming a car is to what this machine can do.

`python -m benchmarks.roofline`

The roofline method (Williams, Waterman and Patterson, 2009, doi:10.1145/1498765.1498785), as far
as it is needed: a convolution has many operations for each byte, so that its bound is what the
processor can multiply and add. That is measured, by one large matrix product in onnxruntime. What
reads a photo is bound by libjpeg-turbo, which Pillow calls.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from carspotter.bench.measure import PHOTOS, machine
from carspotter.bench.photos import write_photos
from carspotter.loading import load
from carspotter.machine import cores
from carspotter.photo import read_reduced
from carspotter.session import open_session
from carspotter.views import read_views

_SIDE = 1024
"""Of the matrices whose product shows what the processor can do."""

_OVERSAMPLING = 2  # as `carspotter.views` has it


def multiplications(model: onnx.ModelProto) -> int:
    """Multiplications with additions of a graph, for a batch of one: of what has weights.

    Args:
        model: its convolutions, matrix products and linear layers count, in 8 bits or in 32.

    Raises:
        ValueError: the shape of one of them cannot be told.
    """
    one = onnx.ModelProto()
    one.CopyFrom(model)
    for value in one.graph.input:
        for place, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_value = 1 if place == 0 else 0
    graph = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = [d.dim_value if d.HasField("dim_value") else 1 for d in dims]
    return sum(_of_node(node, shapes) for node in graph.node)


def _of_node(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    try:
        out, left, right = (shapes[n] for n in (node.output[0], *node.input[:2]))
    except KeyError as error:
        raise ValueError(f"{node.name}: no shape is known of {error}") from error
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(right[1:])
    flipped = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * (left[-2] if flipped else left[-1])


def peak(*, in_8_bits: bool, threads: int, rounds: int) -> float:
    """Multiplications with additions a second, of a matrix product in onnxruntime."""
    rng = np.random.default_rng(0)
    shape = [_SIDE, _SIDE]
    if in_8_bits:
        left = rng.integers(0, 255, shape, np.uint8)
        right: Any = rng.integers(-127, 127, shape, np.int8)
        node = helper.make_node("MatMulInteger", ["left", "right"], ["product"])
        kinds = (TensorProto.UINT8, TensorProto.INT32)
    else:
        left, right = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
        node = helper.make_node("MatMul", ["left", "right"], ["product"])
        kinds = (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("left", kinds[0], shape)],
        [helper.make_tensor_value_info("product", kinds[1], shape)],
        [numpy_helper.from_array(right, "right")],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    session = open_session(model.SerializeToString(), Path("a matrix product"), threads)
    return _SIDE**3 / best(lambda: session.run(None, {"left": left}), rounds)


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of several rounds: the bound is what the machine can do."""
    work()
    return min(_seconds(work) for _ in range(rounds))


def median(work: Callable[[], object], rounds: int) -> float:
    """Seconds, in the median of several rounds."""
    work()
    return statistics.median(_seconds(work) for _ in range(rounds))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def of_network(file: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """The network alone, with one photo and with eight: measured, and its bound."""
    spotter = load(file, detector="none", threads=threads)
    model = onnx.load(file)
    count = multiplications(model)
    in_8_bits = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    most = peak(in_8_bits=in_8_bits, threads=threads, rounds=rounds)
    side = spotter.card.input_size
    found = []
    for photos in (1, 8):
        pixels = np.random.default_rng(0).integers(0, 256, (photos, side, side, 3), np.uint8)
        taken = median(lambda p=pixels: spotter.logits(p), rounds) / photos  # type: ignore[misc]
        found.append(
            {
                "part": f"network, {photos} at once",
                "measured_ms": 1000 * taken,
                "bound_ms": 1000 * count / most,
                "bound": f"{count / 1e6:.0f} million multiplications at {most / 1e9:.0f} "
                f"thousand million a second ({'8' if in_8_bits else '32'} bits)",
            }
        )
    return found


def of_reading(file: Path, megapixels: Sequence[float], rounds: int) -> list[dict[str, Any]]:
    """Reading a photo to the network's input, in one thread: measured, and libjpeg-turbo alone."""
    card = load(file, detector="none", threads=1).card
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in megapixels:
            photo = write_photos(Path(folder), size, PHOTOS)[0]

            def decoded(photo: Path = photo) -> None:
                with Image.open(photo) as image:
                    short = min(image.size)
                    share = min(1.0, _OVERSAMPLING * card.input_size / short)
                    width, height = (math.ceil(side * share) for side in image.size)
                    image.draft(None, (width, height))
                    image.load()

            def in_full(photo: Path = photo) -> object:
                return np.asarray(read_reduced(photo, None).image)

            def read(photo: Path = photo) -> object:
                return read_views(photo, card, box=None, detector=None)

            found.append(
                {
                    "part": f"reading {size:g} megapixels",
                    "measured_ms": 1000 * median(read, rounds),
                    "bound_ms": 1000 * best(decoded, rounds),
                    "bound": "libjpeg-turbo at the size that is needed",
                    "in_full_ms": 1000 * median(in_full, rounds),
                }
            )
    return found


def main() -> None:
    """Measure, print a table, and write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--model",
        default="stanford-cars-lite2",
        help="a shipped model's name, or an ONNX file, of one network",
    )
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.3, 2.0, 12.0])
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    wanted = parser.parse_args()
    spotter = load(wanted.model, detector="none")
    if "members" in spotter.card.accuracy:
        parser.error(f"{wanted.model}: is made of several networks; name the file of one")
    file = spotter.path
    parts = [
        *of_network(file, wanted.threads, wanted.rounds),
        *of_reading(file, wanted.megapixels, wanted.rounds),
    ]
    for part in parts:
        part["share_of_bound"] = part["bound_ms"] / part["measured_ms"]
        print(
            f"{part['part']:24} {part['measured_ms']:8.2f} ms, bound {part['bound_ms']:8.2f} ms "
            f"({100 * part['share_of_bound']:3.0f} %): {part['bound']}"
        )
    if wanted.out is not None:
        about = {"machine": machine(), "onnxruntime": ort.__version__, "threads": wanted.threads}
        wanted.out.write_text(json.dumps({**about, "parts": parts}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What is measured on scenes: names, boxes, unknowns, and what looking for cars costs."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou

from benchmarks.scenes.material import CarsToName, Composed, pixels_of
from carspotter import Identification, Spotter
from carspotter.data import Crop, decoded_pictures
from carspotter.data.scenes import read_frames
from carspotter.detect import Localiser
from carspotter.localise.measure import OVERLAP, Found, curve, large_enough

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.data import DecodedPictures
    from carspotter.photo import Pixels

WHOLE = 0.95
"""From this share on, a car is seen whole: neither cut off by the edge nor hidden by another."""

WIDEST = 960
"""Width of a frame in which a vehicle counts from `LEAST_WIDTH` on."""

LEAST_WIDTH = 60

KEPT = 0.95
"""Share of the cars that a threshold keeps, by which photos without a car are counted."""


def named(found: Identification) -> str:
    """The most probable name of the main car."""
    return found.candidates[0].label if found.candidates else ""


def crops(spotter: Spotter, cars: CarsToName) -> dict[str, Any]:
    """The test crops by themselves: top-1 with and without looking for the car first."""
    shares: dict[str, float] = {}
    none_found = 0
    for mode in ("none", "auto"):
        found = list(spotter.identify_many(pixels_of(cars.pixels), top_k=1, crop=mode))
        right = [named(f) == label for f, label in zip(found, cars.labels, strict=True)]
        shares[mode] = float(np.mean(right))
        if mode == "auto":
            none_found = sum(f.box is None for f in found)
    return {"pictures": len(cars.labels), "top1": shares, "no_car_found": none_found}


def composites(spotter: Spotter, cars: CarsToName, scenes: Sequence[Composed]) -> dict[str, Any]:
    """Cars in composed scenes: found and named, beside the same cars' crops by themselves."""
    numbers = [car for scene in scenes for car in scene.cars]
    alone = spotter.identify_many((cars.pixels[n] for n in numbers), top_k=1, crop="none")
    right_alone = [named(f) == cars.labels[n] for f, n in zip(alone, numbers, strict=True)]
    answers = list(spotter.identify_many((s.pixels for s in scenes), top_k=1))
    whole = spotter.identify_many((s.pixels for s in scenes), top_k=1, crop="none")
    found, right, seen, main, main_whole, main_alone = [], [], [], [], [], []
    by_number = dict(zip(numbers, right_alone, strict=True))
    for scene, answer, plain in zip(scenes, answers, whole, strict=True):
        names = _names(answer, scene)
        found += [name is not None for name in names]
        right += [name == cars.labels[n] for name, n in zip(names, scene.cars, strict=True)]
        seen += scene.seen
        largest = int(np.argmax([(b[2] - b[0]) * (b[3] - b[1]) for b in scene.boxes]))
        label = cars.labels[scene.cars[largest]]
        main.append(named(answer) == label)
        main_whole.append(named(plain) == label)
        main_alone.append(by_number[scene.cars[largest]])
    return {
        "scenes": len(scenes),
        "all_cars": _shares(found, right, right_alone),
        "whole_cars": _shares(*(_of_whole(each, seen) for each in (found, right, right_alone))),
        "top1_main_car": float(np.mean(main)),
        "top1_main_car_without_looking_for_it": float(np.mean(main_whole)),
        "top1_main_car_as_a_crop": float(np.mean(main_alone)),
    }


def _shares(
    found: Sequence[bool], right: Sequence[bool], right_alone: Sequence[bool]
) -> dict[str, Any]:
    if not found:
        return {"cars": 0}
    return {
        "cars": len(found),
        "found": float(np.mean(found)),
        "top1": float(np.mean(right)),
        "top1_as_a_crop": float(np.mean(right_alone)),
    }


def _of_whole(values: Sequence[bool], seen: Sequence[float]) -> list[bool]:
    return [value for value, share in zip(values, seen, strict=True) if share >= WHOLE]


def _names(answer: Identification, scene: Composed) -> list[str | None]:
    """The name that was given to each car; None where its box was not found."""
    boxes = [answer.box, *(car.box for car in answer.others)]
    names = [named(answer), *(c.candidates[0].label for c in answer.others)]
    if boxes[0] is None:
        return [None] * len(scene.cars)
    truth = torch.tensor(np.array(scene.boxes), dtype=torch.float32)
    overlap, best = box_iou(truth, torch.tensor(boxes, dtype=torch.float32)).max(dim=1)
    return [
        names[int(n)] if float(o) >= OVERLAP else None for o, n in zip(overlap, best, strict=True)
    ]


def no_cars(spotter: Spotter, backgrounds: DecodedPictures) -> dict[str, Any]:
    """Photos without a car: how many are answered `unknown` without a box."""
    answers = spotter.identify_many(pixels_of(backgrounds), top_k=1)
    quiet = [
        f.answer is not None and f.answer.level == "unknown" and f.box is None for f in answers
    ]
    return {"pictures": len(quiet), "unknown_without_a_box": float(np.mean(quiet))}


def quiet(
    localiser: Localiser,
    cars: CarsToName,
    scenes: Sequence[Composed],
    backgrounds: DecodedPictures,
) -> dict[str, Any]:
    """Photos without a car that get no box, at the thresholds that keep `KEPT` of the cars.

    Of those that are crops by themselves, and of those in composed scenes, where a car is kept by a
    box that overlaps its own.
    """
    highest = {
        "crops": [_highest(localiser, picture) for picture in pixels_of(cars.pixels)],
        "composites": [
            score for scene in scenes for score in _highest_of_each(localiser, scene).tolist()
        ],
    }
    false = np.array([_highest(localiser, picture) for picture in pixels_of(backgrounds)])
    shares = {"threshold_of_the_file": float(np.mean(false < localiser.card.threshold))}
    for kind, scores in highest.items():
        least = sorted(scores)[int(round(len(scores) * (1 - KEPT), 6))]
        shares[f"threshold_keeping_{KEPT:.0%}_of_{kind}"] = float(np.mean(false < least))
    return shares


def _highest(localiser: Localiser, picture: Pixels) -> float:
    return float(localiser.boxes(Image.fromarray(picture))[1].max(initial=0))


def _highest_of_each(localiser: Localiser, scene: Composed) -> NDArray[np.float32]:
    """The highest score of a box that overlaps each car's; 0 where there is none."""
    boxes, scores = localiser.boxes(Image.fromarray(scene.pixels))
    truth = torch.tensor(np.array(scene.boxes), dtype=torch.float32)
    overlaps = box_iou(truth, torch.from_numpy(boxes)).numpy() >= OVERLAP
    highest: NDArray[np.float32] = np.where(overlaps, scores, 0).max(axis=1, initial=0)
    return highest


def streets(localiser: Localiser, file: Path) -> dict[str, Any]:
    """Vehicles in street frames: average precision, and the curve of precision over recall.

    Vehicles narrower than `LEAST_WIDTH` pixels of a frame `WIDEST` wide, and regions that nobody
    labelled, are neither right nor wrong; so are boxes that narrow which lie on no vehicle.
    """
    frames = read_frames(file, "test")
    pixels = decoded_pictures([frame.picture for frame in frames], Crop(), 4320)
    truth, found, ignored = [], [], []
    for number, place in enumerate(pixels.kept):
        frame, picture = frames[place], Image.fromarray(pixels[number])
        least = LEAST_WIDTH * picture.width / WIDEST
        seen = large_enough(frame.vehicles, Found(*localiser.boxes(picture)), least, _width)
        truth.append(seen.truth)
        found.append(seen.found)
        ignored.append(np.concatenate([seen.ignored, frame.ignored]))
    ap, settings = curve(truth, found, ignored)
    good = [s for s in settings if s.precision >= 0.8]
    return {
        "frames": len(truth),
        "vehicles": int(sum(len(boxes) for boxes in truth)),
        "ap50": ap,
        "recall_at_precision_80": max((s.recall for s in good), default=0.0),
        "curve": [s.to_dict() for s in settings],
    }


def _width(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    width: NDArray[np.float32] = boxes[:, 2] - boxes[:, 0]
    return width


def cost(spotter: Spotter, photos: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Time of one photo with looking for cars, as a multiple of that without; median of ratios."""
    ratios = []
    for photo in itertools.islice(itertools.cycle(photos), rounds):
        seconds = {}
        for mode in ("none", "auto"):
            started = time.perf_counter()
            spotter.identify(photo, crop=mode)
            seconds[mode] = time.perf_counter() - started
        ratios.append(seconds["auto"] / seconds["none"])
    return {"rounds": rounds, "median": statistics.median(ratios)}

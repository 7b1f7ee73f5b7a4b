"""`carspotter models`: the models at hand."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from carspotter.card_text import card_text
from carspotter.loading import DEFAULT_MODEL, load, shipped_models
from carspotter.spotter import Spotter

_RUNS = 7
"""Of which the middle one is told; the first of them, which prepares things, does not count."""


def run(*, as_json: bool) -> None:
    """Print what the shipped models say of themselves."""
    rows = [_row(name, Spotter(path)) for name, path in shipped_models().items()]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        measured = row["accuracy"].get("measured", {})
        figure = measured.get("exact", {}).get("top1")
        accuracy = (
            "not measured"
            if figure is None
            else f"{100 * figure:.1f} % of {measured['pictures']} {measured['split']} pictures"
        )
        default = ", the default" if row["name"] == DEFAULT_MODEL else ""
        print(f"{row['name']} {row['version']}{default}")
        print(f"  {row['classes']} cars, {row['input_size']} px, {row['megabytes']:.1f} MB")
        print(f"  top-1 accuracy: {accuracy}")
        network = "all its networks asked" if "members" in row["accuracy"] else "network alone"
        print(f"  {row['milliseconds']:.1f} ms for one picture on this machine, {network}")
        print(f"  trained on {_origin(row['trained_on'])}")
        print(f"  {row['file']}")


def run_card(model: str, *, as_json: bool) -> None:
    """Print the card of one model.

    Raises:
        ModelFileError: no such model, or not one of carspotter's.
    """
    card = load(model, detector="none").card
    print(card.to_json() if as_json else card_text(card), end="\n" if as_json else "")


def _row(name: str, spotter: Spotter) -> dict[str, Any]:
    card = spotter.card
    return {
        "name": name,
        "version": card.version,
        "classes": len(card.classes),
        "input_size": card.input_size,
        "megabytes": round(spotter.path.stat().st_size / 1e6, 1),
        "accuracy": card.accuracy,
        "milliseconds": round(_milliseconds(spotter), 2),
        "trained_on": card.trained_on,
        "sha256": spotter.info.sha256,
        "file": str(spotter.path),
    }


def _milliseconds(spotter: Spotter) -> float:
    """How long the network takes for one picture on this machine, with its threads, now.

    The picture is noise, of which no network is sure: a cascade asks all that it has.
    """
    size = spotter.card.input_size
    picture = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    taken = []
    for _ in range(1 + _RUNS):
        started = time.perf_counter()
        spotter.logits(picture)
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken[1:])


def _origin(data: Mapping[str, Any]) -> str:
    if not data:
        return "what the file does not say"
    name = str(data.get("fingerprint", ""))[:12]
    return f"{data.get('pictures')} {data.get('split')} pictures" + (
        f" of the data set {name} ({data.get('layout')})" if name else ""
    )

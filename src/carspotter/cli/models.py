"""`carspotter models`: the models at hand."""

from __future__ import annotations

import json
from typing import Any

from carspotter.card_text import card_text
from carspotter.loading import DEFAULT_MODEL, load, shipped_models
from carspotter.spotter import Spotter


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
        "trained_on": card.trained_on,
        "sha256": spotter.info.sha256,
        "file": str(spotter.path),
    }

"""A model card as people read it (arXiv:1810.03993): Markdown, from what the model file says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from carspotter.card import Card
from carspotter.names import LEVELS

_LEVEL_NAMES = {"exact": "exact", "model": "make and model", "make": "make"}

_FIGURES = {
    "top1": "top-1",
    "top5": "top-5",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
}

_DATA = {
    "layout": "layout",
    "split": "split",
    "crop": "pictures are",
    "pictures": "pictures learnt from",
    "val_pictures": "pictures to choose, calibrate and set thresholds on",
    "val_fraction": "share of each car for that, one picture at least",
    "split_seed": "seed of that choice",
    "excluded": "pictures left out of both",
    "fingerprint": "fingerprint",
}


def card_text(card: Card) -> str:
    """The card as Markdown: what the model is, its notes, its data, and its figures."""
    parts = [
        f"# {card.name}",
        f"Made by carspotter {card.version}. Takes pictures of {card.input_size} x "
        f"{card.input_size} pixels and knows {len(card.classes)} cars.",
        card.notes.strip(),
        "## What it was trained on",
        _trained_on(card.trained_on),
        "## What was measured",
        *_measured(card.accuracy.get("measured", {})),
        _in_8_bits(card.accuracy.get("in_8_bits", {})),
        _members(card.accuracy.get("members", [])),
        "## When it answers",
        _calibrated_by(card.accuracy.get("calibrated_by", {})),
        f"Temperature of the softmax: {card.temperature:.3f}. Least calibrated probability at "
        "which an answer is given:",
        _table(
            ("level", "probability"),
            [(_LEVEL_NAMES[level], f"{card.thresholds[level]:.3f}") for level in LEVELS],
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _trained_on(data: Mapping[str, Any]) -> str:
    if not data:
        return "The file does not say."
    keys = [key for key in _DATA if key in data] + sorted(data.keys() - _DATA.keys())
    values = {**data, "excluded": len(data.get("excluded", ()))}
    return _table(("what", "value"), [(_DATA.get(key, key), str(values[key])) for key in keys])


def _measured(measured: Mapping[str, Any]) -> Iterable[str]:
    if not measured:
        return ["Nothing: the file holds no figures."]
    found = [
        f"On {measured['pictures']} pictures of the {measured['split']} split, pictures "
        f"{_crop(measured['crop'])}. Shares in per cent; a level's probability is the sum over "
        "its classes.",
        _table(
            ("level", "names", *_FIGURES.values()),
            [
                (
                    _LEVEL_NAMES[level],
                    str(measured[level]["classes"]),
                    *(_percent(measured[level][key]) for key in _FIGURES),
                )
                for level in LEVELS
            ],
        ),
    ]
    for part, title in (("body", "By body style"), ("make", "By make")):
        groups: Sequence[Mapping[str, Any]] = measured.get(f"by_{part}", ())
        if groups:
            found += [f"### {title}", _groups(part, groups)]
    return found


def _in_8_bits(loss: Mapping[str, Any]) -> str:
    """What was lost by computing in 8 bits; empty, where the file computes in 32."""
    if not loss:
        return ""
    return (
        f"It computes in 8 bits. Of {loss['pictures']} validation pictures it names "
        f"{_percent(loss['after'])} % rightly, in 32 bits {_percent(loss['before'])} %, and the "
        f"same class for {_percent(loss['agreement'])} %."
    )


def _members(members: Sequence[Mapping[str, Any]]) -> str:
    """Which networks answer; empty, where there is one alone."""
    if not members:
        return ""
    first, *others = (f"{one['name']} (SHA-256 {one['sha256'][:12]})" for one in members)
    bits = " They compute in 8 bits." if members[0]["in_8_bits"] else ""
    return (
        f"It is a cascade of {len(members)} networks: {first} looks at each picture; where its "
        f"first name is less probable than {members[1]['asked_below']:g}, so does "
        f"{', '.join(others)}, and the mean of their logits counts.{bits}"
    )


def _calibrated_by(source: Mapping[str, Any]) -> str:
    """Whose temperature and thresholds these are; empty, where they are its own."""
    if not source:
        return ""
    return (
        "Temperature, thresholds and answer sets were not fitted to this model, which was trained "
        f"on too many of the pictures, but to {source['name']} (SHA-256 {source['sha256'][:12]}), "
        f"on {source['pictures']} pictures that that one was not trained on."
    )


def _groups(part: str, groups: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        (part, "classes", "pictures", "exact name right", f"{part} right"),
        [
            (
                group["name"] or "not stated",
                str(group["classes"]),
                str(group["pictures"]),
                _percent(group["exact"]),
                _percent(group["part"]),
            )
            for group in groups
        ],
    )


def _crop(crop: str) -> str:
    return "as the data has them" if crop == "whole" else "cut to their boxes"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is of figures, and stands to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))

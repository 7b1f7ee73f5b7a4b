"""What of a card is fitted to what a model says of its validation part, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from carspotter import __version__
from carspotter.card import Card
from carspotter.decide import softmax
from carspotter.errors import UsageError
from carspotter.evaluate import Predictions, measure, measure_by
from carspotter.evaluate.calibration import fit_temperature, fit_thresholds
from carspotter.evaluate.conformal import COVERAGES, fit_set_threshold
from carspotter.loading import load
from carspotter.names import LEVELS, CarName, Level, class_name
from carspotter.train import Checkpoint


@dataclass(frozen=True)
class Calibration:
    """What makes answers of logits.

    Attributes:
        temperature: of the softmax.
        thresholds: the least calibrated probability of an answer, by level.
        sets: the least probability of a class in a set, by promised coverage.
        source: the model that it was fitted to, where that is another: its `name`, `sha256` and
            the `pictures` of the validation part.
    """

    temperature: float
    thresholds: Mapping[Level, float]
    sets: Mapping[str, float]
    source: Mapping[str, Any] = field(default_factory=dict)


def fit_calibration(val: Predictions, classes: Sequence[CarName]) -> Calibration:
    """The calibration of a model by what it says of its validation part."""
    temperature = fit_temperature(val.logits, val.targets)
    probabilities = softmax(val.logits, temperature)
    return Calibration(
        temperature,
        fit_thresholds(probabilities, val.targets, classes),
        {
            str(coverage): fit_set_threshold(probabilities, val.targets, coverage)
            for coverage in COVERAGES
        },
    )


def calibration_of(
    model: str, class_names: Sequence[str], *, in_8_bits: bool, networks: int = 1
) -> Calibration:
    """The calibration of a model file, for another model of the same cars.

    For a model that was trained on nearly all pictures, of which too few are left to fit
    thresholds: the same recipe with more pictures set aside makes a model to fit them to.

    Args:
        model: a model file, or a shipped model's name.
        class_names: in the order of the other model's logits.
        in_8_bits: whether the other model computes so, which changes its logits.
        networks: of how many the other model is made.

    Raises:
        ModelFileError: it cannot be read.
        UsageError: it knows other cars, computes in other bits, is made of more or fewer networks,
            or its own calibration is another model's.
    """
    spotter = load(model, detector="none")
    card = spotter.card
    if [name.label for name in card.classes] != list(class_names):
        raise UsageError(
            f"{model}: knows other cars than the model to export; calibrate by one of the same"
        )
    if computes_in_8_bits(card) != in_8_bits:
        wanted, given = ("8", "32") if in_8_bits else ("32", "8")
        raise UsageError(
            f"{model}: computes in {given} bits, the model to export in {wanted} bits; calibrate "
            f"by one in {wanted} bits"
        )
    if (there := len(card.accuracy.get("members", [card]))) != networks:
        raise UsageError(
            f"{model}: is made of {there} network(s), the model to export of {networks}; calibrate "
            "by one that is made likewise"
        )
    if "calibrated_by" in card.accuracy:
        raise UsageError(
            f"{model}: was calibrated by another model itself, "
            f"{card.accuracy['calibrated_by']['name']}; name that one"
        )
    source = {
        "name": card.name,
        "sha256": spotter.info.sha256,
        "pictures": card.accuracy.get("validation", {}).get("pictures", 0),
    }
    return Calibration(card.temperature, card.thresholds, card.sets, source)


def computes_in_8_bits(card: Card) -> bool:
    """Whether a model file does, or the networks of which it is made do."""
    members = card.accuracy.get("members", [])
    return "in_8_bits" in card.accuracy or any(one["in_8_bits"] for one in members)


def card_of(checkpoint: Checkpoint, val: Predictions, calibration: Calibration | None) -> Card:
    """The card of a checkpoint, by what it says of the validation part; see `fitted`."""
    mean, std = (
        tuple(round(float(v) / 255, 6) for v in values.flatten())
        for values in (checkpoint.model.mean, checkpoint.model.std)
    )
    plain = Card(
        name=checkpoint.recipe.name,
        version=__version__,
        classes=tuple(class_name(name) for name in checkpoint.class_names),
        input_size=checkpoint.recipe.eval_size,
        resize="squash",
        mean=mean,  # type: ignore[arg-type]
        std=std,  # type: ignore[arg-type]
        temperature=1.0,
        thresholds=dict.fromkeys(LEVELS, 1.0),
        trained_on=checkpoint.trained_on,
    )
    return fitted(plain, val, calibration)


def fitted(card: Card, val: Predictions, calibration: Calibration | None) -> Card:
    """A card with a calibration, and the accuracy on the validation part alone.

    Args:
        card: what else there is to say.
        val: what the model says of the validation part.
        calibration: of another model; None: fitted to `val`.
    """
    found = calibration or fit_calibration(val, card.classes)
    exact = measure(val.logits, val.targets, [name.label for name in card.classes])[0]
    return replace(
        card,
        temperature=found.temperature,
        thresholds=found.thresholds,
        accuracy={
            "validation": {"pictures": len(val.targets), **exact.to_dict()},
            **({"calibrated_by": dict(found.source)} if found.source else {}),
        },
        sets=found.sets,
    )


def figures(found: Predictions, class_names: Sequence[str], temperature: float) -> dict[str, Any]:
    """What the card says of measured pictures."""
    logits, targets = found.logits, found.targets
    return {
        "pictures": len(targets),
        **{m.level: m.to_dict() for m in measure(logits, targets, class_names, temperature)},
        "by_body": [m.to_dict() for m in measure_by("body", logits, targets, class_names)],
        "by_make": [m.to_dict() for m in measure_by("make", logits, targets, class_names)],
    }

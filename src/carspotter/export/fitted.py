"""What of a card is fitted to what the file itself says of the validation part, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from carspotter import __version__
from carspotter.card import Card
from carspotter.decide import softmax
from carspotter.evaluate import Predictions, measure, measure_by
from carspotter.evaluate.calibration import fit_temperature, fit_thresholds
from carspotter.evaluate.conformal import COVERAGES, fit_set_threshold
from carspotter.names import LEVELS, split_name
from carspotter.train import Checkpoint


def card_of(checkpoint: Checkpoint, val: Predictions) -> Card:
    """The card of a checkpoint, fitted on the validation part."""
    mean, std = (
        tuple(round(float(v) / 255, 6) for v in values.flatten())
        for values in (checkpoint.model.mean, checkpoint.model.std)
    )
    plain = Card(
        name=checkpoint.recipe.name,
        version=__version__,
        classes=tuple(split_name(name) for name in checkpoint.class_names),
        input_size=checkpoint.recipe.eval_size,
        resize="squash",
        mean=mean,  # type: ignore[arg-type]
        std=std,  # type: ignore[arg-type]
        temperature=1.0,
        thresholds=dict.fromkeys(LEVELS, 1.0),
        trained_on=checkpoint.trained_on,
    )
    return fitted(plain, val)


def fitted(card: Card, val: Predictions) -> Card:
    """A card with the temperature, thresholds and sets of these logits, and their accuracy alone.

    Args:
        card: what else there is to say.
        val: what the model says of the validation part.
    """
    temperature = fit_temperature(val.logits, val.targets)
    probabilities = softmax(val.logits, temperature)
    exact = measure(val.logits, val.targets, [name.label for name in card.classes])[0]
    return replace(
        card,
        temperature=temperature,
        thresholds=fit_thresholds(probabilities, val.targets, card.classes),
        accuracy={"validation": {"pictures": len(val.targets), **exact.to_dict()}},
        sets={
            str(coverage): fit_set_threshold(probabilities, val.targets, coverage)
            for coverage in COVERAGES
        },
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

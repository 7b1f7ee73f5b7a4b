"""The recipe of a classifier: a TOML file whose every key is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from carspotter.data import Crop
from carspotter.train.schedule import Schedule, read_recipe, recipes_in


class Recipe(Schedule):
    """All that decides how a classifier is trained."""

    # The model.
    dropout: float = Field(0.2, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the backbone")
    test_flip: bool = Field(False, description="logits are the mean over picture and mirror image")

    # The data.
    crop: Literal["whole", "box"] = Field("whole", description="the photo, or its box plus margin")
    box_margin: int = Field(16, ge=0, description="pixels of the photo")
    sampling: Literal["uniform", "balanced"] = Field(
        "uniform", description="balanced: each class is drawn as often as any other"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: the loss counts each class as much as any other"
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1)

    # After the last epoch.
    soup: int = Field(1, ge=1, description="average of up to so many epochs, if it is better")
    try_sizes: tuple[int, ...] = Field(
        (), description="sizes tried on the validation part; the best becomes eval_size"
    )

    # Distillation.
    teachers: tuple[str, ...] = Field(
        (),
        description="whose mean probability is learnt as well: run folders, checkpoints, recipes "
        "to train them by first, or model:NAME_OR_FILE of the same backbone",
    )
    distill_weight: float = Field(0.5, ge=0, le=1, description="share of the teachers in the loss")
    distill_temperature: float = Field(1.0, gt=0)

    # The augmentation.
    crop_scale: tuple[float, float] = (0.35, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 1.333)
    flip: float = Field(0.5, ge=0, le=1)
    rotation: float = Field(5.0, ge=0, le=180, description="degrees to either side")
    jitter: float = Field(0.3, ge=0, le=1, description="of brightness, contrast and saturation")
    recolour: float = Field(
        0.0, ge=0, le=1, description="share of pictures whose colours change places; a fifth grey"
    )
    auto_augment: Literal["none", "randaugment", "trivialaugment"] = "none"
    magnitude: int = Field(9, ge=0, le=30, description="of randaugment")
    loose: float = Field(0.0, ge=0, le=1, description="share of pictures with more around the car")
    poor: float = Field(
        0.0, ge=0, le=1, description="share of pictures as a poor camera or poor light gives them"
    )
    erasing: float = Field(0.0, ge=0, le=1, description="share of pictures with a part erased")
    mix_probability: float = Field(0.3, ge=0, le=1, description="share of batches mixed")
    mixup_alpha: float = Field(0.2, ge=0)
    cutmix_alpha: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if any(size < 32 for size in self.try_sizes):
            raise ValueError("try_sizes: each must be at least 32")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("crop_scale: needs 0 < low <= high <= 1")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError("crop_aspect: needs 0 < low <= high")
        if self.soup > 1 and self.keep == "last":
            raise ValueError("soup: needs keep = 'best'")
        if self.mix_probability and not (self.mixup_alpha or self.cutmix_alpha):
            raise ValueError("mix_probability: needs mixup_alpha or cutmix_alpha")
        return self

    def area(self) -> Crop:
        """Which part of each picture the model is trained on."""
        return Crop(self.crop == "box", self.box_margin)


def shipped_recipes() -> Mapping[str, str]:
    """The recipes that come with the package: name and TOML text."""
    return recipes_in("carspotter.train")


def load_recipe(name_or_file: str, changes: Sequence[str] = ()) -> Recipe:
    """Load a classifier's recipe; see `schedule.read_recipe`.

    Raises:
        RecipeError: no such recipe, no TOML, an unknown key or a value out of range.
    """
    return read_recipe(Recipe, name_or_file, shipped_recipes(), changes)

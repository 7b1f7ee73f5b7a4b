"""The recipe of a localiser: a TOML file whose every key is checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from carspotter.train.recipe import Recipe, load_recipe
from carspotter.train.schedule import Schedule, read_recipe, recipes_in


class LocaliserRecipe(Schedule):
    """All that decides how a localiser is trained. `sizes` are the longer sides of scenes."""

    kind: Literal["localiser"] = "localiser"

    # The model.
    stages: int = Field(4, ge=2, description="so many of the backbone's stages are used")
    width: int = Field(48, ge=8, description="channels of the head, at every scale")

    # The data.
    backgrounds: str = Field(description="a parquet file of pictures without a car")
    frames: str = Field("", description="a parquet file of street frames with boxes; may be empty")
    box_margin: int = Field(
        16, ge=0, description="pixels of the photo around the car that the pictures have kept"
    )
    scenes: int = Field(0, ge=0, description="drawn in an epoch; 0: one for each picture of a car")
    val_scenes: int = Field(400, ge=1, description="drawn to validate on")

    shares: tuple[float, float, float, float] = Field(
        (0.45, 0.2, 0.25, 0.1),
        description="of scenes: cars pasted, one car that fills it, a street frame, no car",
    )
    crowded: float = Field(
        0.0, ge=0, le=1, description="share of street scenes into which more is pasted"
    )

    # The augmentation of a whole scene.
    jitter: float = Field(0.4, ge=0, le=1, description="of brightness, contrast and saturation")
    grey: float = Field(0.1, ge=0, le=1, description="share of scenes without colour")
    recolour: float = Field(
        0.0, ge=0, le=1, description="share of scenes whose colours change places"
    )
    blur: float = Field(0.15, ge=0, le=1, description="share of scenes that are blurred")
    jpeg: float = Field(0.3, ge=0, le=1, description="share of scenes that are compressed")

    @model_validator(mode="after")
    def _whole_cells(self) -> LocaliserRecipe:
        if any(size % 160 for size in (*self.sizes, self.eval_size)):
            raise ValueError("sizes, eval_size: each must be a multiple of 160")
        if min(self.shares) < 0 or not sum(share for share in self.shares[:2]):
            raise ValueError("shares: none below 0, and some scenes with a car")
        return self


def shipped_localisers() -> Mapping[str, str]:
    """The recipes that come with the package: name and TOML text."""
    return recipes_in("carspotter.localise")


def load_localiser_recipe(name_or_file: str, changes: Sequence[str] = ()) -> LocaliserRecipe:
    """Load a localiser's recipe; see `schedule.read_recipe`.

    Raises:
        RecipeError: no such recipe, no TOML, an unknown key or a value out of range.
    """
    return read_recipe(LocaliserRecipe, name_or_file, shipped_localisers(), changes)


def load_any_recipe(name_or_file: str, changes: Sequence[str] = ()) -> Recipe | LocaliserRecipe:
    """Load a recipe of whichever kind it is: a localiser's says so in `kind`.

    Raises:
        RecipeError: no such recipe, no TOML, an unknown key or a value out of range.
    """
    if name_or_file in shipped_localisers() or is_localiser_recipe(Path(name_or_file)):
        return load_localiser_recipe(name_or_file, changes)
    return load_recipe(name_or_file, changes)


def is_localiser_recipe(file: Path) -> bool:
    """Whether a recipe file, as it may lie in a run folder, is a localiser's."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")).get("kind") == "localiser"
    except (OSError, ValueError):  # what is wrong with it, the reader of recipes says
        return False

"""Checkpoints: a trained model with all that is needed to use it, or to go on training it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from carspotter.errors import ModelFileError
from carspotter.files import replacing
from carspotter.train.allocator import keep_freed_memory
from carspotter.train.model import CarClassifier, Outputs
from carspotter.train.recipe import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carspotter.photo import Pixels

_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained classifier.

    Attributes:
        model: in eval mode, with the averaged weights.
        recipe: what it was trained by.
        class_names: in the order of its logits.
        trained_on: the data set's name, picture count and fingerprint.
        epoch: epochs done.
        val_accuracy: top-1 on the validation part, 0 to 1.
    """

    model: CarClassifier
    recipe: Recipe
    class_names: tuple[str, ...]
    trained_on: dict[str, Any]
    epoch: int
    val_accuracy: float

    def recognise(self, pixels: Pixels) -> NDArray[np.float32]:
        """Logits (N, classes) of pictures (N, S, S, 3) uint8: an `evaluate.Recogniser`."""
        return recognise(self.model, pixels)

    def outputs(self, pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (N, classes) and embeddings (N, D) of pictures (N, S, S, 3) uint8."""
        found = _outputs(self.model, pixels)
        return found.logits.float().cpu().numpy(), found.embedding.float().cpu().numpy()


def recognise(model: CarClassifier, pixels: Pixels) -> NDArray[np.float32]:
    """Logits (N, classes) of pictures (N, S, S, 3) uint8, in fp32."""
    logits: NDArray[np.float32] = _outputs(model, pixels).logits.float().cpu().numpy()
    return logits


def _outputs(model: CarClassifier, pixels: Pixels) -> Outputs:
    batch = torch.from_numpy(pixels).to(model.mean.device).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return model.outputs(batch)


def save_checkpoint(path: Path, found: Checkpoint) -> None:
    """Write a trained classifier, whole or not at all; `load_checkpoint` reads it."""
    content = {
        "model": found.model.state_dict(),
        "recipe": found.recipe.model_dump(),
        "class_names": list(found.class_names),
        "trained_on": found.trained_on,
        "epoch": found.epoch,
        "val_accuracy": found.val_accuracy,
    }
    save(path, content)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with replacing(path) as part:
        torch.save({"format": _FORMAT, **content}, part)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        ModelFileError: no such file, not a checkpoint, or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch and pickle raise many kinds on a damaged file
        raise ModelFileError(f"{path}: not a checkpoint, or damaged ({error})") from error
    if not isinstance(content, dict) or "format" not in content:
        raise ModelFileError(f"{path}: not a checkpoint of carspotter")
    if content["format"] != _FORMAT:
        raise ModelFileError(
            f"{path}: checkpoint format {content['format']}, this carspotter reads {_FORMAT}"
        )
    return content


def load_checkpoint(path: Path) -> Checkpoint:
    """Load the trained classifier of a run.

    Args:
        path: a checkpoint file, or a run folder: its best checkpoint is taken.

    Raises:
        ModelFileError: no such file, not a checkpoint, or of another format.
    """
    content = load(path / "best.ckpt" if path.is_dir() else path)
    keep_freed_memory()  # batch after batch of activations: see there
    try:
        recipe = Recipe.model_validate(content["recipe"])
        model = CarClassifier(recipe, len(content["class_names"]), pretrained=False)
        model.load_state_dict(content["model"])
    except KeyError as error:  # the state of a run under way
        raise ModelFileError(f"{path}: no trained model; take the run's best.ckpt") from error
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path}: not of this version of carspotter ({error})") from error
    # As it was trained: in another order of memory the last digits of its logits are others.
    model.to(memory_format=torch.channels_last)
    return Checkpoint(
        model=model.eval(),
        recipe=recipe,
        class_names=tuple(content["class_names"]),
        trained_on=content["trained_on"],
        epoch=content["epoch"],
        val_accuracy=content["val_accuracy"],
    )

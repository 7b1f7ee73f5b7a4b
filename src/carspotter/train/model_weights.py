"""The weights of a model file, read back to be trained on.

A model file has its batch norms folded into the convolutions before them. What such a norm did can
be told from the outputs of its convolution alone, since only their mean and deviation in training
are lost; these are measured anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from carspotter.card import CARD_KEY, parse_card, unsealed
from carspotter.errors import RecipeError
from carspotter.loading import model_path
from carspotter.train.model import CarClassifier

_INNER = "model."  # the classifier's own names, in the file
_BIAS = "_bias"  # what the exporter calls the bias of a convolution that took up a norm
_HALF = ".half"  # stored in 16 bits


@dataclass(frozen=True)
class FileWeights:
    """What a model file holds of its classifier.

    Attributes:
        tensors: by their names in the file, in 32 bits.
        class_names: in the order of the logits.
        file: its path, for messages.
    """

    tensors: Mapping[str, Tensor]
    class_names: tuple[str, ...]
    file: str


def read_weights(name_or_file: str) -> FileWeights:
    """Read the weights of a shipped model or a model file.

    Raises:
        ModelFileError: no such file, or not one of carspotter's.
        RecipeError: its weights are quantised, or those of several networks.
    """
    path = model_path(name_or_file)
    content, _ = unsealed(path)
    proto = onnx.load_model_from_string(content)
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    card = parse_card(texts[CARD_KEY], str(path))
    if "members" in card.accuracy:
        raise RecipeError(f"{path}: is made of several networks; take the file of one")
    if any(node.op_type.endswith("QuantizeLinear") for node in proto.graph.node):
        raise RecipeError(f"{path}: its weights are quantised; take the file with those in full")
    tensors = {
        entry.name.removesuffix(_HALF): torch.from_numpy(numpy_helper.to_array(entry).copy())
        for entry in proto.graph.initializer
    }
    return FileWeights(
        {name: tensor.float() for name, tensor in tensors.items()},
        tuple(name.label for name in card.classes),
        str(path),
    )


def fill_from_file(
    model: CarClassifier,
    found: FileWeights,
    class_names: Sequence[str],
    batches: Callable[[], Iterable[Tensor]] | None,
) -> bool:
    """Give a classifier the weights of a model file, such that it answers as the file does.

    Args:
        model: of the file's backbone; left in eval mode.
        found: what the file holds.
        class_names: that the model is to know. Where they are not the file's, name by name, its
            head stays as it is.
        batches: gives training pictures (N, 3, S, S), 0 to 255, on which the norms' statistics
            are measured. None: the norms add their biases and do no more, which is enough for a
            model that is not trained.

    Returns:
        Whether the head was taken from the file too.

    Raises:
        RecipeError: the file is of another backbone.
    """
    model.eval()
    norm_of = _norms_after(model)
    state = {name: _needed(found, name, tensor) for name, tensor in _own(model, norm_of).items()}
    model.load_state_dict(state, strict=False)
    biases = {
        norm: _needed(found, f"{name}.weight{_BIAS}", norm.bias, is_full_name=False)
        for name, norm in norm_of.items()
    }
    for norm, bias in biases.items():
        _set_norm(norm, torch.zeros_like(bias), torch.ones_like(bias) - norm.eps, bias)
    takes_head = tuple(class_names) == found.class_names and "head.weight" in found.tensors
    norms = [*norm_of.values(), cast("_BatchNorm", model.head[0])]
    if batches is None:
        if takes_head:
            features = cast("_BatchNorm", model.head[0]).num_features
            _set_head(model, found, torch.zeros(features), torch.ones(features))
        return takes_head
    measured = _statistics(model, norms, batches())
    for norm, bias in biases.items():
        mean, variance = measured[norm]
        _set_norm(norm, mean, variance, bias + mean)
    if takes_head:
        _set_head(model, found, *measured[norms[-1]])
    return takes_head


def _own(model: CarClassifier, norm_of: Mapping[str, _BatchNorm]) -> dict[str, Tensor]:
    """The tensors of the backbone that are no batch norm's."""
    folded = {id(norm) for norm in norm_of.values()}
    inner = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if id(module) in folded
        for key in module.state_dict()
    }
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith("backbone.") and name not in inner
    }


def _needed(found: FileWeights, name: str, like: Tensor, *, is_full_name: bool = True) -> Tensor:
    tensor = found.tensors.get(_INNER + name)
    if tensor is None or tensor.shape != like.shape:
        what = name if is_full_name else name.removesuffix(_BIAS)
        raise RecipeError(
            f"weights: {found.file} is not of this backbone: {what} is not there, or of another "
            "shape; name the backbone that the file was made of"
        )
    return tensor


@torch.no_grad()
def _norms_after(model: CarClassifier) -> dict[str, _BatchNorm]:
    """For the name of each convolution whose output goes into a batch norm: the norm."""
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no other output gets the number of one that is gone
    found: dict[str, _BatchNorm] = {}
    handles = []

    def after(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept.append(output)
        made[id(output)] = name

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            found[made[id(inputs[0])]] = cast("_BatchNorm", module)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(functools.partial(after, name)))
        elif isinstance(module, _BatchNorm):
            handles.append(module.register_forward_pre_hook(before))
    try:
        model(torch.zeros(1, 3, 64, 64))
    finally:
        for handle in handles:
            handle.remove()
    return found


@torch.no_grad()
def _statistics(
    model: CarClassifier, norms: Sequence[_BatchNorm], batches: Iterable[Tensor]
) -> dict[_BatchNorm, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel of what goes into each norm."""
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double()
        places = [place for place in range(values.ndim) if place != 1]
        number = values.numel() / values.shape[1]
        total = sums[cast("_BatchNorm", module)]
        total[0] += number
        total[1] += values.sum(places)
        total[2] += values.square().sum(places)

    handles = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        for pixels in batches:
            model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    measured = {}
    for norm, (number, total, squares) in sums.items():
        mean = total / number
        variance = (squares / number - mean.square()).clamp_min(1e-6)
        measured[norm] = (mean.float(), variance.float())
    return measured


@torch.no_grad()
def _set_norm(norm: _BatchNorm, mean: Tensor, variance: Tensor, bias: Tensor) -> None:
    """Statistics, and the weight with which they leave a value as it is but for the bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(bias)


@torch.no_grad()
def _set_head(model: CarClassifier, found: FileWeights, mean: Tensor, variance: Tensor) -> None:
    norm, linear = cast("_BatchNorm", model.head[0]), cast("nn.Linear", model.head[2])
    weight, bias = found.tensors["head.weight"], found.tensors["bias"]
    deviation = (variance + norm.eps).sqrt()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    linear.weight.copy_(weight * deviation)
    linear.bias.copy_(bias + weight @ mean)

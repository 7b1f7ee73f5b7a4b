"""The classifier: a timm backbone and a head of BatchNorm1d, Dropout and Linear."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from timm.models import group_parameters
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay
from timm.optim.lamb import Lamb
from timm.optim.lion import Lion
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from carspotter.errors import RecipeError
from carspotter.train.recipe import Recipe
from carspotter.train.schedule import Schedule
from carspotter.train.weights import pretrained_backbone


class Outputs(NamedTuple):
    """What the classifier says of N pictures.

    Attributes:
        logits: (N, classes).
        embedding: (N, D) pooled features, the head's input.
        feature_map: (N, D, h, w) the features before pooling, from which the heat map is made.
    """

    logits: Tensor
    embedding: Tensor
    feature_map: Tensor


class CarClassifier(nn.Module):
    """Pixels in, logits out; mean and standard deviation are applied inside.

    Args:
        recipe: names the backbone, its weights, the dropout and the frozen stages.
        classes: how many there are.
        pretrained: False leaves the backbone's weights random, for a checkpoint to fill.

    Raises:
        RecipeError: the backbone or its weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe, classes: int, *, pretrained: bool = True) -> None:
        super().__init__()
        source = recipe.weights if pretrained else "none"
        self.backbone = pretrained_backbone(recipe.backbone, source, recipe.drop_path)
        config = self.backbone.pretrained_cfg
        self.register_buffer("mean", 255 * torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config["std"]).view(1, 3, 1, 1))
        features = self.backbone.head_hidden_size  # not num_features: some widen after pooling
        self.head = nn.Sequential(
            nn.BatchNorm1d(features),
            nn.Dropout(recipe.dropout),
            nn.Linear(features, classes),
        )
        self._test_flip = recipe.test_flip
        self._frozen = freeze(self.backbone, recipe.freeze_stages)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes) of pictures (N, 3, S, S), RGB, 0 to 255, uint8 or float."""
        return self.outputs(pixels).logits

    def outputs(self, pixels: Tensor) -> Outputs:
        """Logits, embedding and feature map of pictures (N, 3, S, S), RGB, 0 to 255."""
        scaled = (pixels.to(self.mean.dtype) - self.mean) / self.std
        features = self.backbone.forward_features(scaled)
        embedding = self.backbone.forward_head(features, pre_logits=True)
        if self._test_flip and not self.training:
            # In the mean of the embeddings lies the mean of the logits: the head is linear then.
            mirrored = self.backbone.forward_features(scaled.flip(3))
            embedding = (embedding + self.backbone.forward_head(mirrored, pre_logits=True)) / 2
            both = (self._as_map(features) + self._as_map(mirrored).flip(3)) / 2
            return Outputs(self.head(embedding), embedding, both)
        return Outputs(self.head(embedding), embedding, self._as_map(features))

    def _as_map(self, features: Tensor) -> Tensor:
        """(N, D, h, w), whether the backbone has it so, channels last, or as a row of tokens."""
        if features.ndim == 3:
            places = features[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
            side = math.isqrt(places.shape[1])
            # In this order: the other way round, torch's export takes the batch size for fixed.
            return places.reshape(-1, side, side, places.shape[2]).permute(0, 3, 1, 2)
        is_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if is_last else features

    def train(self, mode: bool = True) -> CarClassifier:
        """As in torch; frozen stages keep their batch-norm statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def freeze(backbone: Any, stages: int) -> list[nn.Module]:
    """Take the first stages of a timm model out of training.

    Returns:
        The modules that are to stay in eval mode.

    Raises:
        RecipeError: it has fewer stages.
    """
    if not stages:
        return []
    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))
    if stages > max(groups):
        raise RecipeError(f"freeze_stages = {stages}: the backbone has {max(groups)} stages")
    frozen = {name for group, names in groups.items() if group < stages for name in names}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return [
        module
        for module in backbone.modules()
        if (own := list(module.parameters(recurse=False)))
        and not any(parameter.requires_grad for parameter in own)
    ]


def check_sizes(model: CarClassifier, recipe: Recipe) -> None:
    """Try each size of the recipe: not every backbone takes any.

    Raises:
        RecipeError: one that the backbone cannot be used at.
    """
    model.eval()
    for size in sorted({*recipe.sizes, recipe.eval_size, *recipe.try_sizes}):
        try:
            with torch.no_grad():
                model.outputs(torch.zeros(1, 3, size, size))
        except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
            raise RecipeError(
                f"backbone {recipe.backbone!r} cannot be used at {size} pixels ({error}); "
                "change sizes, eval_size or try_sizes"
            ) from error


def make_optimizer(model: nn.Module, recipe: Schedule, *, fused: bool = True) -> Optimizer:
    """The recipe's optimiser over a `backbone` and a `head`, in one pass where it has one.

    Each group has `lr_scale`, its share of the recipe's rate: 1 for the head, less for the
    backbone, and by `layer_decay` (arXiv:2106.08254) less the farther a layer lies from the head.
    Norms, biases and what the backbone exempts are not decayed.
    """
    grouped: Callable[..., list[dict[str, Any]]] = param_groups_weight_decay
    if recipe.layer_decay < 1:
        grouped = functools.partial(param_groups_layer_decay, layer_decay=recipe.layer_decay)
    backbone, head = model.get_submodule("backbone"), model.get_submodule("head")
    exempt: Collection[str] = getattr(backbone, "no_weight_decay", tuple)()
    groups = grouped(backbone, recipe.weight_decay, no_weight_decay_list=exempt)
    for group in groups:
        group["lr_scale"] = recipe.backbone_lr_scale * group.get("lr_scale", 1.0)
    own = param_groups_weight_decay(head, recipe.weight_decay)
    groups += [{**group, "lr_scale": 1.0} for group in own]
    groups = [group for group in groups if group["params"]]
    match recipe.optimizer:
        case "sgd":
            momentum = recipe.momentum
            return SGD(groups, recipe.lr, momentum, nesterov=momentum > 0, fused=fused)
        case "lamb":
            return Lamb(groups, recipe.lr)
        case "lion":
            return Lion(groups, recipe.lr)
        case _:
            return AdamW(groups, recipe.lr, fused=fused)


def not_in_place(model: nn.Module) -> None:
    """Let activations leave their input as it is: on a CPU, torch is faster so in bf16."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]  # a flag of torch.nn's activations

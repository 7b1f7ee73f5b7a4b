"""The classifier: a timm backbone and a head of BatchNorm1d, Dropout and Linear."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from carspotter.errors import RecipeError
from carspotter.train.recipe import Recipe
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
        self._frozen = self._freeze(recipe.freeze_stages)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, classes) of pictures (N, 3, S, S), RGB, 0 to 255, uint8 or float."""
        return self.outputs(pixels).logits

    def outputs(self, pixels: Tensor) -> Outputs:
        """Logits, embedding and feature map of pictures (N, 3, S, S), RGB, 0 to 255."""
        scaled = (pixels.to(self.mean.dtype) - self.mean) / self.std
        feature_map = self.backbone.forward_features(scaled)
        embedding = self.backbone.forward_head(feature_map, pre_logits=True)
        return Outputs(self.head(embedding), embedding, feature_map)

    def train(self, mode: bool = True) -> CarClassifier:
        """As in torch; frozen stages keep their batch-norm statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _freeze(self, stages: int) -> list[nn.Module]:
        """Take the first stages out of training; returns the modules that stay in eval mode."""
        if not stages:
            return []
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True))
        if stages > max(groups):
            raise RecipeError(f"freeze_stages = {stages}: the backbone has {max(groups)} stages")
        frozen = {name for group, names in groups.items() if group < stages for name in names}
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name not in frozen)
        return [
            module
            for module in self.backbone.modules()
            if (own := list(module.parameters(recurse=False)))
            and not any(parameter.requires_grad for parameter in own)
        ]


def make_optimizer(model: CarClassifier, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over what is trained; fused, one pass over all parameters.

    Each group has `lr_scale`, its share of the recipe's rate: 1 for the head, less for the
    backbone. Norms and biases are not decayed.
    """
    groups: list[dict[str, Any]] = []
    for module, scale in ((model.head, 1.0), (model.backbone, recipe.backbone_lr_scale)):
        trained = [p for p in module.parameters() if p.requires_grad]
        for is_decayed in (True, False):
            group = [p for p in trained if (p.ndim > 1) == is_decayed]
            decay = recipe.weight_decay if is_decayed else 0.0
            if group:
                groups.append({"params": group, "weight_decay": decay, "lr_scale": scale})
    if recipe.optimizer == "sgd":
        return SGD(groups, recipe.lr, momentum=recipe.momentum, nesterov=True, fused=True)
    return AdamW(groups, recipe.lr, fused=True)


def keep_depthwise_in_float32(model: nn.Module) -> None:
    """Run trained depthwise convolutions in fp32 below bf16 autocast on a CPU.

    Their bf16 gradient with respect to the weights is several times slower than the fp32 one in
    oneDNN (strides above 1 and 5x5 kernels), which eats all that bf16 gains elsewhere.
    """
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.groups == module.in_channels > 1
            and module.weight.requires_grad
        ):
            # A partial of the class's method: a deep copy of the module copies its reference too.
            module.forward = functools.partial(_forward_in_float32, module)  # type: ignore[method-assign]


def _forward_in_float32(module: nn.Conv2d, pixels: Tensor) -> Tensor:
    with torch.autocast(pixels.device.type, enabled=False):
        return type(module).forward(module, pixels.float())

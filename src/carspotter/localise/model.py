"""The localiser: a cut-off backbone, a feature pyramid and an anchor-free head (FCOS).

FCOS (arXiv:2006.09214): each place of a feature map says how likely it lies on a vehicle, how far
that reaches in four directions, and how near its centre the place is. Assignment of boxes to
places, losses and decoding are torchvision's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import FeaturePyramidNetwork, nms

from carspotter.errors import RecipeError
from carspotter.localise.recipe import LocaliserRecipe
from carspotter.train.model import freeze
from carspotter.train.weights import pretrained_backbone

STRIDES = (8, 16, 32)
"""Pixels from one place of each feature map to the next."""

CANDIDATES = 100
"""So many boxes, the best ones, go into the suppression of doubles."""

DOUBLES = 0.5
"""Of two boxes that overlap by more (intersection over union), the less likely is dropped."""


class Places(NamedTuple):
    """What the network says at each of the P places of all feature maps, for N scenes.

    Attributes:
        logits: (N, P, 1) that a vehicle is there.
        distances: (N, P, 4) to its left, top, right and bottom, in strides.
        centre: (N, P, 1) logits of lying at its centre.
        cells: (P, 4) the cell of each place, in pixels.
        counts: places of each feature map.
    """

    logits: Tensor
    distances: Tensor
    centre: Tensor
    cells: Tensor
    counts: tuple[int, ...]


class _Head(nn.Module):
    """Everything behind the backbone: further stages, the pyramid, and torchvision's FCOS."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        deep = 2 * width
        self.further = nn.Sequential(
            InvertedResidual(channels[-1], deep, 2, 4), InvertedResidual(deep, deep, 1, 3)
        )
        self.pyramid = FeaturePyramidNetwork([*channels, deep], width)
        self.tower = InvertedResidual(width, width, 1, 2)
        carrier = nn.Identity()
        carrier.out_channels = width  # type: ignore[assignment]  # what FCOS asks of a backbone
        self.fcos = FCOS(
            carrier,
            num_classes=1,
            anchor_generator=AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * 3),
            head=FCOSHead(width, 1, 1, num_convs=0),
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Mapping[str, Tensor], list[Tensor]]:
        maps = [*features, self.further(features[-1])]
        named = OrderedDict((str(stride), m) for stride, m in zip(STRIDES, maps, strict=True))
        towers = [self.tower(m) for m in self.pyramid(named).values()]
        said: Mapping[str, Tensor] = self.fcos.head(towers)
        return said, towers


class LocaliserNetwork(nn.Module):
    """Pixels in, vehicles out; mean and standard deviation are applied inside.

    Args:
        recipe: names the backbone, its weights and how much of it is used.
        pretrained: False leaves the backbone's weights random, for a checkpoint to fill.

    Raises:
        RecipeError: the backbone or its weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: LocaliserRecipe, *, pretrained: bool = True) -> None:
        super().__init__()
        whole = pretrained_backbone(recipe.backbone, recipe.weights if pretrained else "none", 0.0)
        config = whole.pretrained_cfg
        self.register_buffer("mean", 255 * torch.tensor(config["mean"]).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config["std"]).view(3, 1, 1))
        if not isinstance(whole, EfficientNet):
            raise RecipeError(f"backbone {recipe.backbone!r}: a localiser needs an EfficientNet")
        whole.blocks = whole.blocks[: recipe.stages]
        whole.conv_head = whole.bn2 = nn.Identity()
        self.backbone = whole
        self._taken, channels = _last_of_each_stride(whole, recipe)
        self.head = _Head(channels, recipe.width)
        self._frozen = freeze(whole, recipe.freeze_stages)

    def forward(self, pixels: Tensor) -> Places:
        """What is said of scenes (N, 3, H, W), RGB, 0 to 255; H and W multiples of 32."""
        x = self.backbone.bn1(self.backbone.conv_stem((pixels - self.mean) / self.std))
        features = []
        for number, stage in enumerate(self.backbone.blocks):
            x = stage(x)
            if number in self._taken:
                features.append(x)
        said, maps = self.head(features)
        return Places(
            said["cls_logits"],
            said["bbox_regression"],
            said["bbox_ctrness"],
            torch.cat([_cells(m, stride) for m, stride in zip(maps, STRIDES, strict=True)]),
            tuple(m.shape[2] * m.shape[3] for m in maps),
        )

    def train(self, mode: bool = True) -> LocaliserNetwork:
        """As in torch; frozen stages keep their batch-norm statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def losses(self, places: Places, boxes: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """FCOS's three losses: `classification`, `bbox_regression` and `bbox_ctrness`.

        Args:
            places: what was said of N scenes.
            boxes: of each scene, (n, 4) left, top, right, bottom in pixels.
        """
        targets = [
            {"boxes": b, "labels": torch.zeros(len(b), dtype=torch.int64, device=b.device)}
            for b in boxes
        ]
        said = {
            "cls_logits": places.logits,
            "bbox_regression": places.distances,
            "bbox_ctrness": places.centre,
        }
        found: Mapping[str, Tensor] = self.head.fcos.compute_loss(
            targets, said, [places.cells] * len(boxes), list(places.counts)
        )
        return found

    def vehicles(self, places: Places, number: int = 0) -> tuple[Tensor, Tensor]:
        """Boxes (n, 4) in pixels and scores (n,), 0 to 1, of one scene, the best first."""
        scores = (places.logits[number].sigmoid() * places.centre[number].sigmoid()).sqrt()[:, 0]
        scores, best = scores.topk(min(CANDIDATES, sum(places.counts)))
        boxes = self.head.fcos.box_coder.decode(places.distances[number][best], places.cells[best])
        kept = nms(boxes, scores, DOUBLES)
        return boxes[kept], scores[kept]


def _cells(feature_map: Tensor, stride: int) -> Tensor:
    """(h * w, 4) the cell of each place of a feature map (N, C, h, w), in pixels."""
    height, width = feature_map.shape[2:]
    across = torch.arange(width, device=feature_map.device) * float(stride)
    down = torch.arange(height, device=feature_map.device) * float(stride)
    top, left = torch.meshgrid(down, across, indexing="ij")
    corners = torch.stack([left, top, left + stride, top + stride], dim=-1)
    return corners.reshape(-1, 4)


def _last_of_each_stride(
    backbone: nn.Module, recipe: LocaliserRecipe
) -> tuple[tuple[int, ...], list[int]]:
    """Which stages give the feature maps of strides 8 and 16, and how many channels they have."""
    found: dict[int, tuple[int, int]] = {}
    with torch.no_grad():
        x = backbone.get_submodule("conv_stem")(torch.zeros(1, 3, 64, 64))
        for number, stage in enumerate(backbone.get_submodule("blocks").children()):
            x = stage(x)
            found[64 // x.shape[2]] = (number, x.shape[1])
    if missing := [stride for stride in STRIDES[:2] if stride not in found]:
        raise RecipeError(
            f"stages = {recipe.stages}: {recipe.backbone} has no feature map of stride "
            f"{missing[0]} by then"
        )
    return tuple(found[s][0] for s in STRIDES[:2]), [found[s][1] for s in STRIDES[:2]]

"""The image tower of ``tiny_clip``: a residual network for 32 x 32 pixels, registered with timm."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import register_model
from torch import Tensor, nn

__all__ = ["TinyResNet", "hierbench_resnet32"]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (arXiv 1512.03385)."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width_in, h, w] to [B, width_out, h / stride, w / stride]."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class TinyResNet(nn.Module):
    """A small-stem residual network: 32 x 32 pixels to a 4 x 4 map of 192 channels, 0.93 M parameters.

    The stem keeps the full grid and three stages halve it: stock ImageNet stems would end at 1 x 1 here,
    and attention maps need positions. Implements the part of timm's interface that open_clip uses.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, ...] = (24, 48, 96, 192),
        depths: tuple[int, ...] = (2, 2, 1),
        num_classes: int = 0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        stem, *stages = widths
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        blocks: list[nn.Module] = []
        width = stem
        for stage_width, depth in zip(stages, depths, strict=True):
            for place in range(depth):
                blocks.append(BasicBlock(width, stage_width, 2 if place == 0 else 1))
                width = stage_width
        self.stages = nn.Sequential(*blocks)
        self.num_features = width
        self.default_cfg: dict[str, Any] = {"input_size": (3, 32, 32), "pool_size": (4, 4), "num_classes": num_classes}
        self.pretrained_cfg = self.default_cfg
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier (0: none) and, if given, the pooling (``avg`` or none)."""
        if global_pool is not None:
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.fc: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Map pixels [B, 3, 32, 32] to the last feature map [B, 192, 4, 4]."""
        features: Tensor = self.stages(self.stem(x))
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a feature map and classify it (``pre_logits``: only pool)."""
        pooled = x.mean(dim=(2, 3)) if self.global_pool == "avg" else x
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Map pixels [B, 3, 32, 32] to pooled features [B, 192] or class logits."""
        return self.forward_head(self.forward_features(x))


@register_model
def hierbench_resnet32(pretrained: bool = False, **kwargs: Any) -> TinyResNet:
    """Build the network; timm has no weights of it, ``tiny_clip`` carries its own."""
    if pretrained:
        raise ValueError("hierbench_resnet32 has no weights of its own: load a tiny_clip backbone")
    known = {k: v for k, v in kwargs.items() if k in ("widths", "depths", "num_classes", "global_pool")}
    return TinyResNet(**known)

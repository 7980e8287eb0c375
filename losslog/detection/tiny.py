"""A very small feature pyramid for training a detector from scratch on a CPU in a minute or two.

Contract:

- ``forward([B, 3, H, W])`` gives an ordered dict of maps with `TinyBackbone.out_channels` channels at strides 4, 8, 16.
- Group normalisation: no batch statistics, so train and eval mode compute the same features.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut; the first one may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.GroupNorm(8, outputs),
        )
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.last = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.body(x) + self.shortcut(x))
        return out


class TinyBackbone(nn.Module):
    """A stem and three residual stages (32, 64, 96 channels) under a feature pyramid.

    Attributes:
        out_channels: channels of every map.
        anchor_sizes: side of the square anchor in pixels for each map, finest first.
    """

    out_channels: Final = 48
    anchor_sizes: Final = (16, 32, 64)

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 96)
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.GroupNorm(8, 24), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(
            _Block(inputs, outputs, 2) for inputs, outputs in zip((24, *widths), widths, strict=False)
        )
        self.fpn = FeaturePyramidNetwork(list(widths), self.out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the maps "0", "1", "2" at strides 4, 8, 16."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x = self.stem(x)
        for level, stage in enumerate(self.stages):
            x = stage(x)
            maps[str(level)] = x
        out: dict[str, Tensor] = self.fpn(maps)
        return out

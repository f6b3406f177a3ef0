"""Residual networks for small images."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where shapes change.

    He et al. 2016, shortcut B.
    """

    numerics: Numerics
    features: int
    stride: int = 1
    projection: bool = False
    shortcut_batch_norm: bool = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        n, strides = self.numerics, (self.stride, self.stride)
        y = n.conv(x, self.features, strides=strides, name="conv_0")
        y = n.conv(y, self.features, activation=None, name="conv_1")
        if self.projection:
            x = n.conv(
                x,
                self.features,
                (1, 1),
                strides=strides,
                activation=None,
                batch_norm=self.shortcut_batch_norm,
                name="shortcut",
            )
        return n.add(x, y, name="add")


class ResNet(nn.Module):
    """A stem, stages of residual blocks, global average pooling and a linear classifier.

    Every stage after the first halves the image. ``stage_i/block_j`` become ``block_i_j``.
    """

    numerics: Numerics = Float()
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1  # per stage
    shortcut_batch_norm: bool = True
    classes: int = 10

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), self.widths[0], name="stem")
        for i, features in enumerate(self.widths):
            for j in range(self.blocks):
                first = j == 0 and i > 0
                x = ResidualBlock(
                    n,
                    features,
                    stride=2 if first else 1,
                    projection=first,
                    shortcut_batch_norm=self.shortcut_batch_norm,
                    name=f"block_{i}_{j}",
                )(x)
        return n.logits(n.average_pool(x, name="pool"), self.classes, name="logits")


class ResNet8(ResNet):
    """ResNet-8 of MLPerf Tiny (Banbury et al. 2021): ``[B, 32, 32, 3]`` images.

    Its shortcuts carry no batch norm. The published network takes raw pixels (`RAW_PIXELS`).
    """

    shortcut_batch_norm: bool = False

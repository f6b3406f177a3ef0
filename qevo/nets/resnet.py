"""Residual networks for small images."""

from __future__ import annotations

from typing import Any, Literal

from flax import linen as nn

from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics, Padding

Shortcut = Literal["A", "B"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; He et al. 2016.

    A block that halves the image leaves out every other pixel and fills up with channels of zeros
    on both sides (shortcut A), or has a 1x1 convolution (B).
    """

    numerics: Numerics
    inputs: int  # channels
    features: int
    halve: bool = False
    shortcut: Shortcut = "B"
    shortcut_batch_norm: bool = True
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: Any) -> Any:
        n, features, padding = self.numerics, self.features, self.padding
        strides = (2, 2) if self.halve else (1, 1)
        y = n.conv(x, features, strides=strides, padding=padding, name="conv_0")
        y = n.conv(y, features, padding=padding, activation=None, name="conv_1")
        if self.halve and self.shortcut == "A":
            x = n.max_pool(x, (1, 1), strides=strides)
            added = features - self.inputs
            x = n.pad_channels(x, added // 2, added - added // 2)
        elif self.halve:
            x = n.conv(
                x,
                features,
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
    shortcut: Shortcut = "B"
    shortcut_batch_norm: bool = True
    padding: Padding = "SAME"  # of the 3x3 convolutions
    classes: int = 10

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.conv(n.input(images), self.widths[0], padding=self.padding, name="stem")
        inputs = self.widths[0]
        for i, features in enumerate(self.widths):
            for j in range(self.blocks):
                x = ResidualBlock(
                    n,
                    inputs,
                    features,
                    halve=j == 0 and i > 0,
                    shortcut=self.shortcut,
                    shortcut_batch_norm=self.shortcut_batch_norm,
                    padding=self.padding,
                    name=f"block_{i}_{j}",
                )(x)
                inputs = features
        return n.logits(n.average_pool(x, name="pool"), self.classes, name="logits")


class ResNet8(ResNet):
    """ResNet-8 of MLPerf Tiny (Banbury et al. 2021): ``[B, 32, 32, 3]`` images.

    Its shortcuts carry no batch norm. The published network takes raw pixels (`RAW_PIXELS`).
    """

    shortcut_batch_norm: bool = False


class ResNet20(ResNet):
    """ResNet-20 for CIFAR-10, ``[B, 32, 32, 3]`` images; He et al. 2016, section 4.2.

    Shortcuts have no weights. Strided convolutions are padded on both sides, as in torch, where
    "SAME" would pad 32 pixels on the far side only.
    """

    blocks: int = 3
    shortcut: Shortcut = "A"
    padding: Padding = ((1, 1), (1, 1))


class ResNet32(ResNet20):
    """ResNet-32 for CIFAR-10: five blocks per stage."""

    blocks: int = 5


class ResNet56(ResNet20):
    """ResNet-56 for CIFAR-10: nine blocks per stage."""

    blocks: int = 9

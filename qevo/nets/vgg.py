"""VGG for small images."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics


class VGG16(nn.Module):
    """VGG-16 with batch norm: ``[B, 32, 32, 3]`` images. Simonyan and Zisserman 2015.

    Five stages of 3x3 convolutions, each with a max pool behind it, then two hidden layers of 512
    without batch norm, as the CIFAR versions have it in place of 4096; their dropout is left out.
    """

    numerics: Numerics = Float()
    width: int = 64  # channels of the first stage; all others follow in proportion
    classes: int = 10

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.input(images)
        for i, (convolutions, factor) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))):
            for j in range(convolutions):
                x = n.conv(x, factor * self.width, name=f"conv_{i}_{j}")
            x = n.max_pool(x)
        x = n.flatten(x)
        for i in range(2):
            x = n.dense(x, 8 * self.width, name=f"dense_{i}")
        return n.logits(x, self.classes, name="logits")

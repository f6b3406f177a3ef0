"""LeNet-5 and its kin."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics, Padding


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling: ``[B, 28, 28, 1]`` images. LeCun et al. 1998.

    The compression literature calls Caffe's larger variant LeNet-5 as well: ``channels=(20, 50),
    hidden=(500,), padding="VALID"``.
    """

    numerics: Numerics = Float()
    channels: tuple[int, ...] = (6, 16)
    hidden: tuple[int, ...] = (120, 84)
    padding: Padding = "SAME"  # of the first convolution
    classes: int = 10

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.input(images)
        for i, features in enumerate(self.channels):
            padding = self.padding if i == 0 else "VALID"
            x = n.conv(x, features, (5, 5), padding=padding, batch_norm=False, name=f"conv_{i}")
            x = n.max_pool(x)
        x = n.flatten(x)
        for i, features in enumerate(self.hidden):
            x = n.dense(x, features, name=f"dense_{i}")
        return n.logits(x, self.classes, name="logits")

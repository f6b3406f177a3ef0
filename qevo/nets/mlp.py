"""Fully connected networks."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics


class LeNet300(nn.Module):
    """LeNet-300-100: ``[B, H, W, C]`` images, two hidden layers. LeCun et al. 1998."""

    numerics: Numerics = Float()
    hidden: tuple[int, ...] = (300, 100)
    classes: int = 10

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.flatten(n.input(images))
        for i, features in enumerate(self.hidden):
            x = n.dense(x, features, name=f"dense_{i}")
        return n.logits(x, self.classes, name="logits")

"""A convolutional autoencoder for small images."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from qevo.nets.float_numerics import Float
from qevo.nets.numerics import Numerics


class Autoencoder(nn.Module):
    """Strided convolutions to a narrow code and back: ``[B, H, W, C]`` images, such as 28x28x1.

    H and W are multiples of 4, at least 16. Without padding a 4x4 convolution makes the code
    ``[B, H/4 - 3, W/4 - 3, code]`` (16·code numbers for 28x28, 25·code for 32x32), and with 3 zeros
    on every side another one undoes its size; upsampling by nearest neighbours does the rest, as
    Odena, Dumoulin and Olah 2016 recommend over strided transposed convolutions.
    """

    numerics: Numerics = Float()
    widths: tuple[int, int] = (16, 32)  # channels of the halved and of the quartered image
    code: int = 4  # channels
    channels: int = 1  # of the images

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.input(images)
        for i, features in enumerate(self.widths):
            x = n.conv(x, features, strides=(2, 2), name=f"down_{i}")
        x = n.conv(
            x,
            self.code,
            (4, 4),
            padding="VALID",
            activation=None,
            batch_norm=False,
            name="code",
        )
        x = n.conv(x, self.widths[1], (4, 4), padding=((3, 3), (3, 3)), name="up_0")
        x = n.conv(n.upsample(x), self.widths[0], name="up_1")
        return n.image(n.upsample(x), self.channels, name="image")

"""From pixels to a network's input: the float rule of a teacher and its integer counterpart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError
from qevo.integer.requantize import shift_round

_SHIFT = 14


@dataclasses.dataclass(frozen=True)
class PixelScaling:
    """What a float network does to a pixel: ``pixel * scale + offset`` per channel.

    One number stands for all channels.
    """

    scale: tuple[float, ...] = (1 / 255,)
    offset: tuple[float, ...] = (0.0,)

    @classmethod
    def normalized(cls, mean: tuple[float, ...], std: tuple[float, ...]) -> PixelScaling:
        """``(pixel / 255 - mean) / std``, as torchvision networks are trained."""
        return cls(
            tuple(1 / (255 * s) for s in std),
            tuple(-m / s for m, s in zip(mean, std, strict=True)),
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Float32 input of the network for uint8 ``[B, H, W, C]``."""
        scale = jnp.asarray(self.scale, jnp.float32)
        return images.astype(jnp.float32) * scale + jnp.asarray(self.offset, jnp.float32)


UNIT_RANGE = PixelScaling()  # 0..1
RAW_PIXELS = PixelScaling((1.0,))  # 0..255
IMAGENET_PIXELS = PixelScaling.normalized((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True)
class ImageRule:
    """``int8 = clip(round_half_even((pixel * multiplier + bias) / 2**shift), low, high)``.

    Attributes:
      scale: the real number that one unit of the int8 input stands for.
      low, high: range of the result.
      constants: ``multiplier`` and ``bias`` int32 ``[C]`` or ``[1]``, ``shift`` int32 ``[]``.
    """

    scale: float
    low: int
    high: int
    constants: dict[str, np.ndarray]


def image_rule(scaling: PixelScaling) -> ImageRule:
    """The integer rule for networks that expect `scaling`, with zero standing for zero.

    The widest channel fills 0..127, or -127..127 where an offset makes inputs negative; zeros that
    pad an image are exact. Halving pixels instead would round every odd one and costs ResNet-8 on
    CIFAR-10 twice the divergence.

    Raises:
      QevoError: scale and offset of different lengths, neither 1, or a scale that is not positive.
    """
    scale, offset = np.asarray(scaling.scale, np.float64), np.asarray(scaling.offset, np.float64)
    if scale.size != offset.size and 1 not in (scale.size, offset.size):
        raise QevoError(f"pixel scaling: {scale.size} scales but {offset.size} offsets")
    scale, offset = np.broadcast_arrays(scale, offset)
    if not np.all(scale > 0):
        raise QevoError(f"pixel scaling: every scale must be positive, got {scaling.scale}")
    unit = float(np.maximum(np.abs(offset), np.abs(255 * scale + offset)).max() / 127)
    constants = {
        "multiplier": np.rint(scale / unit * 2**_SHIFT).astype(np.int32),
        "bias": np.rint(offset / unit * 2**_SHIFT).astype(np.int32),
        "shift": np.asarray(_SHIFT, np.int32),
    }
    return ImageRule(unit, 0 if np.all(offset >= 0) else -127, 127, constants)


def prepare(
    images: jax.Array, constants: Mapping[str, jax.Array], *, low: int, high: int
) -> jax.Array:
    """uint8 ``[B, H, W, C]`` to int8 of the same shape by an `ImageRule`'s constants."""
    value = images.astype(jnp.int32) * constants["multiplier"] + constants["bias"]
    return jnp.clip(shift_round(value, constants["shift"]), low, high).astype(jnp.int8)

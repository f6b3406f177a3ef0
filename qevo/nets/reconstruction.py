"""What an autoencoder's output is compared with: images in fixed point, and their exact error."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError
from qevo.integer.loss import (
    squared_error,
    squared_error_bits,
    squared_error_shift,
    summed_limit,
)
from qevo.integer.requantize import shift_round
from qevo.nets.integer_numerics import Arithmetic
from qevo.nets.network import BATCH, QuantizedNetwork

MAX_BITS = 8  # an image in fixed point is int16


@dataclasses.dataclass(frozen=True)
class FixedImages:
    """Images in fixed point, int16 ``[..., H, W, C]``: ``2**bits`` is one level of the int8 input.

    They lie in the range of that input. An output is cut to it and rounded to as many bits as leave
    the squared error of any two images exact in int32.

    Attributes:
      low, high: range of the int8 input.
      values: H·W·C.
      output_bits: fraction bits of the network's output.
      bits: fraction bits that are kept.
      scale: what one level stands for in the float network.
    """

    low: int
    high: int
    values: int
    output_bits: int
    bits: int
    scale: float

    @classmethod
    def of(cls, network: QuantizedNetwork) -> FixedImages:
        """Those of a network that returns images of the shape that it takes.

        Raises:
          QevoError: another network, or images so large that their squared error leaves int32.
        """
        if network.head != "image" or network.output_shape != network.image_shape:
            raise QevoError(
                f"expected a network that returns images {list(network.image_shape)} as it takes"
                f" them; its last layer gives {network.head or 'an activation'}"
                f" {list(network.output_shape)}"
            )
        low, high = network.ranges["input"]
        values = math.prod(network.image_shape)
        bits = squared_error_bits(values, high - low, min(MAX_BITS, network.fraction_bits))
        if bits < 0:
            raise QevoError(
                f"the squared error of images {list(network.image_shape)} in {low}..{high} leaves"
                " int32: take smaller images"
            )
        return cls(low, high, values, network.fraction_bits, bits, network.scales["input"])

    @property
    def largest(self) -> int:
        """The largest difference of two values."""
        return (self.high - self.low) << self.bits

    def from_input(self, images: jax.Array) -> jax.Array:
        """Prepared int8 images (`QuantizedNetwork.prepare`)."""
        return images.astype(jnp.int16) << self.bits

    def from_output(self, outputs: jax.Array) -> jax.Array:
        """The network's int32 output, rounded half to even."""
        rounded = shift_round(outputs, self.output_bits - self.bits)
        return jnp.clip(rounded, self.low << self.bits, self.high << self.bits).astype(jnp.int16)

    def from_real(self, images: np.ndarray) -> np.ndarray:
        """A float network's images; on the host."""
        fixed = np.rint(np.asarray(images, np.float64) / self.scale * 2.0**self.bits)
        return np.clip(fixed, self.low << self.bits, self.high << self.bits).astype(np.int16)

    def loss(self, a: jax.Array, b: jax.Array, *, summed: int) -> jax.Array:
        """Squared error of each of B pairs of images, int32 ``[B]``, of which none saturates.

        Args:
          a, b: int16 ``[B, H, W, C]``.
          summed: images that losses are summed over at most; the more, the coarser a unit, which is
            `loss_unit` squared levels.
        """
        return squared_error(a, b, largest=self.largest, limit=summed_limit(summed))

    def loss_unit(self, summed: int) -> float:
        """Squared levels that one unit of a `loss` stands for."""
        shift = squared_error_shift(self.values, self.largest, summed_limit(summed))
        return 2.0 ** (shift - 2 * self.bits)

    def mean(self, errors: np.ndarray) -> float:
        """Mean of `reconstruction_errors` per value of an image, in the float network's units."""
        return float(errors.mean()) / self.values * (self.scale / 2.0**self.bits) ** 2


def reconstruct(
    network: QuantizedNetwork, images: np.ndarray, *, arithmetic: Arithmetic = "fast"
) -> np.ndarray:
    """What an autoencoder makes of uint8 images, as `FixedImages`: int16 ``[n, H, W, C]``.

    Raises:
      QevoError: as `FixedImages.of`, or images that are not this network's.
    """
    fixed = FixedImages.of(network)
    parts = [
        np.asarray(fixed.from_output(jnp.asarray(network(part, arithmetic=arithmetic))))
        for part in _parts(images)
    ]
    return np.concatenate(parts)


def reconstruction_errors(
    network: QuantizedNetwork, images: np.ndarray, found: np.ndarray | None = None
) -> np.ndarray:
    """Squared error of each image's reconstruction, int64 ``[n]``: the score of an anomaly.

    Args:
      network: gives the reconstruction, and the fixed point.
      images: uint8 ``[n, H, W, C]``, compared as the int8 input that the network makes of them.
      found: a reconstruction as `FixedImages`, instead of the network's own.

    Returns:
      Exact sums, in ``4**-bits`` of a squared level.

    Raises:
      QevoError: as `reconstruct`.
    """
    fixed = FixedImages.of(network)
    found = reconstruct(network, images) if found is None else found
    errors = []
    for part, other in zip(_parts(images), _parts(found), strict=True):
        expected = np.asarray(fixed.from_input(network.prepare(jnp.asarray(part))))
        difference = expected.astype(np.int64) - other
        errors.append((difference * difference).sum((1, 2, 3)))
    return np.concatenate(errors)


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[i : i + BATCH] for i in range(0, max(len(images), 1), BATCH)]

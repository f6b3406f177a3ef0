"""What a detector's maps are compared with: a teacher's, where it sees objects, in fixed point."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

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
from qevo.nets.maps import Shape
from qevo.nets.network import QuantizedNetwork

REACH = 8  # units beyond which nothing counts: a sigmoid has 0.0003 left there
MAX_BITS = 8  # a map in fixed point is int16
OBJECTNESS = 4  # its place among an anchor's numbers, after x, y, width and height
MOST_ANCHORS = 1 << 15  # a place among them is int16


@dataclasses.dataclass(frozen=True)
class FixedMaps:
    """Maps in fixed point, int16 ``[B, N]``: ``2**bits`` is one unit of the float network's.

    Compared are the objectness of all anchors, and all numbers of those that the teacher is surest
    of: what it says of a box where it sees nothing does not matter. Numbers are cut to -8..8 and
    rounded to as many bits as leave the squared error of any two maps exact in int32.

    Attributes:
      anchors: A, over all cells of all maps.
      numbers: V of each: x, y, width, height, objectness and classes; A·V = N.
      surest: M, the anchors of an image whose numbers are all compared.
      output_bits: fraction bits of the network's output.
      bits: fraction bits that are kept.
    """

    anchors: int
    numbers: int
    surest: int
    output_bits: int
    bits: int

    @classmethod
    def of(
        cls, network: QuantizedNetwork, shapes: Sequence[Shape], numbers: int, *, surest: int = 64
    ) -> FixedMaps:
        """Those of a network that returns maps of such shapes.

        Raises:
          QevoError: another network, or channels that are not ``numbers`` for each anchor.
        """
        odd = [shape for shape in shapes if shape[-1] % numbers]
        total = sum(math.prod(shape) for shape in shapes)
        if network.head != "maps" or network.output_shape != (total,) or odd or numbers < 5:
            raise QevoError(
                f"expected a network that returns maps of {list(shapes)}, {numbers} numbers for"
                f" each anchor; its last layer gives {network.head or 'an activation'}"
                f" {list(network.output_shape)}"
            )
        anchors = total // numbers
        surest = min(surest, anchors)
        most = min(MAX_BITS, network.fraction_bits)
        bits = squared_error_bits(anchors + surest * numbers, 2 * REACH, most)
        if bits < 0 or anchors > MOST_ANCHORS:
            raise QevoError(
                f"{anchors} anchors: their places leave int16, or their squared error int32; take"
                " smaller images"
            )
        return cls(anchors, numbers, surest, network.fraction_bits, bits)

    @property
    def values(self) -> int:
        """Numbers of an image that are compared."""
        return self.anchors + self.surest * self.numbers

    @property
    def largest(self) -> int:
        """The largest difference of two values."""
        return (2 * REACH) << self.bits

    def from_output(self, outputs: jax.Array) -> jax.Array:
        """The network's int32 output, rounded half to even."""
        rounded = shift_round(outputs, self.output_bits - self.bits)
        return jnp.clip(rounded, -REACH << self.bits, REACH << self.bits).astype(jnp.int16)

    def targets(self, maps: np.ndarray) -> np.ndarray:
        """What a float network's maps, float32 ``[n, N]``, ask of an integer one; on the host.

        Returns:
          int16 ``[n, A + M + M·V]``: the objectness of all anchors, the places of the surest, and
          their numbers.
        """
        fixed = np.rint(np.clip(maps, -REACH, REACH) * 2.0**self.bits).astype(np.int16)
        anchors = fixed.reshape(len(maps), self.anchors, self.numbers)
        objectness = anchors[:, :, OBJECTNESS]
        surest = np.argsort(-objectness, axis=1, kind="stable")[:, : self.surest].astype(np.int16)
        numbers = np.take_along_axis(anchors, surest[:, :, None].astype(np.int64), axis=1)
        return np.concatenate([objectness, surest, numbers.reshape(len(maps), -1)], axis=1)

    def check(self, what: str, targets: np.ndarray, count: int) -> None:
        """Refuse anything but `targets` of so many images.

        Raises:
          QevoError: says what they are.
        """
        shape = (count, self.anchors + self.surest * (1 + self.numbers))
        if targets.dtype != np.int16 or targets.shape != shape:
            raise QevoError(
                f"{what} must be int16 {list(shape)}, as FixedMaps.targets makes them, got"
                f" {targets.dtype} {list(targets.shape)}"
            )
        places = targets[:, self.anchors : self.anchors + self.surest]
        if places.size and not 0 <= places.min() <= places.max() < self.anchors:
            raise QevoError(f"{what} name anchors {places.min()}..{places.max()}")

    def loss(self, maps: jax.Array, targets: jax.Array, *, summed: int) -> jax.Array:
        """Squared error of each of B images, int32 ``[B]``, of which none saturates.

        Args:
          maps: int16 ``[B, N]``.
          targets: int16 ``[B, A + M + M·V]``.
          summed: images that losses are summed over at most; the more, the coarser a unit, which is
            `loss_unit` squared units of the maps.
        """
        anchors = maps.reshape(-1, self.anchors, self.numbers)
        ends = (self.anchors, self.anchors + self.surest)
        places = targets[:, ends[0] : ends[1]].astype(jnp.int32)
        rows = jnp.take_along_axis(anchors, places[:, :, None], axis=1)
        parts = anchors[:, :, OBJECTNESS], rows.reshape(len(rows), -1)
        found = jnp.concatenate(parts, axis=1)
        wanted = jnp.concatenate([targets[:, : ends[0]], targets[:, ends[1] :]], axis=1)
        return squared_error(found, wanted, largest=self.largest, limit=summed_limit(summed))

    def loss_unit(self, summed: int) -> float:
        """Squared units that one unit of a `loss` stands for."""
        shift = squared_error_shift(self.values, self.largest, summed_limit(summed))
        return 2.0 ** (shift - 2 * self.bits)

"""Levels side by side in as many bits as each needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qevo.errors import QevoError


def field_bits(low: int, high: int) -> int:
    """The least bits, 2 to 8, in whose two's complement levels from low to high fit.

    Raises:
      QevoError: they do not fit an int8.
    """
    for bits in range(2, 9):
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
            return bits
    raise QevoError(f"levels from {low} to {high} do not fit 8 bits")


def pack(levels: np.ndarray, bits: int) -> np.ndarray:
    """Levels in fields of so many bits each, in row-major order.

    Bit k of field i is bit ``i * bits + k`` of the whole, which is bit ``(i * bits + k) % 8`` of
    byte ``(i * bits + k) // 8``, counted from the least significant one. So fields of 3, 5, 6 and 7
    bits reach over the ends of bytes. A field is in two's complement; what is left of the last byte
    is 0.

    Args:
      levels: int8 of any shape, within ``-2**(bits - 1)`` to ``2**(bits - 1) - 1``.
      bits: 1 to 8.

    Returns:
      uint8 ``[ceil(levels.size * bits / 8)]``.

    Raises:
      QevoError: levels that do not fit, or bits that a byte does not have.
    """
    _check(bits)
    reach = 1 << (bits - 1)
    low, high = int(levels.min(initial=0)), int(levels.max(initial=0))
    if low < -reach or high >= reach:
        raise QevoError(f"levels from {low} to {high} do not fit {bits} bits")
    flat = levels.astype(np.int8).reshape(-1).view(np.uint8)
    fields = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(fields, bitorder="little")


def unpack(data: np.ndarray, bits: int, shape: Sequence[int]) -> np.ndarray:
    """What `pack` packed, int8 of the given shape.

    Raises:
      QevoError: another number of bytes than these levels take, something behind the last one, or
        bits that a byte does not have.
    """
    _check(bits)
    shape = tuple(shape)
    used = math.prod(shape) * bits
    if data.dtype != np.uint8 or data.shape != (-(-used // 8),) or min(shape, default=0) < 0:
        raise QevoError(
            f"{bits} bits for each of {list(shape)} are uint8 [{-(-used // 8)}], not "
            f"{data.dtype} {list(data.shape)}"
        )
    found = np.unpackbits(data, bitorder="little")
    if found[used:].any():
        raise QevoError(f"there is something behind the last of {list(shape)} levels")
    fields = found[:used].reshape(-1, bits).view(np.int8)
    levels = fields[:, -1] * np.int8(-(1 << (bits - 1)))  # the sign
    for place in range(bits - 1):
        levels |= fields[:, place] << place
    return levels.reshape(shape)


def _check(bits: int) -> None:
    if bits not in range(1, 9):
        raise QevoError(f"a level takes 1 to 8 bits, not {bits!r}")

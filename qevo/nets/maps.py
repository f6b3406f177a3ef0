"""Several maps as one row of numbers, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from qevo.errors import QevoError

Shape = tuple[int, int, int]


def in_a_row(maps: Sequence[jax.Array]) -> jax.Array:
    """Maps ``[B, H_i, W_i, C_i]`` as ``[B, N]``."""
    return jnp.concatenate([one.reshape(one.shape[0], -1) for one in maps], axis=1)


def apart(outputs: Any, shapes: Sequence[Shape]) -> list[Any]:
    """The maps that `in_a_row` put together.

    Args:
      outputs: ``[B, N]``, of JAX or of numpy.
      shapes: ``(H_i, W_i, C_i)`` of each map.

    Raises:
      QevoError: shapes of other numbers than N.
    """
    sizes = [math.prod(shape) for shape in shapes]
    if outputs.ndim != 2 or outputs.shape[1] != sum(sizes):
        raise QevoError(
            f"expected maps of {list(shapes)} in a row, [B, {sum(sizes)}], found"
            f" {list(outputs.shape)}"
        )
    found, start = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        found.append(outputs[:, start : start + size].reshape(-1, *shape))
        start += size
    return found

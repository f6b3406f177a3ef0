"""Maximum pooling of any element type."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from qevo.integer.patches import check_fits


def max_pool(
    x: jax.Array, window: tuple[int, int], strides: tuple[int, int] | None, padding: str
) -> jax.Array:
    """Maximum over windows of ``[B, H, W, C]``; ``strides`` default to the window.

    The maximum of shifted slices: several times faster on a CPU than a window reduction, forward
    and backward.

    Raises:
      QevoError: the window is larger than the map.
    """
    strides = strides or window
    pads = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    check_fits("max_pool", window, x.shape[1:3], pads)
    if any(p != (0, 0) for p in pads):
        integer = jnp.issubdtype(x.dtype, jnp.integer)
        lowest = jnp.iinfo(x.dtype).min if integer else -jnp.inf
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=lowest)
    rows, columns = (
        (size - w) // s * s + 1 for size, w, s in zip(x.shape[1:3], window, strides, strict=True)
    )
    slices = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return functools.reduce(jnp.maximum, slices)

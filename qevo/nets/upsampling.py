"""Nearest-neighbour upsampling of any element type."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def upsample(x: jax.Array, factor: int) -> jax.Array:
    """Each pixel ``factor`` times in both directions: ``[B, H, W, C]`` to ``[B, f·H, f·W, C]``."""
    count, height, width, channels = x.shape
    tiled = jnp.broadcast_to(
        x[:, :, None, :, None], (count, height, factor, width, factor, channels)
    )
    return tiled.reshape(count, height * factor, width * factor, channels)

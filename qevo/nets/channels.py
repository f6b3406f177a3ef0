"""Zero channels around an activation of any element type."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def pad_channels(x: jax.Array, before: int, after: int) -> jax.Array:
    """Zeros around the last axis: ``[..., C]`` to ``[..., before + C + after]``."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(before, after)])

"""The largest limit that something still holds for: order statistics without a sort."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def largest_limit(holds: Callable[[jax.Array], jax.Array], bits: int, dtype: type) -> jax.Array:
    """The largest limit below ``2**bits`` for which ``holds``, ``[]``; 0 where none does.

    Args:
      holds: of a limit, whether; true up to some limit and false beyond it. Called ``bits`` times.
      bits: at most those of the type without its sign.
      dtype: of the limit, a signed integer.
    """

    def try_bit(index: jax.Array, limit: jax.Array) -> jax.Array:
        higher = limit | jnp.left_shift(dtype(1), (bits - 1 - index).astype(dtype))
        return jnp.where(holds(higher), higher, limit)

    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(bits), try_bit, dtype(0))

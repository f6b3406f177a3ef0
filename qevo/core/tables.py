"""Frequency tables over levels: rows of integers that sum to `TABLE_TOTAL`, one row per gene."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qevo.core.random import TABLE_TOTAL


def settle(
    tables: jax.Array,
    allowed: jax.Array,
    margin: int,
    turn: tuple[int, int] | None = None,
) -> jax.Array:
    """Lift allowed levels to the margin, empty the others, and take the excess off the rest.

    The largest level pays first, and gets what a row lacks. With ``turn=(level, weight)`` the turn
    of that level comes by the given weight instead of by what it has above the margin.

    Args:
      tables: int32 ``[genes, L]``.
      allowed: bool ``[genes, L]``.
      margin: least mass of an allowed level; ``L`` of them leave room in `TABLE_TOTAL`.
      turn: which level pays out of turn, and how much it weighs.

    Returns:
      int32 ``[genes, L]``, rows summing to `TABLE_TOTAL`.
    """
    level = jnp.arange(tables.shape[1])
    tables = jnp.where(allowed, jnp.clip(tables, margin, TABLE_TOTAL), 0)

    def pay(_: int, tables: jax.Array) -> jax.Array:
        excess = jnp.sum(tables, axis=1, keepdims=True, dtype=jnp.int32) - TABLE_TOTAL
        room = tables - margin
        order = room if turn is None else jnp.where(level == turn[0], turn[1], room)
        payer = jnp.argmax(jnp.where(room > 0, order, -1), axis=1)
        pays = level == payer[:, None]
        return tables - jnp.where(pays, jnp.minimum(excess, room), 0)

    return jax.lax.fori_loop(0, tables.shape[1], pay, tables, unroll=tables.shape[1] <= 8)

"""Sparse mutation: how many genes a mutant shifts, which ones, and by how many levels.

Positions are drawn, never masks: a mutant has G slots for positions of its own, of which it uses a
share.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from qevo.core.random import uniform_positions, weighted_positions
from qevo.errors import QevoError

ONE = 1 << 16  # a share of the slots in fixed point


def mutable_positions(
    key: jax.Array, movable: jax.Array | None, genes: int, rows: int, slots: int
) -> jax.Array:
    """Positions for each of some mutants, int32 ``[rows, slots]``, distinct within a row.

    Args:
      key: PRNG key.
      movable: int32 ``[genes]``, 1 for a gene that can move; ``None`` where all of them can.
      genes: how many there are; also the padding value, for a row that has found fewer.
      rows: mutants.
      slots: G, at most as many as genes that can move.
    """
    if movable is None:
        return uniform_positions(key, genes, rows, slots)
    keys = jax.random.split(key, rows)
    return jax.vmap(lambda k: weighted_positions(k, movable, 1, slots)[0])(keys)


def level_shifts(
    bits: jax.Array, old: jax.Array, low: jax.Array, high: jax.Array, levels: int
) -> jax.Array:
    """New levels int8 of genes that can move, one or more away from the old ones.

    Each further level is half as likely; the direction is a fair coin's, turned round at a bound.

    Args:
      bits: random uint16.
      old, low, high: int8, all of the same shape.
      levels: the largest shift.
    """
    old, low, high = (part.astype(jnp.int32) for part in (old, low, high))
    draw = bits.astype(jnp.int32)
    far = draw >> 1
    length = jnp.ones_like(draw)
    for level in range(1, levels):
        length += far & ((1 << level) - 1) == 0
    length = jnp.where(draw & 1, length, -length)
    stuck = jnp.clip(old + length, low, high) == old
    return jnp.clip(old + jnp.where(stuck, -length, length), low, high).astype(jnp.int8)


def power_law(most: int, exponent: float) -> np.ndarray:
    """Running sums, int32 ``[most]`` in 1/65536, of probabilities ``a**-exponent`` of a = 1..most.

    The heavy-tailed mutation rate of Doerr, Le, Makhmara and Nguyen, *Fast genetic algorithms*,
    GECCO 2017: a mutant shifts each of n genes with probability a / n, where a follows this law.

    Raises:
      QevoError: the exponent leaves 1..4.
    """
    if not 1 < exponent <= 4:
        raise QevoError(f"the exponent of a power law must lie in 1..4, above 1, got {exponent}")
    mass = np.arange(1, most + 1, dtype=np.float64) ** -exponent
    return np.round(np.cumsum(mass) / np.sum(mass) * ONE).astype(np.int32)


def power_law_shares(bits: jax.Array, law: np.ndarray, slots: int) -> jax.Array:
    """Shares int32 of the slots, in 1/65536, after `power_law`; one for each random uint16."""
    draw = bits.astype(jnp.int32)
    strength = 1 + jnp.searchsorted(jnp.asarray(law), draw, side="right").astype(jnp.int32)
    shares = np.arange(len(law) + 1, dtype=np.int64) * ONE // slots  # by strength
    return jnp.asarray(shares.astype(np.int32))[strength]


def used_slots(bits: jax.Array, share: jax.Array) -> jax.Array:
    """Which slots the mutants use, bool ``[rows, G]``: each with the probability ``share``.

    Args:
      bits: random uint16 ``[rows, G]``.
      share: int32 ``[rows]``, in 1/65536.
    """
    return bits.astype(jnp.int32) < share[:, None]

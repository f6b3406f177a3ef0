"""Incremental moves: what changing one gene would do to the fitness, kept up to date cheaply."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qevo.core.problem import Problem, missing

_FEW = 1 << 12  # places that 20 bits of a hash tell apart


class Changes(NamedTuple):
    """A state of `MoveProblem` that holds the changes alone."""

    change: jax.Array  # int32 [N] or [N, L]


class MoveProblem(Problem):
    """A problem that knows what every change of a single gene does to the fitness of a solution.

    Local search makes many such moves in a row. A subclass offers them as two pure functions of
    fixed shapes, which compile, scan and `vmap`. Its genes decode as themselves.
    """

    def moves(self, genes: jax.Array) -> Any:
        """The changes from scratch: a pytree with an array ``change``.

        ``change`` is int32 ``[N]`` where every gene has two levels: the fitness after the gene has
        moved to its other level, less the fitness now. Otherwise it is int32 ``[N, L]``, column
        ``l`` for level ``low + l``: 0 at the present level, and `WORST` where a gene has no such
        level.

        Args:
          genes: int8 ``[N]``.
        """
        raise missing(self, "moves(genes)")

    def move(self, genes: jax.Array, state: Any, position: jax.Array, value: jax.Array) -> Any:
        """The changes after one move; moving to the present value changes nothing.

        Args:
          genes: int8 ``[N]`` before the move.
          state: what `moves` or `move` gave for them.
          position: int32 ``[]``, the gene.
          value: int8 ``[]``, what it becomes.
        """
        raise missing(self, "move(genes, state, position, value)")


class FocusedProblem(Problem):
    """A problem made of constraints: a move picks a violated one and changes a gene of it.

    All genes are bits. The state need not hold the changes of all moves, which makes a move cheap.
    """

    def focused(self, genes: jax.Array) -> Any:
        """The state from scratch: a pytree with the fitness int32 ``[]`` as ``fitness``."""
        raise missing(self, "focused(genes)")

    def focus(self, genes: jax.Array, state: Any, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The genes of a random violated constraint, and what flipping each would break.

        Where nothing is violated, it is any constraint, even one without genes: all padding.

        Args:
          genes: int8 ``[N]``.
          state: of these genes.
          draw: uint32 ``[]``, uniform.

        Returns:
          Positions int32 ``[k]``, N for padding, and the number int32 ``[k]`` of constraints that
          hold now and would not after the flip.
        """
        raise missing(self, "focus(genes, state, draw)")

    def flip(self, genes: jax.Array, state: Any, position: jax.Array) -> Any:
        """The state after one flip; ``genes`` are those before it. Position N flips nothing."""
        raise missing(self, "flip(genes, state, position)")


def weighted_choice(weights: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A place int32 ``[]`` in proportion to weights int32 ``[n]``, and the sum of those before it.

    For short arrays: n**2 operations, but few steps. A sum of 0 gives the last place.

    Args:
      weights: non-negative, with a sum below 2**31.
      draw: uint32 ``[]``, uniform.
    """
    place = jnp.arange(weights.shape[0])
    before = jnp.sum(jnp.where(place < place[:, None], weights, 0), axis=1)  # [n]
    total = (before[-1] + weights[-1]).astype(jnp.uint32)
    point = (draw % jnp.maximum(total, 1)).astype(jnp.int32)
    chosen = jnp.sum(before + weights <= point, dtype=jnp.int32)
    chosen = jnp.minimum(chosen, weights.shape[0] - 1)
    return chosen, before[chosen]


def least_at_random(scores: jax.Array, draw: jax.Array) -> jax.Array:
    """The place int32 ``[]`` of a least score, in the flattened array; among equals a random one.

    Equals are told apart by a hash of their places, in two passes that a CPU vectorises: the least
    score, then the least hash, which carries the place in its low bits.

    Args:
      scores: integers of any shape.
      draw: uint32 ``[]``, uniform.
    """
    flat = scores.reshape(-1)
    return any_place(flat == jnp.min(flat), draw)


def any_place(where: jax.Array, draw: jax.Array) -> jax.Array:
    """A random place int32 ``[]`` where bool ``[n]`` holds; any in 0..2n where it does nowhere.

    Of many places some share the least hash: the first of them counted from a random one is taken.
    A few have hashes enough, and the count would take half of the time.
    """
    size = np.uint32(where.shape[0])
    bits = max(int(size - 1).bit_length(), 1)
    mask = np.uint32((1 << bits) - 1)
    place = counted = jnp.arange(size, dtype=jnp.uint32)
    begin = (draw * np.uint32(2654435769) >> 1) % size
    if size > _FEW:
        counted = jnp.where(place < begin, place + size, place) - begin
    mixed = place * (draw | np.uint32(1)) + (draw >> 7) * np.uint32(2654435769)
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(2246822507)  # as murmur3's last steps do
    tagged = jnp.where(where, (mixed & ~mask) | counted, ~np.uint32(0))
    least = jnp.min(tagged) & mask
    return ((least + begin) % size if size > _FEW else least).astype(jnp.int32)

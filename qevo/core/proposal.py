"""A generation's candidates, as edits of one context vector."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qevo.core.blocks import Place


class Proposal(NamedTuple):
    """P candidates, each the context with new values at G positions.

    Memory is P·G, never P·N. Candidate p edits the positions of row ``p // (P // S)``: S = 1 when
    all candidates edit the same genes, one row per subgroup when several coevolve, S = P when every
    candidate has positions of its own. Positions within a row are distinct; N is padding and its
    value is dropped. Where all positions lie in one block of the space, ``place`` says in which,
    and what that block cannot change is computed once for all candidates.

    An algorithm that keeps a true population proposes `whole` candidates: rows without a position,
    and values ``[P, N]``.
    """

    positions: jax.Array  # int32 [S, G]
    values: jax.Array  # int8 [P, G]
    place: Place | None = None  # where all of them lie, and
    within: jax.Array | None = None  # int32 [S, G], their places in its block; M is padding

    @classmethod
    def whole(cls, candidates: jax.Array) -> Proposal:
        """Candidates int8 ``[P, N]`` that keep nothing of the context."""
        return cls(jnp.zeros((1, 0), jnp.int32), candidates)

    @property
    def rows(self) -> jax.Array:
        """The row of ``positions`` that each candidate edits, int32 ``[P]``."""
        population, subgroups = self.values.shape[0], self.positions.shape[0]
        return jnp.arange(population, dtype=jnp.int32) // (population // subgroups)

    @property
    def share(self) -> Share:
        """All candidates, as one device's share."""
        positions = self.positions if self.within is None else self.within
        return Share(positions, self.place, self.rows, self.values)

    def apply(self, context: jax.Array) -> jax.Array:
        """The dense candidates, int8 ``[P, N]``; ``context`` is int8 ``[N]``."""
        return jax.vmap(lambda row, value: edit(context, self.positions[row], value))(
            self.rows, self.values
        )


class Share(NamedTuple):
    """The candidates that one device scores: whole ``positions``, its part of rows and values."""

    positions: jax.Array  # int32 [S, G], within the block at ``place``, if any
    place: Place | None
    rows: jax.Array  # int32 [P / devices]
    values: jax.Array  # int8 [P / devices, G]


def edit(context: jax.Array, positions: jax.Array, values: jax.Array) -> jax.Array:
    """``context`` int8 ``[N]`` with ``values`` int8 ``[G]`` at ``positions`` int32 ``[G]``.

    Positions outside ``0..N-1`` are padding and are dropped. Without any position, ``values`` are
    the whole candidate, int8 ``[N]``.
    """
    if positions.shape[-1] == 0:
        return values
    return context.at[positions].set(values, mode="drop", wrap_negative_indices=False)

"""Concatenated traps: blocks of bits that lead a search of single bits away from the optimum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from qevo.core.moves import Changes, MoveProblem
from qevo.core.space import Space
from qevo.errors import QevoError
from qevo.problems.integers import integer
from qevo.problems.limits import check_bytes


@struct.dataclass
class Trap(MoveProblem):
    """Blocks of k bits in a row: a block of ones costs nothing, any other one plus its ones.

    Deb and Goldberg 1993 (fully deceptive order-k traps; their value is k less this cost). A
    solution is int8 ``[N]`` of bits.
    """

    space: Space
    block: int = struct.field(pytree_node=False, default=5)
    optimum: int | None = struct.field(pytree_node=False, default=0)

    @classmethod
    def of(cls, size: int, block: int = 5) -> Trap:
        """Traps of ``block`` bits, of which ``size`` is a multiple."""
        size, block = integer("the number of bits", size), integer("bits of a block", block)
        if block < 1 or size < 1 or size % block:
            raise QevoError(f"blocks of {block} bits do not divide {size} bits")
        check_bytes(f"{size:,} bits", 8 * size)
        return cls(Space.integers(size, 0, 1, dtype=jnp.int8), block)

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The sum of the blocks' costs."""
        ones = jnp.sum(solution.reshape(-1, self.block), axis=1, dtype=jnp.int32)
        return jnp.sum(self._cost(ones), dtype=jnp.int32)

    def moves(self, genes: jax.Array) -> Changes:
        """Cost of a block with one bit more or less."""
        return Changes(self._changes(genes))

    def move(
        self, genes: jax.Array, state: Changes, position: jax.Array, value: jax.Array
    ) -> Changes:
        """The changes of the moved bit's block, anew."""
        first = position // self.block * self.block
        genes = genes.at[position].set(value)
        near = jax.lax.dynamic_slice(genes, (first,), (self.block,))
        changes = self._changes(near)
        return Changes(jax.lax.dynamic_update_slice(state.change, changes, (first,)))

    def _cost(self, ones: jax.Array) -> jax.Array:
        return jnp.where(ones == self.block, 0, ones + 1)

    def _changes(self, genes: jax.Array) -> jax.Array:
        bits = genes.reshape(-1, self.block).astype(jnp.int32)
        ones = jnp.sum(bits, axis=1, keepdims=True)
        return (self._cost(ones + 1 - 2 * bits) - self._cost(ones)).reshape(-1)

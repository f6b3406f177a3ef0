"""NK landscapes with adjacent neighbours, whose optimum dynamic programming finds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.moves import Changes, MoveProblem
from qevo.core.space import INT32, Space
from qevo.errors import QevoError
from qevo.problems.integers import integer, integers
from qevo.problems.limits import check_bytes

SOLVE_STEPS = 1 << 27  # N 4**K up to which the optimum is found unasked: ten seconds, 128 MiB


@struct.dataclass
class NK(MoveProblem):
    """Fitness is the sum of N contributions, negated; the i-th depends on bits i..i+K, in a ring.

    Kauffman 1993; with adjacent neighbours the optimum takes time N 4**K (Wright, Thompson and
    Zhang 2000). A solution is int8 ``[N]`` of bits. Build one with `NK.random` or `NK.of`.
    """

    space: Space
    tables: jax.Array  # int32 [N, 2**(K + 1)], contributions by the bits, of which bit i is lowest
    optimum: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(cls, tables: Any, *, solve: bool | None = None) -> NK:
        """From the contributions ``[N, 2**(K + 1)]``, K at least 0.

        Args:
          tables: the contributions.
          solve: whether to find the optimum by dynamic programming; by default where it takes
            seconds and 128 MiB at most.

        Raises:
          QevoError: the tables are of another shape or hold no integers, sums may leave int32,
            or finding the optimum would take too much memory.
        """
        tables = integers("contributions", tables)
        if tables.ndim != 2 or tables.shape[1].bit_count() != 1 or tables.shape[1] < 2:
            raise QevoError(f"tables have the shape [N, 2**(K + 1)], got {list(tables.shape)}")
        neighbours = tables.shape[1].bit_length() - 2
        _check_size(tables.shape[0], neighbours)
        if np.abs(tables).max(axis=1).sum() > INT32.max // 2:
            raise QevoError("the largest contributions sum to more than int32 can hold twice")
        if solve is None:
            solve = tables.shape[0] * 4**neighbours <= SOLVE_STEPS
        optimum = -best_sum(tables) if solve else None
        return cls(
            Space.integers(tables.shape[0], 0, 1, dtype=np.int8),
            jnp.asarray(tables, jnp.int32),
            optimum,
        )

    @classmethod
    def random(
        cls,
        key: jax.Array,
        size: int,
        neighbours: int,
        *,
        bits: int = 16,
        solve: bool | None = None,
    ) -> NK:
        """Uniform contributions of so many bits.

        Args:
          key: of the draws.
          size: N.
          neighbours: K.
          bits: of each contribution.
          solve: as in `of`.

        Raises:
          QevoError: as `of`, or the tables would take too much memory.
        """
        size, neighbours = integer("the number of bits", size), integer("K", neighbours)
        bits = integer("the bits of contributions", bits)
        if not 1 <= bits <= 30:
            raise QevoError(f"contributions of int32 have 1 to 30 bits, got {bits}")
        _check_size(size, neighbours)
        draws = jax.random.bits(key, (size, 2 << neighbours), jnp.uint32) >> np.uint32(32 - bits)
        return cls.of(np.asarray(draws), solve=solve)

    @property
    def neighbours(self) -> int:
        """K."""
        return self.tables.shape[1].bit_length() - 2

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The sum of all contributions, negated."""
        code = jnp.zeros(self.space.size, jnp.int32)
        for bit in range(self.neighbours + 1):
            code += jnp.roll(solution.astype(jnp.int32), -bit) << bit
        chosen = jnp.take_along_axis(self.tables, code[:, None], axis=1)
        return -jnp.sum(chosen, dtype=jnp.int32)

    def moves(self, genes: jax.Array) -> Changes:
        """The contributions that a bit enters, without and with its flip."""
        return Changes(self._changes(genes, jnp.arange(self.space.size)))

    def move(
        self, genes: jax.Array, state: Changes, position: jax.Array, value: jax.Array
    ) -> Changes:
        """The changes of bits at most K away, anew."""
        genes = genes.at[position].set(value)
        near = jnp.arange(-self.neighbours, self.neighbours + 1, dtype=jnp.int32)
        near = (position + near) % self.space.size
        return Changes(state.change.at[near].set(self._changes(genes, near)))

    def _changes(self, genes: jax.Array, positions: jax.Array) -> jax.Array:
        """What flips of single bits int32 ``[G]`` change, int32 ``[G]``."""
        size, reach = self.space.size, jnp.arange(self.neighbours + 1, dtype=jnp.int32)
        rows = (positions[:, None] - reach) % size  # [G, K + 1], the contributions of each bit
        read = (rows[..., None] + reach) % size  # [G, K + 1, K + 1], and the bits of each
        code = jnp.sum(genes[read].astype(jnp.int32) << reach, axis=-1)
        flipped = code ^ (1 << reach)
        return jnp.sum(self.tables[rows, code] - self.tables[rows, flipped], axis=-1)


def _check_size(size: int, neighbours: int) -> None:
    """Raise unless a ring of N bits has K neighbours for each, and memory has the tables."""
    if neighbours < 0:
        raise QevoError(f"K, the number of neighbours, must be at least 0, got {neighbours}")
    if size < 2 * neighbours + 1:
        raise QevoError(f"K = {neighbours} needs N of at least {2 * neighbours + 1}, got {size}")
    entries = size * (2 << min(neighbours, 64))
    check_bytes(f"the contributions of N = {size:,} and K = {neighbours}", 8 * entries)


def best_sum(tables: np.ndarray) -> int:
    """The largest sum of contributions, for all values of the first K bits at once.

    A table ``[2**K, 2**K]`` holds the best sum so far by the first K bits and the last K bits; with
    what a step makes of it, that is 32 bytes for each entry.

    Raises:
      QevoError: the table would take too much memory.
    """
    size, states = tables.shape[0], tables.shape[1] // 2
    check_bytes(
        f"the optimum of K = {states.bit_length() - 1}, which solve=False leaves out,",
        32 * states**2,
    )
    worst = np.iinfo(np.int64).min // 2
    best = np.full((states, states), worst)
    np.fill_diagonal(best, 0)
    # Bits i..i+K are the last K bits and a new one above them; then the lowest is dropped.
    step = tables.reshape(size, 2, states)
    for i in range(size):
        if states == 1:
            best = best + tables[i].max()
            continue
        sums = best[:, None, :] + step[i]  # [first, new bit, last K bits]
        sums = sums.reshape(states, 2, states // 2, 2).max(axis=-1)
        best = sums.reshape(states, states)
    return int(np.diagonal(best).max())

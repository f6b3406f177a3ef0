"""Quadratic unconstrained binary optimisation: the sum of ``q_ij x_i x_j`` over bits."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.moves import Changes, MoveProblem
from qevo.core.space import INT32, Space
from qevo.errors import QevoError
from qevo.problems.graphs import merged_pairs, pair_weights, pairs
from qevo.problems.integers import integer, integers
from qevo.problems.links import Links
from qevo.problems.text import Lines, naming


@struct.dataclass
class QUBO(MoveProblem):
    """Fitness is the sum of ``q_ij x_i x_j``, negated where it is to be maximised.

    A solution is int8 ``[N]`` of bits. Build one with `QUBO.of` or `QUBO.read`.
    """

    space: Space
    linear: jax.Array  # int32 [N], coefficients of x_i in the fitness
    first: jax.Array  # int32 [pairs]
    second: jax.Array  # int32 [pairs]
    weight: jax.Array  # int32 [pairs], coefficients of x_i x_j in the fitness, each pair once
    links: Links
    maximise: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def of(cls, size: int, first: Any, second: Any, weight: Any, *, maximise: bool = False) -> QUBO:
        """From coefficients ``weight`` of ``x[first] x[second]``, from 0; equal pairs add up.

        Raises:
          QevoError: an index leaves the problem, indices or coefficients are of another number or
            no integers, or values may leave int32.
        """
        size = integer("the number of variables", size)
        first, second = pairs("indices", first, second)
        weight = pair_weights("coefficients", weight, first.size)
        odd = (np.minimum(first, second) < 0) | (np.maximum(first, second) >= size)
        if size < 1 or odd.any():
            at = int(np.argmax(odd)) if odd.any() else 0
            where = f", got {first[at]} and {second[at]} in entry {at}" if odd.any() else ""
            raise QevoError(f"indices go from 0 to {size - 1}, of at least one variable{where}")
        if 2 * int(np.abs(weight).sum()) > INT32.max:
            raise QevoError(
                f"the coefficients' absolute values sum to {np.abs(weight).sum()}, changes of the "
                f"value may leave int32: the sum must be at most {INT32.max // 2}"
            )
        weight = -weight if maximise else weight
        same = first == second
        own = first[same], weight[same]
        first, second, weight = merged_pairs(size, first[~same], second[~same], weight[~same])
        links = Links.of(size, first, second, weight)
        linear = np.zeros(size, np.int64)
        np.add.at(linear, *own)
        return cls(
            Space.integers(size, 0, 1, dtype=np.int8),
            jnp.asarray(linear, jnp.int32),
            jnp.asarray(first, jnp.int32),
            jnp.asarray(second, jnp.int32),
            jnp.asarray(weight, jnp.int32),
            links,
            maximise,
        )

    @classmethod
    def read(cls, path: str | pathlib.Path, *, maximise: bool = False, twice: bool = False) -> QUBO:
        """From a sparse text file, in one of two dialects.

        Plain: ``variables entries``, then ``i j q`` for each entry, counting from 1; every entry
        adds ``q x_i x_j``. After ``p qubo 0 variables nodes couplers``, which minimises, they count
        from 0 (D-Wave's qbsolv). Lines that begin with c, # or % are comments.

        Args:
          path: the file, which may be packed (.gz, .xz).
          maximise: whether larger sums are better, as in Beasley's OR-Library ("bqp").
          twice: whether an entry with i != j stands for both ``q_ij`` and ``q_ji``, as there and
            in the Biq Mac library.

        Raises:
          QevoError: the file is malformed; names the line.
        """
        lines, entries = Lines(path, ("#", "c", "%")), []
        size, count, base = 0, -1, 1
        for words in lines:
            if count < 0 and words[0] == "p":
                if words[1:2] != ["qubo"] or len(words) != 6:
                    lines.fail("expected 'p qubo 0 variables nodes couplers'")
                size, nodes, couplers = lines.integers(words[3:], 3, "three sizes after 'p qubo 0'")
                count, base = nodes + couplers, 0
            elif count < 0:
                size, count = lines.integers(words, 2, "the numbers of variables and of entries")
            else:
                entry = lines.integers(words, 3, "an entry: two variables and a coefficient")
                if not all(base <= index < base + size for index in entry[:2]):
                    lines.fail(f"variables count from {base} to {base + size - 1}, got {entry[:2]}")
                entries.append(entry)
                continue
            if size < 1 or count < 0:
                lines.fail(f"a problem has at least 1 variable and 0 entries, got {size}, {count}")
        if count < 0:
            raise QevoError(f"{path}: expected the numbers of variables and entries, got no line")
        lines.ended(len(entries), count, "entries")
        with naming(path):
            table = integers("entries", entries).reshape(-1, 3)
        first, second, weight = table[:, 0] - base, table[:, 1] - base, table[:, 2]
        if twice:
            weight = np.where(first == second, weight, 2 * weight)
        with naming(path):
            return cls.of(size, first, second, weight, maximise=maximise)

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The sum, negated where it is to be maximised."""
        bits = solution.astype(jnp.int32)
        pairs = jnp.sum(bits[self.first] * bits[self.second] * self.weight, dtype=jnp.int32)
        return pairs + jnp.sum(bits * self.linear, dtype=jnp.int32)

    def moves(self, genes: jax.Array) -> Changes:
        """A bit's flip adds or takes off its own coefficient and those it shares with ones."""
        bits = genes.astype(jnp.int32)
        field = self.linear.at[self.first].add(self.weight * bits[self.second])
        field = field.at[self.second].add(self.weight * bits[self.first])
        return Changes((1 - 2 * bits) * field)

    def move(
        self, genes: jax.Array, state: Changes, position: jax.Array, value: jax.Array
    ) -> Changes:
        """The other bits' coefficients shared with the moved one come in or go."""
        return Changes(self.links.flipped(state.change, genes, position, value))

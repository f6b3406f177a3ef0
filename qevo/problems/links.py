"""Products of two bits and their coefficients, dense or as lists, for incremental moves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.problems.limits import check_bytes

DENSE_BYTES = 1 << 28  # the most that a dense table may take
DENSE_RATIO = 16  # a dense row costs as much as a list with 1/16 as many entries, on a CPU


@struct.dataclass
class Links:
    """A symmetric integer matrix with an empty diagonal.

    Either ``dense`` is there, or ``neighbours`` and ``weights`` are. Every move reads a row: all N
    entries of a dense one, the D neighbours of a list.
    """

    dense: jax.Array | None  # int8, int16 or int32 [N, N]
    neighbours: jax.Array | None  # int32 [N, D]; N is padding
    weights: jax.Array | None  # int8, int16 or int32 [N, D]

    @classmethod
    def of(cls, size: int, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> Links:
        """From pairs of different genes, each pair once; weights fit int32.

        Dense where the longest row is at least a sixteenth of all genes and the table fits into
        256 MiB.

        Raises:
          QevoError: the lists would take too much memory.
        """
        check_bytes(f"the links of {size:,} genes", 8 * size)
        first, second = np.concatenate([first, second]), np.concatenate([second, first])
        weight = np.concatenate([weight, weight])
        dtype = narrow(weight)
        degree = np.bincount(first, minlength=size)
        longest = max(int(degree.max(initial=0)), 1)
        if size <= DENSE_RATIO * longest and size * size * dtype.itemsize <= DENSE_BYTES:
            dense = np.zeros((size, size), dtype)
            dense[first, second] = weight
            return cls(jnp.asarray(dense), None, None)
        check_bytes(
            f"a gene has {longest:,} links: lists as long for {size:,} genes",
            (4 + dtype.itemsize) * size * longest,
        )
        order = np.argsort(first, kind="stable")
        place = np.arange(first.size) - np.repeat(np.cumsum(degree) - degree, degree)
        neighbours = np.full((size, longest), size, np.int32)
        weights = np.zeros((size, longest), dtype)
        neighbours[first[order], place] = second[order]
        weights[first[order], place] = weight[order]
        return cls(None, jnp.asarray(neighbours), jnp.asarray(weights))

    def flipped(
        self, change: jax.Array, genes: jax.Array, position: jax.Array, value: jax.Array
    ) -> jax.Array:
        """The changes of a quadratic function of bits after a bit has become ``value``.

        Args:
          change: int32 ``[N]``, what flipping each bit adds to a function whose coefficients of
            products ``x_i x_j``, i < j, these links are.
          genes: int8 ``[N]``, bits, before the move.
          position: int32 ``[]``.
          value: int8 ``[]``.
        """
        spins = 1 - 2 * genes.astype(jnp.int32)
        moved = genes[position] != value
        factor = jnp.where(moved, spins[position], 0)
        if self.dense is not None:
            change = change + factor * spins * self.dense[position].astype(jnp.int32)
        else:
            assert self.neighbours is not None
            assert self.weights is not None
            near = self.neighbours[position]
            added = factor * spins.at[near].get(mode="fill", fill_value=0) * self.weights[position]
            change = change.at[near].add(added, mode="drop")
        here = jnp.arange(change.shape[0]) == position
        return jnp.where(here & moved, -change, change)


def narrow(values: np.ndarray) -> np.dtype:
    """The narrowest of int8, int16 and int32 that holds the values."""
    least, most = int(np.min(values, initial=0)), int(np.max(values, initial=0))
    for dtype in (np.int8, np.int16):
        if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.int32)

"""What directed evolution zeroes together: any weights, whole filters, or all but n of m.

A pattern divides the genes of some leaves into units, of which sets are drawn, and says which zeros
are still to come. A weight's *saliency* is what it is worth, int32, non-negative, at most 2**30.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from qevo.core.bisection import largest_limit
from qevo.core.space import LeafLayout, Space
from qevo.errors import QevoError

Pattern = Literal["free", "filters"] | tuple[int, int]


def check_pattern(pattern: Any) -> None:
    """Raise a QevoError for what is no `Pattern`."""
    if pattern in ("free", "filters"):
        return
    pair = isinstance(pattern, tuple | list) and len(pattern) == 2
    if (
        not pair
        or not all(isinstance(n, int) for n in pattern)
        or not 1 <= pattern[0] < pattern[1] <= 64
    ):
        raise QevoError(
            "a pattern is 'free', 'filters' or (n, m) with 1 <= n < m <= 64, for at most n "
            f"survivors of m, got {pattern!r}"
        )


def zeroed_together(pattern: Pattern, space: Space, leaves: Sequence[int]) -> FreeZeros:
    """A pattern over some leaves of a space, by their place in `Space.layout`.

    Raises:
      QevoError: there is no such pattern, or it does not fit the leaves.
    """
    check_pattern(pattern)
    layout = [space.layout[index] for index in leaves]
    if pattern == "free":
        return FreeZeros(space.size)
    flat = [leaf.name for leaf in layout if len(leaf.shape) < 2]
    if flat:
        raise QevoError(f"a pattern needs weights [..., C]; {', '.join(flat)} has one axis at most")
    if pattern == "filters":
        return Filters(space.size, layout)
    return Groups(space.size, layout, *pattern)


class FreeZeros:
    """Any weights: a unit is a gene."""

    gives_back = True  # whether zeroed units may return, and others go for them

    def __init__(self, size: int):
        self.size = size
        self.per_unit = 1  # genes of a unit, at most

    def goal(self, leaf: LeafLayout, share: float) -> int:
        """Units without a survivor that a leaf is to have."""
        return round(share * leaf.size)

    def missing(self, leaf: LeafLayout, alive: jax.Array, goal: int) -> jax.Array:
        """Units that a leaf with these survivors bool ``[n]`` must lose; negative if too many."""
        return goal - jnp.sum(~alive, dtype=jnp.int32)

    def open(self, alive: jax.Array) -> jax.Array:
        """Survivors that may go, bool ``[N]``, of all survivors."""
        return alive

    def units(self, there: jax.Array, saliency: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Units with any of these genes, bool ``[U]``, and their saliencies, int32 ``[U]``.

        Those of a filter add up, in one unit for all filters.
        """
        return there, saliency

    def genes(self, units: jax.Array, there: jax.Array) -> jax.Array:
        """Positions int32 ``[sets, u * per_unit]`` of these genes in units int32 ``[sets, u]``.

        U is padding on the way in, N on the way out.
        """
        return units

    def count(self, positions: jax.Array) -> jax.Array:
        """Units in sets of positions int32 ``[sets, G]``."""
        return jnp.sum(positions < self.size, dtype=jnp.int32)

    def committed(
        self, positions: jax.Array, alive: jax.Array, saliency: jax.Array, kept: jax.Array
    ) -> jax.Array:
        """Of positions int32 ``[sets, G]`` those that are zeroed, ``kept`` units; N for others.

        The least salient weights go, or the first filters.
        """
        found = saliency.at[positions.reshape(-1)].get(mode="fill", fill_value=2**31 - 1)
        rank = jnp.argsort(jnp.argsort(found, stable=True), stable=True)
        return jnp.where(rank.reshape(positions.shape) >= kept, self.size, positions)

    def least(
        self, leaf: LeafLayout, alive: jax.Array, saliency: jax.Array, missing: jax.Array
    ) -> jax.Array:
        """Survivors of a leaf, bool ``[n]``, whose loss reaches its goal at the least saliency."""
        return least_values(saliency, alive, missing)


class Filters(FreeZeros):
    """Whole filters: a unit is an output channel, the last axis of a leaf ``[..., C]``."""

    def __init__(self, size: int, layout: Sequence[LeafLayout]):
        super().__init__(size)
        self.layout = layout
        self.rows = [leaf.size // leaf.shape[-1] for leaf in layout]
        self.per_unit = max(self.rows)
        # Of each unit: its first gene, the way to the next, and how many there are; of none at U.
        units = [
            (leaf.offset + channel, leaf.shape[-1], rows)
            for leaf, rows in zip(layout, self.rows, strict=True)
            for channel in range(leaf.shape[-1])
        ]
        self.first, self.stride, self.length = np.array([*units, (size, 0, 0)], np.int32).T

    def goal(self, leaf: LeafLayout, share: float) -> int:
        return min(round(share * leaf.shape[-1]), leaf.shape[-1] - 1)

    def missing(self, leaf: LeafLayout, alive: jax.Array, goal: int) -> jax.Array:
        left = jnp.any(alive.reshape(-1, leaf.shape[-1]), axis=0)
        return goal - jnp.sum(~left, dtype=jnp.int32)

    def units(self, there: jax.Array, saliency: jax.Array) -> tuple[jax.Array, jax.Array]:
        parts = [slice(leaf.offset, leaf.offset + leaf.size) for leaf in self.layout]
        shapes = [(rows, -1) for rows in self.rows]
        here = [there[part].reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        worth = [saliency[part].reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        worth = [jnp.where(*both, 0) for both in zip(here, worth, strict=True)]
        found = jnp.concatenate([jnp.any(part, axis=0) for part in here])
        return found, jnp.concatenate(_sums(worth))

    def genes(self, units: jax.Array, there: jax.Array) -> jax.Array:
        row = jnp.arange(self.per_unit, dtype=jnp.int32)
        first, stride, length = (
            jnp.asarray(part)[units][..., None] for part in (self.first, self.stride, self.length)
        )
        places = jnp.where(row < length, first + row * stride, self.size)
        used = there.at[places].get(mode="fill", fill_value=False)
        return jnp.where(used, places, self.size).reshape(units.shape[0], -1)

    def count(self, positions: jax.Array) -> jax.Array:
        return jnp.sum(self._filled(positions), dtype=jnp.int32)

    def committed(
        self, positions: jax.Array, alive: jax.Array, saliency: jax.Array, kept: jax.Array
    ) -> jax.Array:
        filled = self._filled(positions)
        stays = filled & (jnp.cumsum(filled).reshape(filled.shape) <= kept)
        rest = positions.shape[1] - filled.shape[1] * self.per_unit
        stays = jnp.pad(jnp.repeat(stays, self.per_unit, axis=1), ((0, 0), (0, rest)))
        return jnp.where(stays, positions, self.size)

    def least(
        self, leaf: LeafLayout, alive: jax.Array, saliency: jax.Array, missing: jax.Array
    ) -> jax.Array:
        here = alive.reshape(-1, leaf.shape[-1])
        (worth,) = _sums([jnp.where(here, saliency.reshape(here.shape), 0)])
        return (here & least_values(worth, jnp.any(here, axis=0), missing)).reshape(-1)

    def _filled(self, positions: jax.Array) -> jax.Array:
        """Which units of sets of positions have one, bool ``[sets, units]``."""
        units = positions.shape[1] // self.per_unit
        places = positions[:, : units * self.per_unit].reshape(-1, units, self.per_unit)
        return jnp.any(places < self.size, axis=2)


class Groups(FreeZeros):
    """At most ``kept`` survivors in each run of ``of`` rows of a column: 2 of 4, say.

    A leaf ``[..., C]`` is a matrix ``[K, C]``; the last run may be shorter. Goals follow from the
    pattern, and no weight returns, since it could only for another of its run.
    """

    gives_back = False

    def __init__(self, size: int, layout: Sequence[LeafLayout], kept: int, of: int):
        super().__init__(size)
        self.layout, self.kept, self.of = layout, kept, of

    def goal(self, leaf: LeafLayout, share: float) -> int:
        runs, rest = divmod(leaf.size // leaf.shape[-1], self.of)
        return (runs * (self.of - self.kept) + max(rest - self.kept, 0)) * leaf.shape[-1]

    def missing(self, leaf: LeafLayout, alive: jax.Array, goal: int) -> jax.Array:
        over = self._over(self._runs(leaf, alive, False))
        return jnp.sum(jnp.maximum(over, 0), dtype=jnp.int32)

    def open(self, alive: jax.Array) -> jax.Array:
        found = jnp.zeros_like(alive)
        for leaf in self.layout:
            part = slice(leaf.offset, leaf.offset + leaf.size)
            runs = self._runs(leaf, alive[part], False)
            found = found.at[part].set(self._flat(leaf, runs & (self._over(runs) > 0)))
        return found

    def committed(
        self, positions: jax.Array, alive: jax.Array, saliency: jax.Array, kept: jax.Array
    ) -> jax.Array:
        positions = super().committed(positions, alive, saliency, kept)
        chosen = jnp.zeros_like(alive).at[positions.reshape(-1)].set(True, mode="drop")
        going = jnp.zeros_like(alive)
        for leaf in self.layout:
            part = slice(leaf.offset, leaf.offset + leaf.size)
            here, runs = (self._runs(leaf, mask[part], False) for mask in (chosen, alive))
            worth = self._runs(leaf, saliency[part], 0)
            goes = here & (_ranks(worth, here) < self._over(runs))
            going = going.at[part].set(self._flat(leaf, goes))
        stays = going.at[positions].get(mode="fill", fill_value=False)
        return jnp.where(stays, positions, self.size)

    def least(
        self, leaf: LeafLayout, alive: jax.Array, saliency: jax.Array, missing: jax.Array
    ) -> jax.Array:
        runs = self._runs(leaf, alive, False)
        goes = _ranks(self._runs(leaf, saliency, 0), runs) < self._over(runs)
        return self._flat(leaf, runs & goes)

    def _over(self, runs: jax.Array) -> jax.Array:
        """Survivors too many in each run, int32 ``[runs, 1, C]``; negative if too few."""
        return jnp.sum(runs, axis=1, keepdims=True, dtype=jnp.int32) - self.kept

    def _runs(self, leaf: LeafLayout, values: jax.Array, padding: int | bool) -> jax.Array:
        """Values ``[n]`` of a leaf as ``[runs, of, C]``."""
        matrix = values.reshape(-1, leaf.shape[-1])
        short = -matrix.shape[0] % self.of
        padded = jnp.pad(matrix, ((0, short), (0, 0)), constant_values=padding)
        return padded.reshape(-1, self.of, leaf.shape[-1])

    def _flat(self, leaf: LeafLayout, runs: jax.Array) -> jax.Array:
        return runs.reshape(-1, leaf.shape[-1])[: leaf.size // leaf.shape[-1]].reshape(-1)


def least_values(values: jax.Array, there: jax.Array, count: jax.Array) -> jax.Array:
    """Where the ``count`` least of some non-negative values are, bool ``[n]``.

    Of equals the first ones.
    """

    def below(limit: jax.Array) -> jax.Array:
        return jnp.sum(there & (values < limit), dtype=jnp.int32)

    limit = largest_limit(lambda limit: below(limit) <= count, 31, jnp.int32)
    equal = there & (values == limit)
    rest = count - below(limit)
    return there & ((values < limit) | (equal & (jnp.cumsum(equal) <= rest)))


def _sums(parts: list[jax.Array]) -> list[jax.Array]:
    """Sums int32 ``[C]`` down columns of non-negative int32 ``[K, C]``, all in one unit.

    The unit is 1, or as small a power of two as keeps every sum below 2**30.
    """
    largest = jnp.max(jnp.stack([jnp.max(part) for part in parts]))
    rows = max(part.shape[0] for part in parts)
    shift = jnp.maximum(32 - jax.lax.clz(largest) + rows.bit_length() - 30, 0)
    return [jnp.sum(part >> shift, axis=0, dtype=jnp.int32) for part in parts]


def _ranks(values: jax.Array, there: jax.Array) -> jax.Array:
    """Ascending places int32 ``[runs, m, C]`` in each run, of those that are there."""
    place = jnp.arange(values.shape[1], dtype=jnp.int32)

    def after(rank: jax.Array, other: jax.Array) -> tuple[jax.Array, None]:
        value, present = values[:, other, None], there[:, other, None]
        first = (other < place)[None, :, None]
        before = (value < values) | ((value == values) & first)
        return rank + (present & before).astype(jnp.int32), None

    return jax.lax.scan(after, jnp.zeros(values.shape, jnp.int32), place)[0]

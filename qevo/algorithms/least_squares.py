"""Integer least squares: evolve many integer vectors at once under one quadratic form.

Each column q minimises ``(q - t)ᵀ H (q - t)`` within bounds of its own. H t never appears: the
search holds the product ``H (q - t)`` of every column and keeps it up to date, so that a candidate
costs a row of H for each level it moves. The problem is that of finding the closest vector of a
lattice; the mutation is the variable-depth move of Lin and Kernighan 1973, the acceptance the
threshold of Dueck and Scheuer 1990. The combination and its constants are ours.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError

LIMIT = 1 << 29  # of the maintained product, for every point that the bounds allow
MAX_DEPTH = 7  # moves whose costs, each below 2**28, an int32 can sum
_COST_SHIFT = 3  # a cost is at most LIMIT * 2 before it, and below 2**28 after it
_BARRED = 1 << 28  # cost of a move that the bounds forbid
_FAR = 1 << 30  # rise of the error above the best one's beyond which no move goes
_MOST = 1 << 15  # generations, candidates
_ANNEALED = 8, 10  # share of the generations in which the threshold falls to 0
_CACHED = 1 << 17  # int32 values of candidates at work at once


@dataclasses.dataclass(frozen=True)
class ColumnSearch:
    """Settings of `evolve_columns`; every default was chosen by experiment here."""

    generations: int = 1000
    """Mutations and selections per column."""
    candidates: int = 4
    """Candidates of each column and generation, of which the best is accepted or none."""
    depth: int = 4
    """Longest mutation: after its first move, the best next ones, cut where the error is least."""
    tournament: int = 4
    """Genes drawn for a first move, of which the one that costs least is taken."""
    threshold: float = 0.25
    """Largest error, in units of the mean cost of one level at the optimum, by which an accepted
    candidate may be worse: 80 % of this at first, falling to 0 over the first 80 % of the
    generations."""

    def __post_init__(self) -> None:
        for name in ("generations", "candidates", "tournament"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise QevoError(f"{name} must be 1 to {_MOST}, got {getattr(self, name)}")
        if not 1 <= self.depth <= MAX_DEPTH:
            raise QevoError(f"depth must be 1 to {MAX_DEPTH}, got {self.depth}")
        if not 0 <= self.threshold <= 64:
            raise QevoError(f"threshold must be 0 to 64, got {self.threshold}")


class Columns(NamedTuple):
    """C integer vectors of K levels, and the quadratic form they share.

    In units of ``2**-fraction_bits`` levels, for a gram matrix of any scale; `integer_columns`
    proves that no product of a point within the bounds passes `LIMIT`.
    """

    levels: jax.Array  # int8 [C, K]
    low: jax.Array  # int8 [C, K], low <= levels <= high
    high: jax.Array  # int8 [C, K]
    product: jax.Array  # int32 [C, K], H (q - t)
    gram: jax.Array  # int32 [K, K], H, symmetric
    step: jax.Array  # int32 [], one level: 2**fraction_bits


def integer_columns(
    levels: np.ndarray,
    target: np.ndarray,
    gram: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
    fraction_bits: int = 7,
) -> Columns:
    """Bring a real problem into integers: H to the most bits whose products are proved to fit.

    Args:
      levels: integers ``[K, C]``, where to start.
      target: float64 ``[K, C]``, in levels.
      gram: float64 ``[K, K]``, symmetric and positive definite.
      low, high: integers ``[K, C]``, within int8.
      fraction_bits: of the target.

    Raises:
      QevoError: a start outside its bounds, or bounds that leave int8.
    """
    if np.any(low > levels) or np.any(levels > high) or low.min() < -128 or high.max() > 127:
        raise QevoError(
            f"levels {levels.min()}..{levels.max()} must lie within their bounds, and these within "
            f"int8, not {low.min()}..{high.max()}"
        )
    step = 1 << fraction_bits
    fixed = np.rint(target * step)
    reach = np.maximum(np.abs(low * step - fixed), np.abs(high * step - fixed))
    reach = np.maximum(reach, step / 2)  # so that one level of a fixed gene costs no more either
    largest = float((np.abs(gram) @ reach).max())
    # Rounding H adds at most half a unit for each of a row's terms.
    room = LIMIT - float(reach.sum(0).max()) / 2
    if room < LIMIT / 2:
        raise QevoError(f"targets up to {np.abs(target).max():.3g} levels are too far out of range")
    matrix = np.rint(gram * (room / max(largest, 1e-300)))
    product = matrix @ (levels * step - fixed)  # exact: all of it below 2**53
    return Columns(
        *(jnp.asarray(part.T, jnp.int8) for part in (levels, low, high)),
        product=jnp.asarray(product.T, jnp.int32),
        gram=jnp.asarray(matrix, jnp.int32),
        step=jnp.int32(step),
    )


@functools.partial(jax.jit, static_argnames="config")
def evolve_columns(key: jax.Array, columns: Columns, config: ColumnSearch) -> jax.Array:
    """The best levels found for each column, int8 ``[C, K]``; integers only.

    A generation mutates each column into ``candidates``: a first move of one level, drawn by
    tournament, then the best next moves with those before it held, up to ``depth``. The best
    candidate is accepted where it is not worse than the threshold allows. Columns do not depend on
    each other, nor on how many are at work at once.

    Args:
      key: of all columns, or one for each ``[C]``: `jax.random.split` of it, so that a part of the
        columns with its keys gives that part of the answer.
      columns: where to start.
      config: how long, and how.
    """
    count, genes = columns.levels.shape
    curvature = jnp.diagonal(columns.gram) * columns.step >> 1  # at most LIMIT
    mean = jnp.sum(curvature // genes, dtype=jnp.int32)
    mean += jnp.sum(curvature % genes, dtype=jnp.int32) // genes
    mean >>= _COST_SHIFT
    units = round(config.threshold * 64)
    threshold = jnp.minimum(mean, (2**31 - 1) // max(units, 1)) * units // 64  # far below _BARRED

    def column(args: tuple[jax.Array, ...]) -> jax.Array:
        key, levels, low, high, product = args
        generation = functools.partial(
            _generation,
            low=low,
            high=high,
            columns=columns,
            curvature=curvature,
            threshold=threshold,
            config=config,
        )
        start = _Column(levels, product, levels, jnp.int32(0))
        numbers = jnp.arange(config.generations, dtype=jnp.int32)
        keys = jax.random.split(key, config.generations)
        return jax.lax.scan(generation, start, (keys, numbers))[0].best

    keys = key if key.ndim else jax.random.split(key, count)
    most = max(1, _CACHED // (config.candidates * genes))
    chunk = max(size for size in range(1, min(most, count) + 1) if count % size == 0)
    given = (keys, columns.levels, columns.low, columns.high, columns.product)
    return jax.lax.map(column, given, batch_size=chunk)


class _Column(NamedTuple):
    levels: jax.Array  # int8 [K]
    product: jax.Array  # int32 [K]
    best: jax.Array  # int8 [K]
    above: jax.Array  # int32 [], error above that of the best, at least 0


class _Move(NamedTuple):
    """One level up or down at each of some genes."""

    rows: jax.Array  # int32 [depth]
    steps: jax.Array  # int32 [depth], -1, 1 or 0 for none
    cost: jax.Array  # int32 []


def _generation(
    column: _Column,
    given: tuple[jax.Array, jax.Array],
    *,
    low: jax.Array,
    high: jax.Array,
    columns: Columns,
    curvature: jax.Array,
    threshold: jax.Array,
    config: ColumnSearch,
) -> tuple[_Column, None]:
    """Mutate, score and select, for one column."""
    key, number = given
    gram, step = columns.gram, columns.step
    rises, falls = column.levels < high, column.levels > low
    half = 1 << (_COST_SHIFT - 1)  # costs are rounded, so that their sum does not drift

    def costs(product: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The cheaper move of each gene: cost ``[K]``, and the way ``[K]``."""
        up = jnp.where(rises, (curvature + product + half) >> _COST_SHIFT, _BARRED)
        down = jnp.where(falls, (curvature - product + half) >> _COST_SHIFT, _BARRED)
        return jnp.minimum(up, down), jnp.where(up < down, 1, -1)

    first, ways = costs(column.product)

    def mutate(row: jax.Array) -> _Move:
        cost, way, product = first, ways, column.product
        rows, steps, totals = [row], [way[row]], [cost[row]]
        for _ in range(config.depth - 1):
            product = product + steps[-1] * step * gram[rows[-1]]
            cost, way = costs(product)
            cost = cost.at[jnp.stack(rows)].set(_BARRED)
            rows.append(jnp.argmin(cost).astype(jnp.int32))
            steps.append(way[rows[-1]])
            totals.append(totals[-1] + cost[rows[-1]])
        total = jnp.stack(totals)
        kept = jnp.arange(config.depth) <= jnp.argmin(total)
        least = jnp.where(first[row] < _BARRED, jnp.min(total), _BARRED)
        return _Move(jnp.stack(rows), jnp.where(kept, jnp.stack(steps), 0), least)

    shape = (config.candidates, config.tournament)
    drawn = jax.random.randint(key, shape, 0, first.shape[0], jnp.int32)
    winner = jnp.argmin(first[drawn], axis=1)
    moves = jax.vmap(mutate)(jnp.take_along_axis(drawn, winner[:, None], axis=1)[:, 0])
    move = jax.tree.map(lambda part: part[jnp.argmin(moves.cost)], moves)

    left = jnp.maximum(_ANNEALED[0] * config.generations // _ANNEALED[1] - number, 0)
    whole, rest = jnp.divmod(threshold, config.generations)
    allowed = whole * left + rest * left // config.generations
    above = column.above + move.cost
    accepted = (move.cost < allowed) & (above < _FAR)
    steps = jnp.where(accepted, move.steps, 0)
    levels = column.levels.at[move.rows].add(steps.astype(jnp.int8))
    product = column.product + jnp.sum(steps[:, None] * step * gram[move.rows], 0, jnp.int32)
    above = jnp.where(accepted, above, column.above)
    best = jnp.where(above < 0, levels, column.best)
    return _Column(levels, product, best, jnp.maximum(above, 0)), None

"""Selection: ranks, and stages that score all candidates on few rows, and fewer on more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qevo.core.proposal import Share
from qevo.errors import QevoError

WORST = 2**31 - 1  # fitness of what has not been evaluated to the end


_COUNTED = 512  # as few are ranked faster by all comparisons than by a sort


def ranks(values: jax.Array) -> jax.Array:
    """The places int32 ``[P]`` of values int32 ``[P]`` in ascending order; ties keep theirs."""
    places = jnp.arange(values.shape[0], dtype=jnp.int32)
    if values.shape[0] > _COUNTED:
        return jnp.zeros_like(places).at[jnp.argsort(values, stable=True)].set(places)
    mine, others = values[:, None], values[None]
    before = (others < mine) | ((others == mine) & (places[None] < places[:, None]))
    return jnp.sum(before, axis=1, dtype=jnp.int32)


class Stage(NamedTuple):
    """How many candidates take part, and up to which row of the batch they are scored."""

    candidates: int
    rows: int


def check_stages(stages: Sequence[Stage], population: int, spared: int = 0) -> None:
    """Refuse stages that do not begin with the whole population, or do not narrow.

    The last one has room for more than the ``spared`` candidates that go through all stages.

    Raises:
      QevoError: saying what they must be.
    """
    candidates, rows = ([stage[part] for stage in stages] for part in (0, 1))
    if stages and (
        candidates[0] != population
        or sorted(candidates, reverse=True) != candidates
        or sorted({*rows}) != rows
        or min(candidates[-1] - spared, rows[0]) < 1
    ):
        raise QevoError(
            f"stages must begin with all {population} candidates and go on with no more of them, "
            f"but at least {spared + 1}, on more rows of the batch, got (candidates, rows) "
            f"{[tuple(stage) for stage in stages]}"
        )


def staged_scores(
    score: Callable[[Share, Any], jax.Array],
    share: Share,
    batch: Any,
    stages: Sequence[Stage],
    spared: int = 0,
) -> jax.Array:
    """Fitness int32 ``[P]``; `WORST` for candidates that were dropped on the way.

    Scores add up over the rows, so that no candidate is scored on a row twice. Of equal candidates
    at the edge of a stage the earlier one goes on, which favours none where they are drawn alike.

    Args:
      score: fitness int32 ``[p]`` of candidates on some rows of the batch.
      share: all candidates.
      batch: arrays with a leading axis of rows.
      stages: as `check_stages` has them; none to score all candidates on the whole batch.
      spared: the first so many candidates go through all stages.
    """
    if not stages:
        return score(share, batch)
    population = share.rows.shape[0]
    left = jnp.arange(population, dtype=jnp.int32)
    fitness, done = jnp.zeros(population, jnp.int32), 0
    for candidates, rows in stages:
        if candidates < left.shape[0]:
            order = jnp.where(left < spared, -WORST, fitness)
            kept = jnp.argsort(order, stable=True)[:candidates]
            left, fitness = left[kept], fitness[kept]
        part = jax.tree.map(lambda array, first=done, end=rows: array[first:end], batch)
        fitness += score(share._replace(rows=share.rows[left], values=share.values[left]), part)
        done = rows
    return jnp.full(population, WORST, jnp.int32).at[left].set(fitness)

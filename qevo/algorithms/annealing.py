"""Simulated annealing: random moves, worse ones with a probability that falls from start to end.

Kirkpatrick, Gelatt and Vecchi 1983. The acceptance rule of Metropolis compares with a table of
integers: a move is made where its change is at most a random quantile of the exponential
distribution, times the temperature.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qevo.algorithms.local_search import ChainConfig, Journal, LocalSearch
from qevo.core.moves import MoveProblem
from qevo.core.space import INT32
from qevo.errors import QevoError

_QUANTILES = 4096


@dataclasses.dataclass(frozen=True)
class AnnealingConfig(ChainConfig):
    """Settings of simulated annealing."""

    cycle: int = 50
    """Generations from the highest temperature to the lowest one; then it begins anew."""
    hot: float | None = None
    """The highest temperature, in units of fitness; by default the mean size of the changes that
    moves make at the start and at a few random solutions."""
    cold: float | None = None
    """The lowest temperature; by default a fiftieth of the highest, and at least 0.15: below, a
    move that costs 1 is made less than once in 800 times."""


class Annealing(LocalSearch):
    """Every chain draws a gene and another level for it, and moves there if that is accepted.

    The temperature falls geometrically from generation to generation.
    """

    needs = MoveProblem
    config: AnnealingConfig

    def __init__(self, problem: MoveProblem, config: AnnealingConfig | None = None):
        config = config or AnnealingConfig()
        super().__init__(problem, config)
        hot = _mean_change(problem) if config.hot is None else config.hot
        cold = min(max(hot / 50, 0.15), hot) if config.cold is None else config.cold
        if not 0 < cold <= hot or config.cycle < 1:
            raise QevoError(
                "temperatures must be above 0 and fall, over a cycle of at least 1 generation, got "
                f"{hot} to {cold} in {config.cycle}"
            )
        steps = np.arange(config.cycle) / max(config.cycle - 1, 1)
        self.temperatures = hot * (cold / hot) ** steps
        quantiles = -np.log((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
        thresholds = np.floor(self.temperatures[:, None] * quantiles)
        self.thresholds = np.minimum(thresholds, INT32.max // 2).astype(np.int32)

    def walk(
        self, key: jax.Array, genes: jax.Array, generation: jax.Array
    ) -> tuple[jax.Array, Journal]:
        """Moves at one temperature."""
        problem, space = self.problem, self.problem.space
        accepted = jnp.asarray(self.thresholds)[generation % self.config.cycle]
        low, high = space.low.astype(jnp.int32), space.high.astype(jnp.int32)

        def step(walk: tuple[jax.Array, Any, jax.Array], draws: jax.Array) -> Any:
            genes, state, total = walk
            position = (draws[0] % np.uint32(space.size)).astype(jnp.int32)
            old, least = genes[position].astype(jnp.int32), low[position]
            levels = high[position] - least + 1
            if state.change.ndim == 1:
                level = 1 - (old - least)
                delta = state.change[position]
            else:
                others = jnp.maximum(levels - 1, 1).astype(jnp.uint32)
                level = old - least + 1 + (draws[1] // _QUANTILES % others).astype(jnp.int32)
                level %= levels
                delta = state.change[position, level]
            made = delta <= accepted[draws[1] % np.uint32(_QUANTILES)]
            value = jnp.where(made, least + level, old)
            total += jnp.where(made, delta, 0)
            state = problem.move(genes, state, position, value.astype(jnp.int8))
            genes = genes.at[position].set(value.astype(jnp.int8))
            return (genes, state, total), Journal.entry(position, value, total)

        draws = jax.random.bits(key, (self.config.moves, 2), jnp.uint32)
        first = genes, problem.moves(genes), jnp.int32(0)
        (genes, _, _), entries = jax.lax.scan(step, first, draws)
        return genes, Journal.of(entries)


def _mean_change(problem: MoveProblem) -> float:
    """The mean size of the changes that are not 0, at the start and at 15 random solutions.

    Where nothing changes any fitness, it is 1: every temperature accepts all moves.
    """
    space = problem.space
    genes = [space.start]
    for key in jax.random.split(jax.random.key(0), 15):
        genes.append(space.encode(problem.sample(key)))
    sizes = [np.abs(np.asarray(problem.moves(one).change, np.int64)).ravel() for one in genes]
    size = np.concatenate(sizes)
    size = size[(size > 0) & (size < INT32.max)]
    return float(size.mean()) if size.size else 1.0

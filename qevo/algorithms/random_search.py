"""Random search: uniform candidates, the best one kept; what every other search has to beat."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from qevo.core.algorithm import Algorithm
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal
from qevo.core.random import uniform_levels
from qevo.core.selection import WORST
from qevo.core.settings import Settings
from qevo.core.space import Space


@dataclasses.dataclass(frozen=True)
class RandomSearchConfig(Settings):
    """Settings of random search."""

    population: int = 64
    """Candidates per generation (P)."""


@struct.dataclass
class RandomSearchState:
    """Integer state."""

    best: jax.Array  # int8 [N]
    fitness: jax.Array  # int32 [], of the best, when it was drawn
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]


class RandomSearch(Algorithm):
    """Every candidate is drawn uniformly within the bounds; ``[P, N]`` of them at a time."""

    def __init__(self, space: Space, config: RandomSearchConfig | None = None):
        self.config = config or RandomSearchConfig()
        super().__init__(space, self.config.population)

    def start(self, key: jax.Array) -> RandomSearchState:
        """The space's start, for want of anything better."""
        space = self.space
        return RandomSearchState(space.start, jnp.int32(WORST), space.low, space.high)

    def context(self, state: RandomSearchState) -> jax.Array:
        """The best solution so far, int8 ``[N]``."""
        return state.best

    def propose(
        self, key: jax.Array, state: RandomSearchState
    ) -> tuple[Proposal, RandomSearchState]:
        """P uniform candidates."""
        drawn = uniform_levels(key, state.low, state.high, self.population_size)
        return Proposal.whole(drawn), state

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: RandomSearchState
    ) -> tuple[RandomSearchState, Metrics]:
        """Keep the best one."""
        winner = jnp.argmin(fitness)
        better = fitness[winner] < state.fitness
        best = jnp.where(better, proposal.values[winner], state.best)
        state = dataclasses.replace(
            state, best=best, fitness=jnp.minimum(fitness[winner], state.fitness)
        )
        return state, {"improved": better.astype(jnp.int32)}

"""Memetic search: crossover of good solutions, and local search from every child.

Moscato 1989; the scheme of Wu and Hao, *A memetic approach for the max-cut problem*, PPSN 2012:
a small pool, children of two members improved by tabu search, the best of both kept without equals.
The settings are ours.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct

from qevo.algorithms.local_search import LocalSearch
from qevo.core.algorithm import Algorithm
from qevo.core.crossover import Crossover, check_crossover, second_parents_genes
from qevo.core.problem import Metrics, Problem
from qevo.core.proposal import Proposal
from qevo.core.random import uniform_levels
from qevo.core.selection import WORST
from qevo.core.settings import Settings
from qevo.errors import QevoError


@dataclasses.dataclass(frozen=True)
class MemeticConfig(Settings):
    """Settings of the recombination; those of the walks are the local search's own, but for how a
    chain begins: `restart` and `random_start` stay at their defaults."""

    crossover: Crossover = "uniform"
    """Whether a child has each gene from either parent, or runs of genes between cut points."""
    points: int = 2
    """Cut points, where crossover has them."""
    tournament: int = 1
    """Members drawn for each parent, of which the best is taken."""
    patience: int = 50
    """Generations in which no child enters the pool before all but the best member are drawn
    anew; 0 for never: the pool may then stay as it is for good."""


@struct.dataclass
class MemeticState:
    """Integer state."""

    pool: jax.Array  # int8 [P, N]
    fitness: jax.Array  # int32 [P], ascending
    idle: jax.Array  # int32 [], generations in which no child entered
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    generation: jax.Array  # int32 []


class Memetic(Algorithm):
    """A pool of P members; in a generation each of P children walks and is put among them.

    The first generation's children are drawn at random, but for the space's start as the first.
    """

    def __init__(self, search: LocalSearch, config: MemeticConfig | None = None):
        config = config or MemeticConfig()
        super().__init__(search.space, search.population_size)
        check_crossover(config.crossover, config.points)
        if self.population_size < 2 or config.tournament < 1 or config.patience < 0:
            raise QevoError(
                "a pool has at least 2 members, a tournament 1, and patience is at least 0, got "
                f"{self.population_size}, {config.tournament} and {config.patience}"
            )
        if search.config.restart or not search.config.random_start:
            raise QevoError(
                "children begin where crossover puts them, so restart must be 0 and random_start "
                f"True, got {search.config.restart} and {search.config.random_start}; the "
                "patience of MemeticConfig draws a pool anew"
            )
        self.search = search
        self.config = config

    def describe(self) -> dict[str, Any]:
        """All settings, those of the local search under its name."""
        return super().describe() | {"search": self.search.describe()}

    def on(self, problem: Problem) -> Self:
        """The same search with the problem's arrays as they are now."""
        here = copy.copy(self)
        here.search = self.search.on(problem)
        return here

    def start(self, key: jax.Array) -> MemeticState:
        """A pool that no child is worse than."""
        space, members = self.space, self.population_size
        return MemeticState(
            pool=jnp.tile(space.start, (members, 1)),
            fitness=jnp.full(members, WORST, jnp.int32),
            idle=jnp.int32(0),
            low=space.low,
            high=space.high,
            generation=jnp.int32(0),
        )

    def context(self, state: MemeticState) -> jax.Array:
        """The best member, int8 ``[N]``."""
        return state.pool[0]

    def propose(self, key: jax.Array, state: MemeticState) -> tuple[Proposal, MemeticState]:
        """Children of members, or at first random solutions, after their walks."""
        key_children, key_drawn, key_walk = jax.random.split(key, 3)
        children = self._children(key_children, state)
        drawn = uniform_levels(key_drawn, state.low, state.high, self.population_size)
        drawn = drawn.at[0].set(state.pool[0])
        anew = state.generation == 0
        if self.config.patience:
            anew |= state.idle >= self.config.patience
        children = jnp.where(anew, drawn, children)
        fitness = state.fitness.at[1:].set(jnp.where(anew, WORST, state.fitness[1:]))
        _, bests = self.search.walked(key_walk, children, state.generation)
        return Proposal.whole(bests), dataclasses.replace(state, fitness=fitness)

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: MemeticState
    ) -> tuple[MemeticState, Metrics]:
        """Keep the best of members and children, each once."""
        members = self.population_size
        genes = jnp.concatenate([state.pool, proposal.values])
        scores = jnp.concatenate([state.fitness, fitness])
        marks = jax.random.bits(key, (genes.shape[1],), jnp.uint32)
        mark = jnp.sum(genes.astype(jnp.uint32) * marks, axis=1)  # of equal solutions the same
        place = jnp.arange(2 * members)
        equal = (mark == mark[:, None]) & (place < place[:, None])
        scores = jnp.where(jnp.any(equal & (scores < WORST), axis=1), WORST, scores)
        kept = jnp.argsort(scores, stable=True)[:members]
        entered = jnp.sum((kept >= members) & (scores[kept] < WORST), dtype=jnp.int32)
        state = dataclasses.replace(
            state,
            pool=genes[kept],
            fitness=scores[kept],
            idle=jnp.where(entered > 0, 0, state.idle + 1),
            generation=state.generation + 1,
        )
        return state, {"entered": entered}

    def _children(self, key: jax.Array, state: MemeticState) -> jax.Array:
        """Children of two members each, int8 ``[P, N]``."""
        c, count, size = self.config, self.population_size, self.space.size
        key_parents, key_genes = jax.random.split(key)
        drawn = jax.random.randint(key_parents, (count, 2, c.tournament), 0, count, jnp.int32)
        parents = jnp.min(drawn, axis=-1)  # the pool is in the order of fitness
        same = parents[:, 0] == parents[:, 1]
        other = jnp.where(same, (parents[:, 1] + 1) % count, parents[:, 1])
        second = second_parents_genes(key_genes, c.crossover, c.points, count, size)
        return jnp.where(second, state.pool[other], state.pool[parents[:, 0]])

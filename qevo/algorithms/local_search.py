"""Local search: chains of single-gene moves, each of which knows what every next one would change.

What all kinds of it share. A generation is a fixed number of moves of every chain; a chain's best
solution on the way is its candidate, so that a generation has P·N genes to score.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import struct

from qevo.core.algorithm import Algorithm
from qevo.core.problem import Metrics, Problem, missing
from qevo.core.proposal import Proposal
from qevo.core.random import uniform_levels
from qevo.core.selection import WORST
from qevo.core.settings import Settings
from qevo.core.spread import spread
from qevo.errors import QevoError


@dataclasses.dataclass(frozen=True)
class ChainConfig(Settings):
    """Settings of every local search."""

    population: int = 16
    """Independent chains (P), each on a solution of its own."""
    moves: int = 2000
    """Moves of a chain in a generation."""
    restart: int = 0
    """Generations without a better solution after which a chain begins anew at random; 0 for
    never."""
    random_start: bool = True
    """Whether all chains but the first begin at random, or all of them at the space's start."""
    chains_at_once: int | None = None
    """Chains side by side in memory; one after the other on a CPU, all at once elsewhere. It does
    not change the result."""


class Journal(NamedTuple):
    """What a chain did in a generation, move by move (T moves)."""

    positions: jax.Array  # int32 [T]
    values: jax.Array  # int8 [T], what the genes became
    totals: jax.Array  # int32 [T], fitness after the move, less the fitness before the first one

    @staticmethod
    def entry(position: jax.Array, value: jax.Array, total: jax.Array) -> jax.Array:
        """One move as int32 ``[3]``: to store it is one step of a program, not three."""
        return jnp.stack([position, value.astype(jnp.int32), total])

    @classmethod
    def of(cls, entries: jax.Array) -> Journal:
        """From the entries int32 ``[T, 3]``."""
        positions, values, totals = entries.T
        return cls(positions, values.astype(jnp.int8), totals)


@struct.dataclass
class ChainState:
    """Integer state."""

    genes: jax.Array  # int8 [P, N], where the chains stand
    fitness: jax.Array  # int32 [P], the least of each chain since it began
    idle: jax.Array  # int32 [P], generations since it was found
    solution: jax.Array  # int8 [N], the best of all
    least: jax.Array  # int32 [], its fitness
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    generation: jax.Array  # int32 []


class LocalSearch(Algorithm):
    """Chains that walk side by side; a subclass says how one walks.

    It is built with the problem, whose moves it makes.
    """

    needs: type[Problem]

    def __init__(self, problem: Any, config: ChainConfig):
        if not isinstance(problem, self.needs):
            raise QevoError(
                f"{type(self).__name__} makes the moves of a {self.needs.__name__}, which "
                f"{type(problem).__name__} is not: it must write the methods of "
                f"qevo.core.moves.{self.needs.__name__}"
            )
        if config.moves < 1 or config.restart < 0:
            raise QevoError(
                f"moves must be at least 1 and restart at least 0, got {config.moves} and "
                f"{config.restart}"
            )
        super().__init__(problem.space, config.population)
        self.problem: Any = problem
        self.config = config

    def describe(self) -> dict[str, Any]:
        """All settings that matter to the result."""
        known = super().describe()
        known.pop("chains_at_once")
        return known

    def on(self, problem: Problem) -> Self:
        """The same search with the problem's arrays as they are now."""
        here = copy.copy(self)
        here.problem = problem
        return here

    def walk(
        self, key: jax.Array, genes: jax.Array, generation: jax.Array
    ) -> tuple[jax.Array, Journal]:
        """One chain's moves in a generation.

        Args:
          key: PRNG key.
          genes: int8 ``[N]``.
          generation: int32 ``[]``.

        Returns:
          The genes int8 ``[N]`` after the last move, and the journal.
        """
        raise missing(self, "walk(key, genes, generation)")

    def start(self, key: jax.Array) -> ChainState:
        """The space's start for the first chain, and uniform solutions for the others."""
        space, chains = self.space, self.population_size
        genes = jnp.tile(space.start, (chains, 1))
        if self.config.random_start:
            drawn = uniform_levels(key, space.low, space.high, chains)
            genes = drawn.at[0].set(space.start)
        return ChainState(
            genes=genes,
            fitness=jnp.full(chains, WORST, jnp.int32),
            idle=jnp.zeros(chains, jnp.int32),
            solution=space.start,
            least=jnp.int32(WORST),
            low=space.low,
            high=space.high,
            generation=jnp.int32(0),
        )

    def context(self, state: ChainState) -> jax.Array:
        """The best solution so far, int8 ``[N]``."""
        return state.solution

    def propose(self, key: jax.Array, state: ChainState) -> tuple[Proposal, ChainState]:
        """Let all chains walk; their best solutions on the way are the candidates."""
        key_start, key_walk = jax.random.split(key)
        state = self.begin(key_start, state)
        ends, bests = self.walked(key_walk, state.genes, state.generation)
        return Proposal.whole(bests), dataclasses.replace(state, genes=ends)

    def begin(self, key: jax.Array, state: ChainState) -> ChainState:
        """Chains that have found nothing better for long begin anew at random."""
        if not self.config.restart:
            return state
        tired = state.idle >= self.config.restart
        fresh = uniform_levels(key, state.low, state.high, self.population_size)
        return dataclasses.replace(
            state,
            genes=jnp.where(tired[:, None], fresh, state.genes),
            fitness=jnp.where(tired, WORST, state.fitness),
            idle=jnp.where(tired, 0, state.idle),
        )

    def walked(
        self, key: jax.Array, genes: jax.Array, generation: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Where chains end that begin at genes int8 ``[P, N]``, and their best, int8 ``[P, N]``."""

        def one(chain: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            key, genes = chain
            end, journal = self.walk(key, genes, generation)
            return end, best_on_the_way(genes, journal)

        keys = jax.random.split(key, genes.shape[0])
        return spread(one, (keys, genes), self.config.chains_at_once)

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: ChainState
    ) -> tuple[ChainState, Metrics]:
        """Remember what is best, and which chains have found nothing better."""
        better = fitness < state.fitness
        winner = jnp.argmin(fitness)
        wins = fitness[winner] < state.least
        state = dataclasses.replace(
            state,
            fitness=jnp.minimum(fitness, state.fitness),
            idle=jnp.where(better, 0, state.idle + 1),
            solution=jnp.where(wins, proposal.values[winner], state.solution),
            least=jnp.minimum(fitness[winner], state.least),
            generation=state.generation + 1,
        )
        return state, {"improved_chains": jnp.sum(better, dtype=jnp.int32)}


def best_on_the_way(genes: jax.Array, journal: Journal) -> jax.Array:
    """The best solution int8 ``[N]`` after any move or before the first, by replaying the moves."""
    moves = jnp.arange(journal.positions.shape[0], dtype=jnp.int32)
    best = jnp.argmin(journal.totals)
    made = (moves <= best) & (journal.totals[best] < 0)
    last = jnp.full(genes.shape, -1, jnp.int32)  # the last move of each gene up to the best one
    last = last.at[journal.positions].max(jnp.where(made, moves, -1), mode="drop")
    return jnp.where(last >= 0, journal.values[jnp.maximum(last, 0)], genes)

"""Genetic algorithm: a true population, tournaments, crossover and sparse level shifts.

Holland 1975; tournament selection after Goldberg and Deb 1991, steady replacement as in the (mu +
lambda) scheme, heavy-tailed mutation after Doerr, Le, Makhmara and Nguyen, *Fast genetic
algorithms*, GECCO 2017. Without crossover and with steady replacement it is a (mu + lambda)
evolutionary algorithm. The defaults are ours.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.algorithm import Algorithm
from qevo.core.crossover import Crossover, check_crossover, second_parents_genes
from qevo.core.mutation import (
    ONE,
    level_shifts,
    mutable_positions,
    power_law,
    power_law_shares,
    used_slots,
)
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal, edit
from qevo.core.random import below, bulk_bits16, uniform_levels
from qevo.core.selection import WORST, ranks
from qevo.core.settings import Settings
from qevo.core.space import Space
from qevo.errors import QevoError

Replacement = Literal["steady", "generational"]
Mutation = Literal["binomial", "heavy-tailed"]
Initial = Literal["uniform", "start"]


@dataclasses.dataclass(frozen=True)
class GeneticConfig(Settings):
    """Settings of the genetic algorithm."""

    population: int = 64
    """Members that are kept; their genes take ``population * N`` bytes."""
    offspring: int | None = None
    """Candidates per generation (P); as many as members by default, and at most."""
    replacement: Replacement = "steady"
    """Which members stay: the best of parents and children, with the fitness that each had when it
    was scored; or the children alone, with the elite scored anew among them, for a fitness that
    changes with its batch."""
    elite: int = 1
    """With generational replacement, the best members that go on unchanged."""
    tournament: int = 2
    """Members drawn for each parent, of which the best is taken."""
    crossed: float = 0.9
    """Share of the children that have two parents."""
    crossover: Crossover = "uniform"
    """Whether a child has each gene from either parent, or runs of genes between cut points."""
    points: int = 2
    """Cut points, where crossover has them."""
    mutation: Mutation = "binomial"
    """How many genes a child shifts: a binomial number, or one after a power law."""
    mutated: float = 1.0
    """Genes that a child shifts on average, where their number is binomial."""
    exponent: float = 1.5
    """Of the power law; 1.5 is what Doerr et al. 2017 recommend."""
    slots: int = 16
    """The most genes that a child may shift (G)."""
    levels: int = 1
    """The largest shift; each further level is half as likely."""
    initial: Initial = "uniform"
    """The first members: uniform within the bounds, save for the space's start as one of them; or
    all at the start."""


@struct.dataclass
class GeneticState:
    """Integer state."""

    population: jax.Array  # int8 [members, N]
    fitness: jax.Array  # int32 [members], when they were scored
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    generation: jax.Array  # int32 []


class Genetic(Algorithm):
    """Children of tournament winners replace the worst members, or all but the elite.

    The first generations score the initial population, P members at a time. Then each child takes a
    first parent and, if it is crossed, genes of a second one, and shifts a few genes by some
    levels; a child of one parent shifts one gene at least.
    """

    def __init__(self, space: Space, config: GeneticConfig | None = None):
        config = config or GeneticConfig()
        offspring = config.population if config.offspring is None else config.offspring
        super().__init__(space, offspring)
        self.config = config
        movable = space.count_movable()
        self._check()
        self.all_movable = movable == space.size
        self.slots = min(config.slots, movable)
        self.law = power_law(max(min(self.slots, movable // 2), 1), config.exponent)
        self.share = min(round(config.mutated * ONE / self.slots), ONE)
        self.crossed = round(config.crossed * ONE)
        self.first_generations = -(-config.population // offspring)

    def _check(self) -> None:
        c = self.config
        for name, value, choices in (
            ("replacement", c.replacement, get_args(Replacement)),
            ("mutation", c.mutation, get_args(Mutation)),
            ("initial", c.initial, get_args(Initial)),
        ):
            if value not in choices:
                raise QevoError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        check_crossover(c.crossover, c.points)
        if not 2 <= c.population < ONE or self.population_size > c.population:
            raise QevoError(
                f"a population has 2 to {ONE - 1} members and at most as many offspring, got "
                f"{c.population} and {self.population_size}"
            )
        if c.replacement == "generational" and (
            self.population_size != c.population or not 0 <= c.elite < c.population
        ):
            raise QevoError(
                "generational replacement needs as many offspring as members, and an elite of "
                f"fewer, got {self.population_size}, {c.population} and {c.elite}"
            )
        if c.tournament < 1 or not 1 <= c.levels <= 15:
            raise QevoError(
                "tournament must be at least 1 and levels 1 to 15, got "
                f"{c.tournament} and {c.levels}"
            )
        if not 1 <= c.slots <= ONE or not 0 <= c.mutated <= c.slots or not 0 <= c.crossed <= 1:
            raise QevoError(
                f"slots must be 1 to {ONE} and hold the mutated genes, and crossed lie in 0..1, "
                f"got {c.slots}, {c.mutated} and {c.crossed}"
            )

    def start(self, key: jax.Array) -> GeneticState:
        """The first members, none of them scored."""
        space, members = self.space, self.config.population
        if self.config.initial == "uniform":
            drawn = uniform_levels(key, space.low, space.high, members)
            population = drawn.at[0].set(space.start)
        else:
            population = jnp.tile(space.start, (members, 1))
        return GeneticState(
            population=population,
            fitness=jnp.full(members, WORST, jnp.int32),
            low=space.low,
            high=space.high,
            generation=jnp.int32(0),
        )

    def context(self, state: GeneticState) -> jax.Array:
        """The best member, int8 ``[N]``."""
        return state.population[jnp.argmin(state.fitness)]

    def propose(self, key: jax.Array, state: GeneticState) -> tuple[Proposal, GeneticState]:
        """P members that have not been scored yet, or children."""

        def members() -> jax.Array:
            first = state.generation * self.population_size
            return jax.lax.dynamic_slice_in_dim(state.population, first, self.population_size)

        unscored = state.generation < self.first_generations
        candidates = jax.lax.cond(unscored, members, lambda: self._children(key, state))
        return Proposal.whole(candidates), state

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: GeneticState
    ) -> tuple[GeneticState, Metrics]:
        """Put the candidates among the members."""
        children = proposal.values
        unscored = state.generation < self.first_generations
        if self.config.replacement == "generational":
            population, scores = children, fitness
            kept = jnp.int32(self.population_size - self.config.elite)
        else:
            # The best child meets the worst member, and so on: the best of all of them stay.
            every = jnp.arange(self.config.population, dtype=jnp.int32)
            worst = jnp.zeros_like(every).at[ranks(~state.fitness)].set(every)
            first = jnp.minimum(
                state.generation * self.population_size,
                self.config.population - self.population_size,
            )
            theirs = first + every[: self.population_size]
            places = jnp.where(unscored, theirs, worst[ranks(fitness)])
            stays = unscored | (fitness <= state.fitness[places])
            places = jnp.where(stays, places, self.config.population)
            population = state.population.at[places].set(children, mode="drop")
            scores = state.fitness.at[places].set(fitness, mode="drop")
            kept = jnp.sum(stays, dtype=jnp.int32)
        state = dataclasses.replace(
            state, population=population, fitness=scores, generation=state.generation + 1
        )
        return state, {"kept": kept, "worst": jnp.max(scores)}

    def _children(self, key: jax.Array, state: GeneticState) -> jax.Array:
        """Children of the members, int8 ``[P, N]``; the elite first where it is scored anew."""
        c, count, size = self.config, self.population_size, self.space.size
        key_bits, key_cross, key_positions = jax.random.split(key, 3)
        bits = bulk_bits16(key_bits, (count, 4 * c.tournament + 2 + 2 * self.slots))
        for_tournaments, for_crossing, for_share, for_use, for_shift = jnp.split(
            bits, np.cumsum([4 * c.tournament, 1, 1, self.slots]), axis=1
        )
        drawn = below(for_tournaments.reshape(count, 2, c.tournament, 2), c.population)
        best = jnp.argmin(state.fitness[drawn], axis=-1, keepdims=True)
        parents = jnp.take_along_axis(drawn, best, axis=-1)[..., 0]
        children = state.population[parents[:, 0]]
        crossed = for_crossing[:, 0].astype(jnp.int32) < self.crossed
        if self.crossed:
            second = second_parents_genes(key_cross, c.crossover, c.points, count, size)
            second &= crossed[:, None]
            children = jnp.where(second, state.population[parents[:, 1]], children)

        movable = None if self.all_movable else (state.low < state.high).astype(jnp.int32)
        positions = mutable_positions(key_positions, movable, size, count, self.slots)
        if c.mutation == "binomial":
            share = jnp.full(count, self.share, jnp.int32)
        else:
            share = power_law_shares(for_share[:, 0], self.law, self.slots)
        used = used_slots(for_use, share)
        used = used.at[:, 0].set(used[:, 0] | ~crossed)  # the slots' places are drawn at random
        old = jnp.take_along_axis(children, jnp.minimum(positions, size - 1), axis=1)
        low, high = (part.at[positions].get(mode="clip") for part in (state.low, state.high))
        values = level_shifts(for_shift, old, low, high, c.levels)
        children = jax.vmap(edit)(children, jnp.where(used, positions, size), values)
        if c.replacement == "generational" and c.elite:
            elite = jnp.argsort(state.fitness, stable=True)[: c.elite]
            children = children.at[: c.elite].set(state.population[elite])
        return children

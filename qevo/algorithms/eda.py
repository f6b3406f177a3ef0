"""Univariate estimation of distribution: UMDA, PBIL and the compact genetic algorithm as one.

An integer frequency table per gene stands for the population; each generation draws candidates from
the tables, all genes at once, and moves the tables towards the better ones. UMDA (Mühlenbein and
Paaß, PPSN 1996) takes the frequencies of the selected candidates as they are; PBIL (Baluja 1994)
moves a share of the way; the compact genetic algorithm (Harik, Lobo and Goldberg, IEEE TEC 1999)
moves from the loser of two towards the winner, by 1 / K. Margins are those of the theory: 1 / n for
bits (Krejca and Witt, *Theory of estimation-of-distribution algorithms*, 2020), 1 / ((L - 1) n) for
L levels (Ben Jedidia, Doerr and Krejca, *Estimation-of-distribution algorithms for multi-valued
decision variables*, GECCO 2023). Mirrored pairs, shared ties and fixed point are ours.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.algorithm import Algorithm
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal
from qevo.core.random import TABLE_BITS, TABLE_TOTAL, bulk_bits16, table_levels
from qevo.core.settings import Settings
from qevo.core.space import Space
from qevo.core.tables import settle
from qevo.errors import QevoError

_BIT_TOTAL = 1 << 16  # the whole of a binary gene's table
_WEIGHTS = 1 << 14  # what the selected candidates weigh together
_MOST_LEVELS = 64
_DRAWS = 1 << 20  # at once
_LANES = 8  # odd numbers of genes take XLA's threads ten times as long


@dataclasses.dataclass(frozen=True)
class EDAConfig(Settings):
    """Settings of univariate estimation of distribution; `umda`, `pbil` and `compact` fill them in.

    The defaults are PBIL's rule with settings of ours.
    """

    population: int = 64
    """Candidates per generation (P)."""
    selected: int = 16
    """The best candidates, which the tables move towards."""
    rate: float = 0.1
    """How far a table moves towards the frequencies of the selected; all the way with 1. Against
    the worst, how far a unanimous generation moves it, as a share of the whole."""
    against_worst: bool = False
    """Move by the difference between as many of the best and of the worst, instead of between the
    best and the table: what all candidates share then moves nothing."""
    margin: float | None = None
    """Least share of every level that the bounds allow, at most 1 / (2 L), so that a table can
    decide; ``None`` for 1 / ((L - 1) N) within that, or a table's smallest unit (2**-16 for bits,
    2**-14 otherwise) where that is more."""
    antithetic: bool = True
    """Draw candidates in pairs with mirrored quantiles, which halves the random bits."""

    @classmethod
    def umda(cls, population: int = 200, selected: int = 100) -> EDAConfig:
        """The univariate marginal distribution algorithm."""
        return cls(population, selected, rate=1.0, antithetic=False)

    @classmethod
    def pbil(cls, population: int = 64, selected: int = 16, rate: float = 0.1) -> EDAConfig:
        """Population-based incremental learning."""
        return cls(population, selected, rate, antithetic=False)

    @classmethod
    def compact(cls, virtual_population: int) -> EDAConfig:
        """The compact genetic algorithm for a simulated population of K."""
        return cls(2, 1, 1 / virtual_population, against_worst=True, antithetic=False)

    @classmethod
    def noisy(cls, genes: int, population: int = 64) -> EDAConfig:
        """For a fitness with much noise: the compact algorithm's rule with more to compare.

        The best quarter of mirrored candidates against the worst. As in the compact algorithm with
        a simulated population of sqrt(n) ln n, steps are so small that the noise averages out; of
        as many evaluations, quarters learn more than twice as much as pairs do.

        Args:
          genes: N.
          population: P, even, 4 or more; fewer than 16 take steps that are smaller than a table's
            smallest unit, 2**-16, from 5 * 10**7 genes on.
        """
        rate = population / (4 * math.sqrt(genes) * math.log(max(genes, 2)))
        return cls(population, population // 4, min(rate, 1.0), against_worst=True)


@struct.dataclass
class EDAState:
    """Integer state; every array has N rows."""

    tables: jax.Array  # uint16 [N] where a gene has two levels at most: the mass of the upper one
    # of 2**16, 0 for a gene that cannot move; else int16 [N, L], rows summing to TABLE_TOTAL
    low: jax.Array  # int8 [N], what level 0 stands for
    levels: jax.Array | None  # int8 [N], how many the bounds allow; None with two at most
    generation: jax.Array  # int32 []


class EDA(Algorithm):
    """Draw from independent tables, select, and move the tables.

    Candidates are drawn in full, int8 ``[P, N]``; the state takes 3 bytes a gene where no gene has
    more than two levels (two in the table, one for the lower bound), and 2 L + 2 bytes otherwise.
    The answer is the most likely level of every gene.
    """

    def __init__(self, space: Space, config: EDAConfig | None = None):
        config = config or EDAConfig()
        super().__init__(space, config.population)
        self.config = config
        span = np.asarray(space.high, np.int16) - np.asarray(space.low, np.int16)
        self.levels = int(span.max()) + 1
        self._check()
        self.binary = self.levels == 2
        self.total = _BIT_TOTAL if self.binary else TABLE_TOTAL
        margin = config.margin
        if margin is None:  # with few genes, the theory's is more than a table has room for
            margin = min(1 / ((self.levels - 1) * space.size), 1 / (2 * self.levels))
        self.margin = max(round(margin * self.total), 1)
        # Rate and weights in 14 bits each, tables in 16 at most: products fit an int32.
        self.rate = round(config.rate * _WEIGHTS)
        self.step = round(config.rate * self.total)
        if min(self.rate if not config.against_worst else 1, self.step) < 1:
            raise QevoError(
                f"a rate of {config.rate} is less than a table's smallest unit, 2**-"
                f"{self.total.bit_length() - 1}"
            )

    def _check(self) -> None:
        c = self.config
        self.space.count_movable()
        if self.levels > _MOST_LEVELS:
            raise QevoError(
                f"a gene has {self.levels} levels, and a table at most {_MOST_LEVELS}; Coevolution "
                "looks at a window of levels instead"
            )
        most = c.population // 2 if c.against_worst else c.population
        if not 1 <= c.selected <= min(most, _WEIGHTS):
            raise QevoError(
                f"selected must be 1 to {min(most, _WEIGHTS)} of a population of {c.population}"
                f"{', half of it at most against the worst,' if c.against_worst else ','} got "
                f"{c.selected}"
            )
        if c.antithetic and c.population % 2:
            raise QevoError(f"antithetic pairs need an even population, got {c.population}")
        if not 0 < c.rate <= 1:
            raise QevoError(f"rate must lie in 0..1, above 0, got {c.rate}")
        most = 1 / (2 * self.levels)
        if c.margin is not None and not 0 < c.margin <= most:
            raise QevoError(
                f"margin must lie in 0..{most:.4f}, above 0, for {self.levels} levels, got "
                f"{c.margin}"
            )

    def start(self, key: jax.Array) -> EDAState:
        """Uniform tables, but for one unit that makes the starting level the most likely one."""
        space = self.space
        low, generation = space.low, jnp.int32(0)
        if self.binary:
            upper = jnp.where(space.start > space.low, _BIT_TOTAL // 2 + 1, _BIT_TOTAL // 2 - 1)
            tables = jnp.where(space.low < space.high, upper, 0).astype(jnp.uint16)
            return EDAState(tables, low, None, generation)
        levels = space.high.astype(jnp.int32) - space.low + 1
        level = jnp.arange(self.levels)
        each = (TABLE_TOTAL - 1) // levels[:, None]
        tables = jnp.where(level < levels[:, None], each, 0)
        first = level == (space.start.astype(jnp.int32) - space.low)[:, None]
        rest = TABLE_TOTAL - jnp.sum(tables, axis=1, keepdims=True, dtype=jnp.int32)
        tables = (tables + jnp.where(first, rest, 0)).astype(jnp.int16)
        return EDAState(tables, low, levels.astype(jnp.int8), generation)

    def context(self, state: EDAState) -> jax.Array:
        """The most likely level of every gene, int8 ``[N]``."""
        if self.binary:
            return state.low + (state.tables > _BIT_TOTAL // 2).astype(jnp.int8)
        return state.low + jnp.argmax(state.tables, axis=1).astype(jnp.int8)

    def propose(self, key: jax.Array, state: EDAState) -> tuple[Proposal, EDAState]:
        """P candidates from the tables."""
        count, antithetic = self.population_size, self.config.antithetic
        if not self.binary:
            tables = state.tables.astype(jnp.int32)
            levels = table_levels(key, tables, count, antithetic=antithetic)
            return Proposal.whole(state.low + levels), state
        candidates = self._bits(key, state.tables)
        return Proposal.whole(state.low + candidates), state

    def _bits(self, key: jax.Array, tables: jax.Array) -> jax.Array:
        """Bits int8 ``[P, N]``, a run of genes at a time: that takes less memory, and less time."""
        count, genes = self.population_size, tables.shape[0]
        run = min(max(_DRAWS // count, 1024), genes)

        def draw(number: jax.Array | int, bits: jax.Array) -> jax.Array:
            # The last run overlaps the one before and draws some genes again.
            first = jnp.minimum(number * run, genes - run)
            tables_here = jax.lax.dynamic_slice_in_dim(tables, first, run)
            here = _bits_of(jax.random.fold_in(key, number), tables_here, count, self.config)
            return jax.lax.dynamic_update_slice_in_dim(bits, here, first, axis=1)

        return jax.lax.fori_loop(0, -(-genes // run), draw, jnp.zeros((count, genes), jnp.int8))

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: EDAState
    ) -> tuple[EDAState, Metrics]:
        """Move every table towards the selected candidates."""
        best = selection_weights(fitness, self.config.selected)
        if self.config.against_worst:
            best -= selection_weights(~fitness, self.config.selected)
        upper = proposal.values - state.low
        tables = state.tables.astype(jnp.int32)
        if self.binary:
            votes = _count(upper, best, 1)
            moved = jnp.clip(
                self._moved(tables, votes, best), self.margin, _BIT_TOTAL - self.margin
            )
            tables = jnp.where(tables == 0, 0, moved)
            sure = jnp.minimum(tables, _BIT_TOTAL - tables)
            undecided = jnp.sum((tables > 0) & (sure > self.margin), dtype=jnp.int32)
            state = dataclasses.replace(state, tables=tables.astype(jnp.uint16))
        else:
            votes = [_count(upper, best, level) for level in range(self.levels)]
            votes = jnp.stack(votes, axis=-1)
            assert state.levels is not None
            allowed = jnp.arange(self.levels) < state.levels[:, None]
            tables = settle(self._moved(tables, votes, best), allowed, self.margin)
            others = self.margin * (state.levels.astype(jnp.int32) - 1)
            undecided = jnp.sum(TABLE_TOTAL - jnp.max(tables, axis=1) > others, dtype=jnp.int32)
            state = dataclasses.replace(state, tables=tables.astype(jnp.int16))
        return dataclasses.replace(state, generation=state.generation + 1), {"undecided": undecided}

    def _moved(self, tables: jax.Array, votes: jax.Array, weights: jax.Array) -> jax.Array:
        """Tables int32 after a step, not yet within their margins; votes of the tables' shape."""
        if self.config.against_worst:
            return tables + _rounded(votes * self.step)
        # Frequencies of the selected: ties and rounding leave the sum of weights a little short.
        bits = self.total.bit_length() - 1
        total = jnp.sum(weights, dtype=jnp.int32)  # 0 where more tie than there are units
        scale = (1 << 30) // jnp.maximum(total, 1)  # 2**16 to 2**17
        frequency = (votes * scale + (1 << (29 - bits))) >> (30 - bits)
        frequency = jnp.where(total > 0, frequency, tables)
        return tables + _rounded((frequency - tables) * self.rate)


def _rounded(products: jax.Array) -> jax.Array:
    """Products over 2**14, to the nearest integer; halves away from 0, so that chance draws a table
    to neither side."""
    nearest = (jnp.abs(products) + (1 << (TABLE_BITS - 1))) >> TABLE_BITS
    return jnp.where(products < 0, -nearest, nearest)


def selection_weights(fitness: jax.Array, selected: int) -> jax.Array:
    """The weight of each candidate, int32 ``[P]``, where the ``selected`` best weigh the same.

    Candidates of equal fitness share the last places evenly. The sum is 2**14, less rounding.
    """
    bound = jnp.sort(fitness)[selected - 1]
    better, tied = fitness < bound, fitness == bound
    places = selected - jnp.sum(better, dtype=jnp.int32)
    full = _WEIGHTS // selected
    return jnp.where(better, full, jnp.where(tied, full * places // jnp.sum(tied), 0))


def _bits_of(key: jax.Array, tables: jax.Array, count: int, config: EDAConfig) -> jax.Array:
    """Bits int8 ``[count, genes]`` of tables uint16 ``[genes]``."""
    antithetic = config.antithetic
    draws = bulk_bits16(key, (count // 2 if antithetic else count, tables.shape[0]))
    if antithetic:
        draws = jnp.stack([draws, ~draws], axis=1).reshape(count, -1)
    return (draws < tables).astype(jnp.int8)


def _count(levels: jax.Array, weights: jax.Array, level: int) -> jax.Array:
    """The weight int32 ``[N]`` of the candidates int8 ``[P, N]`` that have a level.

    A few candidates at a time, and whole lanes: XLA's own sum down all of them takes 20 times as
    long on a CPU.
    """
    population, size = levels.shape
    genes = -(-size // _LANES) * _LANES
    levels = jnp.pad(levels, ((0, 0), (0, genes - size)))
    rows = math.gcd(population, 8)

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        levels, weights = part
        return total + jnp.sum(jnp.where(levels == level, weights[:, None], 0), axis=0), None

    parts = (levels.reshape(-1, rows, genes), weights.reshape(-1, rows))
    return jax.lax.scan(add, jnp.zeros(genes, jnp.int32), parts)[0][:size]

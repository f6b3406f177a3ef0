"""Cooperative coevolution over integer frequency tables, one small table per gene.

After Peng, Liu, Lu and Tang, *Training Quantized Deep Neural Networks via Cooperative Coevolution*,
arXiv 2112.14834: a distribution over levels for each weight, groups formed by confidence, the least
confident optimised against the context of all others. The constants are ours.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import struct

from qevo.core import blocks
from qevo.core.algorithm import Algorithm, rank_weights
from qevo.core.bisection import largest_limit
from qevo.core.blocks import Place
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal
from qevo.core.random import TABLE_BITS, TABLE_TOTAL, table_levels, weighted_positions
from qevo.core.settings import Settings
from qevo.core.space import Block, Space
from qevo.core.tables import settle
from qevo.errors import QevoError

Grouping = Literal["entropy", "top_k", "random", "block"]


@dataclasses.dataclass(frozen=True)
class CoevolutionConfig(Settings):
    """Settings of cooperative coevolution; every default was chosen by experiment here."""

    population: int = 64
    """Candidates per generation (P)."""
    group: int = 20_000
    """Genes edited per subgroup and generation (G); capped by the number of genes."""
    subgroups: int = 1
    """Subgroups that coevolve side by side (S); the population is shared among them."""
    grouping: Grouping = "entropy"
    """How genes are drawn: in proportion to their uncertainty, the least confident only, uniformly,
    or within one block of the space, which what it shares with others makes cheap to score; blocks
    and genes then come in proportion to their uncertainty."""
    radius: int = 1
    """Levels on each side of a gene's current centre that its table covers (L = 2 radius + 1)."""
    spread: float = 0.04
    """Share of a fresh table's mass that lies off its centre, where all its levels are allowed."""
    rate: float = 0.7
    """Learning rate: share of a table's mass that a unanimous population moves in a generation."""
    final_rate: float = 0.1
    """Learning rate at the end of the schedule, as a share of `rate`; linear in between."""
    schedule: int = 300
    """Generations over which the learning rate falls to its final share."""
    margin: float = 0.005
    """Least mass of every level that the bounds allow, so that no table freezes."""
    antithetic: bool = True
    """Draw candidates in pairs with mirrored quantiles."""


@struct.dataclass
class CoevolutionState:
    """Integer state; every array has N rows."""

    tables: (
        jax.Array
    )  # int16 [N, L], rows sum to TABLE_TOTAL; level l stands for centre + l - radius
    centre: jax.Array  # int8 [N], the context vector: the most likely level of every gene
    uncertainty: jax.Array  # int16 [N], mass off the centre; 0 for a gene that cannot move
    start: jax.Array  # int8 [N]
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    generation: jax.Array  # int32 []


class Coevolution(Algorithm):
    """Cooperative coevolution: score a group of genes against the context, move their tables.

    Each generation draws S disjoint groups of G genes, samples P / S candidates for each group from
    the genes' tables while all other genes keep their most likely level, ranks candidates within
    their group, and moves every table's mass towards the levels that ranked better. Where a level
    overtakes the centre, the window moves there.
    """

    def __init__(self, space: Space, config: CoevolutionConfig | None = None):
        config = config or CoevolutionConfig()
        super().__init__(space, config.population)
        self.config = config
        self._check()
        space.count_movable()
        self.group = min(config.group, space.size // config.subgroups)
        self.levels = 2 * config.radius + 1
        self.spread = round(config.spread * TABLE_TOTAL)
        self.margin = math.floor(config.margin * TABLE_TOTAL)
        # A share of the weights must leave room for the sum over N genes in an int32.
        self.weight_shift = max(0, TABLE_BITS + math.ceil(math.log2(space.size)) - 30)
        # A unanimous group, its better half against its worse one, casts (P / S)**2 / 4 votes; its
        # product with the rate fits an int32, and so does the rate's with its schedule.
        unanimous = max((config.population // config.subgroups) ** 2 // 4, 1)
        moved = config.rate * TABLE_TOTAL
        bits = min(30, 30 - math.log2(moved), 20 - math.log2(moved / unanimous))
        self.rate_bits = math.floor(bits)
        self.first_rate = round(moved / unanimous * 2**self.rate_bits)
        self.last_rate = round(config.final_rate * self.first_rate)

    def _check(self) -> None:
        c, genes = self.config, self.space.size
        if c.subgroups < 1 or c.population % c.subgroups:
            raise QevoError(f"{c.subgroups} subgroups do not divide a population of {c.population}")
        per_group = c.population // c.subgroups
        if per_group < 2 or (c.antithetic and per_group % 2):
            raise QevoError(
                f"a subgroup has {per_group} candidates; it needs at least 2, and an even number "
                "with antithetic pairs"
            )
        if per_group > 1 << 14:
            raise QevoError(f"a subgroup has {per_group} candidates; at most {1 << 14} are ranked")
        if c.group < 1 or genes < c.subgroups:
            raise QevoError(f"{c.subgroups} subgroups of {c.group} genes do not fit {genes} genes")
        if c.grouping not in get_args(Grouping):
            raise QevoError(
                f"grouping must be one of {', '.join(get_args(Grouping))}, got {c.grouping!r}"
            )
        if not 1 <= c.radius <= 15:
            raise QevoError(f"radius must be 1 to 15, got {c.radius}")
        others = 2 * c.radius
        least, most = others / TABLE_TOTAL, others / (others + 1)
        if not least <= c.spread <= most or not 0 <= c.margin * others <= c.spread:
            raise QevoError(
                f"spread must lie in {least:.4f}..{most:.4f} and hold the margin of {others} "
                f"levels, got spread {c.spread} and margin {c.margin}"
            )
        if not 0 < c.rate <= 16 or not 0 <= c.final_rate <= 1 or not 1 <= c.schedule < 1 << 20:
            raise QevoError(
                "rate must lie in 0..16, final_rate in 0..1 and schedule in 1..2**20, got "
                f"{c.rate}, {c.final_rate}, {c.schedule}"
            )

    def start(self, key: jax.Array) -> CoevolutionState:
        """Every table holds most of its mass on the starting level."""
        space = self.space
        tables, uncertainty = jax.jit(self._fresh)(space.start, space.low, space.high)
        return CoevolutionState(
            tables=tables,
            centre=space.start,
            uncertainty=uncertainty,
            start=space.start,
            low=space.low,
            high=space.high,
            generation=jnp.int32(0),
        )

    def context(self, state: CoevolutionState) -> jax.Array:
        """The most likely level of every gene, int8 ``[N]``."""
        return state.centre

    def propose(self, key: jax.Array, state: CoevolutionState) -> tuple[Proposal, CoevolutionState]:
        """Draw S groups of genes and P candidates from their tables."""
        key_positions, key_levels = jax.random.split(key)
        subgroups = self.config.subgroups
        positions, place, within = self._positions(key_positions, self._weights(state))
        tables = state.tables.at[positions].get(mode="clip").astype(jnp.int32)
        centre = state.centre.at[positions].get(mode="clip")

        def sample(key: jax.Array, tables: jax.Array, centre: jax.Array) -> jax.Array:
            level = table_levels(
                key, tables, self.population_size // subgroups, antithetic=self.config.antithetic
            )
            return centre + level - jnp.int8(self.config.radius)

        values = jax.vmap(sample)(jax.random.split(key_levels, subgroups), tables, centre)
        values = values.reshape(self.population_size, self.group)
        return Proposal(positions, values, place, within), state

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: CoevolutionState
    ) -> tuple[CoevolutionState, Metrics]:
        """Move the tables of the groups' genes by rank, then their windows to the new centres."""
        c = self.config
        positions = proposal.positions
        flat = positions.reshape(-1)
        weights = rank_weights(fitness.reshape(c.subgroups, -1))
        values = proposal.values.reshape(c.subgroups, -1, self.group)
        centre = state.centre.at[positions].get(mode="clip")
        level = values - (centre - jnp.int8(c.radius))[:, None, :]
        # One fused reduction a level: no [P, G] int32 array, no integer matrix product.
        votes = jnp.stack(
            [
                jnp.sum(jnp.where(level == index, weights[:, :, None], 0), axis=1)
                for index in range(self.levels)
            ],
            axis=-1,
        ).reshape(-1, self.levels)

        centre = centre.reshape(-1)
        low = state.low.at[flat].get(mode="clip")
        high = state.high.at[flat].get(mode="clip")
        tables = state.tables.at[flat].get(mode="clip").astype(jnp.int32)
        tables = tables + self._step(votes, state.generation)
        allowed = self._allowed(centre, low, high)
        tables = self._normalise(tables, allowed, spare_centre=False)
        tables, moved = self._recentre(tables, centre, low, high)
        uncertainty = TABLE_TOTAL - tables[:, c.radius]
        state = dataclasses.replace(
            state,
            tables=state.tables.at[flat].set(tables.astype(jnp.int16), mode="drop"),
            centre=state.centre.at[flat].set(moved, mode="drop"),
            uncertainty=state.uncertainty.at[flat].set(uncertainty.astype(jnp.int16), mode="drop"),
            generation=state.generation + 1,
        )
        return state, self._metrics(state, flat, moved != centre)

    def _weights(self, state: CoevolutionState) -> jax.Array:
        """How strongly each gene is drawn, int32 ``[N]``; the sum stays below 2**31."""
        movable = state.uncertainty > 0
        grouping = self.config.grouping
        if grouping == "random":
            return movable.astype(jnp.int32)
        if grouping == "top_k":
            wanted = self.group * self.config.subgroups
            return (state.uncertainty >= self._threshold(state.uncertainty, wanted)) & movable
        return (state.uncertainty.astype(jnp.int32) >> self.weight_shift) + movable

    def _positions(
        self, key: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, Place | None, jax.Array | None]:
        """The genes to change, int32 ``[S, G]``; with blocks, their block and places in it."""
        space, subgroups = self.space, self.config.subgroups
        if self.config.grouping != "block":
            return weighted_positions(key, weights, subgroups, self.group), None, None
        key_place, key = jax.random.split(key)
        place = blocks.draw_place(key_place, space, weights)

        def draw(block: Block) -> jax.Array:
            here = blocks.genes_at(space, block, place.channel, weights)
            return weighted_positions(key, here, subgroups, self.group)

        positions, within = blocks.draw_at(space, place, draw)
        return positions, place, within

    def _threshold(self, uncertainty: jax.Array, wanted: int) -> jax.Array:
        """The largest uncertainty that at least ``wanted`` genes reach, int16 ``[]``; or 0."""

        def enough(bound: jax.Array) -> jax.Array:
            return jnp.sum(uncertainty >= bound, dtype=jnp.int32) >= wanted

        return largest_limit(enough, TABLE_BITS, jnp.int16)

    def _step(self, votes: jax.Array, generation: jax.Array) -> jax.Array:
        """Mass to add to every level, int32 ``[genes, L]``; votes sum to zero over levels."""
        past = jnp.minimum(generation, self.config.schedule)
        share = (past << 10) // self.config.schedule
        rate = self.first_rate - ((self.first_rate - self.last_rate) * share >> 10)
        return (votes * rate + (1 << (self.rate_bits - 1))) >> self.rate_bits

    def _allowed(self, centre: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        """Which levels of the window the bounds allow, bool ``[genes, L]``."""
        radius = self.config.radius
        window = jnp.arange(-radius, radius + 1, dtype=jnp.int32)
        level = centre.astype(jnp.int32)[:, None] + window
        return (level >= low[:, None]) & (level <= high[:, None])

    def _fresh(
        self, centre: jax.Array, low: jax.Array, high: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Tables int16 ``[genes, L]``: off the centre, every allowed level holds its share."""
        allowed = self._allowed(centre, low, high)
        tables = jnp.where(allowed, self.spread // (self.levels - 1), 0)
        tables = tables.at[:, self.config.radius].set(0)
        rest = jnp.sum(tables, axis=1, dtype=jnp.int32)
        tables = tables.at[:, self.config.radius].set(TABLE_TOTAL - rest)
        return tables.astype(jnp.int16), rest.astype(jnp.int16)

    def _normalise(self, tables: jax.Array, allowed: jax.Array, *, spare_centre: bool) -> jax.Array:
        """`settle` with the centre paying first, or with ``spare_centre`` last."""
        weight = 0 if spare_centre else 2 * TABLE_TOTAL
        return settle(tables, allowed, self.margin, (self.config.radius, weight))

    def _recentre(
        self, tables: jax.Array, centre: jax.Array, low: jax.Array, high: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Shift each window so that its largest level is the centre; a tie keeps the centre."""
        radius, levels = self.config.radius, self.levels
        best = jnp.argmax(tables, axis=1).astype(jnp.int32)
        stay = jnp.max(tables, axis=1) == tables[:, radius]
        shift = jnp.where(stay, 0, best - radius)
        source = jnp.arange(levels, dtype=jnp.int32) + shift[:, None]
        inside = (source >= 0) & (source < levels)
        shifted = jnp.where(
            inside, jnp.take_along_axis(tables, jnp.clip(source, 0, levels - 1), axis=1), 0
        )
        moved = (centre.astype(jnp.int32) + shift).astype(jnp.int8)
        # Mass that leaves the window goes to the new centre.
        lost = TABLE_TOTAL - jnp.sum(shifted, axis=1, dtype=jnp.int32)
        shifted = shifted.at[:, radius].add(lost)
        # The levels that are new in the window must not cost the centre its lead.
        allowed = self._allowed(moved, low, high)
        return self._normalise(shifted, allowed, spare_centre=True), moved

    def _metrics(self, state: CoevolutionState, positions: jax.Array, moved: jax.Array) -> Metrics:
        """Drift of the run, int32 scalars."""
        movable = state.low < state.high
        away = state.centre != state.start
        edge = (state.centre == state.low) | (state.centre == state.high)
        quarter = state.uncertainty.astype(jnp.int32) >> self.weight_shift
        uncertain = jnp.sum(quarter, dtype=jnp.int32)
        return {
            "changed": jnp.sum(away, dtype=jnp.int32),
            "moved": jnp.sum(moved & (positions < self.space.size), dtype=jnp.int32),
            "at_bound": jnp.sum(edge & away & movable, dtype=jnp.int32),
            "confidence": TABLE_TOTAL
            - (uncertain // self.space.size << self.weight_shift),  # mean mass on the centre
        }

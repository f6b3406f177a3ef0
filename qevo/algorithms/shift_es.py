"""Shift evolution strategy: move a few genes to neighbouring levels and keep what helps.

After the setting of Pietroń, *Evolutionary fine tuning of quantized convolution-based deep learning
models*, arXiv 2605.05228: a small share of the weights moves to neighbouring levels in each
generation, layers in the order of their sensitivity. The share adjusts itself by the rule of Doerr,
Gießen, Witt and Yang, *The (1+λ) evolutionary algorithm with self-adjusting mutation rate*,
Algorithmica 2019, or is drawn from a heavy-tailed law for each mutant (Doerr, Le, Makhmara and
Nguyen, *Fast genetic algorithms*, GECCO 2017); candidates are selected in stages on growing data,
as in Sieberling et al. 2024 (EvoPress). The constants are ours.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core import blocks
from qevo.core.algorithm import Algorithm
from qevo.core.blocks import Place
from qevo.core.mutation import (
    ONE,
    level_shifts,
    mutable_positions,
    power_law,
    power_law_shares,
    used_slots,
)
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal
from qevo.core.random import bits16
from qevo.core.selection import Stage, check_stages
from qevo.core.settings import Settings
from qevo.core.space import Block, Space
from qevo.errors import QevoError

Mutation = Literal["two-rate", "heavy-tailed"]


@dataclasses.dataclass(frozen=True)
class ShiftConfig(Settings):
    """Settings of the shift evolution strategy; every default was chosen by experiment here."""

    population: int = 64
    """Candidates per generation (P), the parent among them."""
    slots: int = 256
    """The most genes that a candidate may shift (G)."""
    shifted: float = 8.0
    """Genes that a candidate shifts on average, at first; the number adjusts itself, to at most a
    quarter of the slots. Heavy-tailed mutation has no use for it."""
    mutation: Mutation = "two-rate"
    """How many genes a mutant shifts: the number adjusts itself, half the mutants taking half and
    half double; or it is drawn for each mutant from a power law up to half the genes or the slots,
    which needs no tuning and leaves local optima."""
    exponent: float = 1.5
    """Of the power law; 1.5 is what Doerr et al. 2017 recommend."""
    levels: int = 1
    """The largest shift; each further level is half as likely."""
    neutral: bool = False
    """Whether a candidate that is as good as the parent replaces it, to cross plateaus."""
    siblings: int = 2
    """The parent's best siblings, each of which gives a candidate with its shifts on top of the
    parent's."""
    stages: tuple[tuple[int, int], ...] = ()
    """Selection on growing data: pairs of candidates and rows of the batch, the whole population
    first and the whole batch last; none to score all candidates on the whole batch."""
    order: tuple[int, ...] = ()
    """Blocks of the space to search one after the other, again and again; all genes at once where
    there are none."""
    turn: int = 10
    """Generations that each block of the order has in its turn."""


@struct.dataclass
class ShiftState:
    """Integer state."""

    parent: jax.Array  # int8 [N]
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    start: jax.Array  # int8 [N]
    share: jax.Array  # int32 [], of the slots that a mutant uses on average, in 1/65536; two-rate
    sibling_positions: jax.Array  # int32 [siblings, G]; N is padding
    sibling_values: jax.Array  # int8 [siblings, G]
    sibling_within: jax.Array  # int32 [siblings, G], with an order: their places in its block
    sibling_place: Place  # where they were made; the first block without an order
    generation: jax.Array  # int32 []


class ShiftES(Algorithm):
    """An elitist (1 + P - 1) strategy over shifts of single genes.

    The first candidate is the parent, scored anew on the generation's data with all others. The
    next ones cross it with the best siblings that it was not made of, while the search stays where
    they were made. All others shift a binomial number of genes. With two rates, half of them take
    half the current share of slots and half take double; the share moves to that of the best one,
    or at random. The best candidate becomes the parent.
    """

    def __init__(self, space: Space, config: ShiftConfig | None = None):
        config = config or ShiftConfig()
        super().__init__(space, config.population)
        self.config = config
        self.stages = tuple(Stage(*stage) for stage in config.stages)
        self.spared = 1
        self._check()
        movable = space.count_movable()
        self.all_movable = movable == space.size
        self.slots = min(config.slots, movable)
        self.law = power_law(max(min(self.slots, movable // 2), 1), config.exponent)
        self.most = ONE // 4
        self.least = max(ONE // self.slots, 1)
        first = round(config.shifted * ONE / self.slots)
        self.first = min(max(first, self.least), self.most)

    def _check(self) -> None:
        c = self.config
        check_stages(self.stages, c.population, self.spared)
        if c.siblings < 0 or c.population < c.siblings + 3:
            raise QevoError(
                f"a population of {c.population} has no room for the parent, {c.siblings} crossed "
                "candidates and at least 2 mutated ones"
            )
        if not 1 <= c.slots <= ONE or not 0 < c.shifted <= c.slots:
            raise QevoError(
                f"slots must be 1 to {ONE} and hold the shifted genes, got {c.slots} and "
                f"{c.shifted}"
            )
        if c.mutation not in get_args(Mutation):
            raise QevoError(
                f"mutation must be one of {', '.join(get_args(Mutation))}, got {c.mutation!r}"
            )
        if not 1 <= c.levels <= 15 or c.turn < 1:
            raise QevoError(
                f"levels must be 1 to 15 and turn at least 1, got {c.levels} and {c.turn}"
            )
        count = len(self.space.blocks)
        if any(not 0 <= block < count for block in c.order):
            raise QevoError(f"order {c.order} names blocks that are not among the space's {count}")
        movable = np.asarray(self.space.low < self.space.high)
        everything = blocks.everything(self.space)
        for block in [self.space.blocks[number] for number in c.order] or [everything]:
            leaves = [self.space.layout[index] for index in block.leaves]
            if not any(movable[leaf.offset : leaf.offset + leaf.size].any() for leaf in leaves):
                raise QevoError(
                    "no gene can move: low equals high in "
                    + ", ".join(leaf.name for leaf in leaves)
                )

    def start(self, key: jax.Array) -> ShiftState:
        """The space's start as the parent."""
        space, siblings = self.space, (self.config.siblings, self.slots)
        return ShiftState(
            parent=space.start,
            low=space.low,
            high=space.high,
            start=space.start,
            share=jnp.int32(self.first),
            sibling_positions=jnp.full(siblings, space.size, jnp.int32),
            sibling_values=jnp.zeros(siblings, jnp.int8),
            sibling_within=jnp.zeros(siblings, jnp.int32),
            sibling_place=Place(jnp.int32(0), jnp.int32(0)),
            generation=jnp.int32(0),
        )

    def context(self, state: ShiftState) -> jax.Array:
        """The parent, int8 ``[N]``."""
        return state.parent

    def propose(self, key: jax.Array, state: ShiftState) -> tuple[Proposal, ShiftState]:
        """The parent, its crossings, and its mutants."""
        key_positions, key_use, key_shift = jax.random.split(key, 3)
        crossed, size = self.config.siblings, self.space.size
        mutants = self.population_size - 1 - crossed
        positions, place, within = self._positions(key_positions, state, mutants)

        if self.config.mutation == "two-rate":
            share = jnp.where(jnp.arange(mutants) % 2, state.share * 2, state.share // 2)
        else:
            key_share = jax.random.fold_in(key_use, 1)
            share = power_law_shares(bits16(key_share, (mutants,)), self.law, self.slots)
        # At least one: the slots' places are drawn at random.
        used = used_slots(bits16(key_use, (mutants, self.slots)), share).at[:, 0].set(True)
        values = self._shift(key_shift, state, positions)
        positions = jnp.where(used, positions, size)

        nothing = jnp.full((1, self.slots), size, jnp.int32)
        siblings = state.sibling_positions
        values = jnp.concatenate([jnp.zeros_like(values[:1]), state.sibling_values, values])
        if place is None or within is None:
            return Proposal(jnp.concatenate([nothing, siblings, positions]), values), state
        there = state.sibling_place
        here = (place.block == there.block) & (place.channel == there.channel) & (siblings < size)
        siblings = jnp.where(here, siblings, size)
        positions = jnp.concatenate([nothing, siblings, positions])
        block_size = self._block_sizes()[place.block]
        older = jnp.where(here, state.sibling_within, block_size)
        mutated = jnp.where(used, within, block_size)
        within = jnp.concatenate([jnp.full_like(nothing, block_size), older, mutated])
        return Proposal(positions, values, place, within), state

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: ShiftState
    ) -> tuple[ShiftState, Metrics]:
        """Keep the best candidate, its best siblings, and the share that made the best mutant."""
        crossed, size = self.config.siblings, self.space.size
        # The parent goes before its equals or, with neutral moves, mutants go before theirs.
        first = 1 + crossed if self.config.neutral else 0
        ranked = jnp.argsort(jnp.roll(fitness, -first), stable=True) + first
        ranked %= fitness.shape[0]
        winner = ranked[0]
        row = proposal.positions[winner]
        parent = state.parent.at[row].set(proposal.values[winner], mode="drop")
        moved = jnp.sum(parent != state.parent, dtype=jnp.int32)

        # Siblings worth crossing beat the old parent too.
        siblings = ranked[1 : 1 + crossed]
        good = fitness[siblings] < fitness[0]
        positions = jnp.where(good[:, None], proposal.positions[siblings], size)

        # Of equal mutants a random one counts: the first would always have half the share.
        mutants = fitness[1 + crossed :]
        lots = bits16(jax.random.fold_in(key, 1), mutants.shape).astype(jnp.int32)
        best = jnp.argmax(jnp.where(mutants == jnp.min(mutants), lots, -1))
        follow, rise = jax.random.bits(key, (2,), jnp.uint8) & 1
        doubled = jnp.where(follow == 1, best % 2 == 1, rise == 1)
        share = jnp.where(doubled, state.share * 2, state.share // 2)
        state = dataclasses.replace(
            state,
            parent=parent,
            share=jnp.clip(share, self.least, self.most),
            sibling_positions=positions,
            sibling_values=proposal.values[siblings],
            generation=state.generation + 1,
        )
        if proposal.place is not None and proposal.within is not None:
            state = dataclasses.replace(
                state,
                sibling_within=proposal.within[siblings],
                sibling_place=proposal.place,
            )
        away = jnp.sum(parent != state.start, dtype=jnp.int32)
        return state, {
            "changed": away,
            "moved": moved,
            "crossed": ((winner > 0) & (winner <= crossed)).astype(jnp.int32),
            "shifted": state.share * self.slots >> 16,
        }

    def _positions(
        self, key: jax.Array, state: ShiftState, count: int
    ) -> tuple[jax.Array, Place | None, jax.Array | None]:
        """Genes that each of some mutants may shift, int32 ``[count, G]``; all can move.

        With an order, their block and their places in it too.
        """
        space = self.space
        movable = (state.low < state.high).astype(jnp.int32)
        key_place, key = jax.random.split(key)

        def draw(movable: jax.Array) -> jax.Array:
            weights = None if self.all_movable else movable
            return mutable_positions(key, weights, movable.shape[0], count, self.slots)

        if not self.config.order:
            return draw(movable), None, None
        turn = state.generation // self.config.turn % len(self.config.order)
        current = jnp.asarray(self.config.order, jnp.int32)[turn]
        place = blocks.draw_place(key_place, space, movable * self._members(current))

        def within_block(block: Block) -> jax.Array:
            return draw(blocks.genes_at(space, block, place.channel, movable))

        positions, within = blocks.draw_at(space, place, within_block)
        return positions, place, within

    def _members(self, current: jax.Array) -> jax.Array:
        """Which genes lie in a block, int32 ``[N]``."""
        homes = {leaf: n for n, block in enumerate(self.space.blocks) for leaf in block.leaves}
        parts = [
            jnp.broadcast_to((current == homes[index]).astype(jnp.int32), (leaf.size,))
            for index, leaf in enumerate(self.space.layout)
        ]
        return jnp.concatenate(parts)

    def _block_sizes(self) -> jax.Array:
        sizes = [blocks.size(self.space, block) for block in self.space.blocks]
        return jnp.asarray(sizes, jnp.int32)

    def _shift(self, key: jax.Array, state: ShiftState, positions: jax.Array) -> jax.Array:
        """New levels int8 of the genes at some positions, one or more away from the parent's."""
        parts = (state.parent, state.low, state.high)
        old, low, high = (part.at[positions].get(mode="clip") for part in parts)
        return level_shifts(bits16(key, old.shape), old, low, high, self.config.levels)

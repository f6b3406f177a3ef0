"""Vote evolution strategy: mirrored sparse steps of one level, and a test before any gene moves.

Votes of mirrored pairs, a threshold of so many standard deviations and a falling share of moved
genes are the recipe of integer EGGROLL (Sarkar et al., *Evolution Strategies at the Hyperscale*,
arXiv 2511.16652); what has not moved a gene is kept, with decay, as the error feedback of QES (Xu,
Miikkulainen and Qiu, *Quantized Evolution Strategies*, arXiv 2602.03120). Here the kept votes face
the test, against the deviation that fair coins would have. Sparse positions, steps of exactly one
level, fixed point and the constants are ours, but for the decays, which are those of the two.
"""

from __future__ import annotations

import dataclasses
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.algorithm import Algorithm
from qevo.core.mutation import mutable_positions
from qevo.core.problem import Metrics
from qevo.core.proposal import Proposal
from qevo.core.random import coin_flips
from qevo.core.settings import Settings
from qevo.core.space import Space
from qevo.errors import QevoError

_VOTE = 1 << 6  # one vote in fixed point, and one vote's variance
_MOST_VOTES = 1 << 8  # what a gene keeps at most, so that squares and products fit an int32
_SQUARE = 1 << 4  # squared thresholds in fixed point
_THRESHOLDS = 1 << 12  # generations that have a threshold of their own; later ones keep the last


@dataclasses.dataclass(frozen=True)
class VoteConfig(Settings):
    """Settings of the vote evolution strategy."""

    population: int = 64
    """Candidates per generation (P), in mirrored pairs; 512 at most."""
    group: int = 64
    """Genes that a pair shifts (G), drawn for each pair; capped by the genes that can move."""
    chance: float = 0.05
    """Share of the tested genes that would move at first if all votes were fair coins."""
    chance_decay: float = 0.015
    """That share falls as 1 / (1 + chance_decay t) with the generation t."""
    memory: float = 0.9
    """Share of a gene's votes that it keeps until the next generation."""
    least: int = 2
    """The fewest votes that may move a gene."""


@struct.dataclass
class VoteState:
    """Integer state; every array has N rows."""

    parent: jax.Array  # int8 [N]
    votes: (
        jax.Array
    )  # int16 [N], kept votes for a higher level, less those for a lower one, in 1/64
    variance: jax.Array  # int16 [N], what they would vary by if they were fair coins, in 1/64
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    generation: jax.Array  # int32 []


class VoteES(Algorithm):
    """Shift G genes by a level up or down, the mirrored way too, and let the better one vote.

    Each pair of candidates draws G genes and a direction for each. One of the pair takes a step
    that way, the other one against it; a step that would leave the bounds is not taken. The better
    candidate's directions are its votes; a tie has none. A gene's votes add up over pairs and, with
    decay, generations; it moves by one level where they are more than chance would explain, and
    starts again from none.
    """

    def __init__(self, space: Space, config: VoteConfig | None = None):
        config = config or VoteConfig()
        super().__init__(space, config.population)
        self.config = config
        movable = space.count_movable()
        self._check()
        self.all_movable = movable == space.size
        self.group = min(config.group, movable)
        self.memory = round(config.memory * _VOTE)
        self.squares = _squared_thresholds(config.chance, config.chance_decay)

    def _check(self) -> None:
        c = self.config
        if c.population % 2 or not 2 <= c.population <= 2 * _MOST_VOTES:
            raise QevoError(
                f"a population of mirrored pairs is even and at most {2 * _MOST_VOTES}, got "
                f"{c.population}"
            )
        if c.group < 1 or c.least < 1:
            raise QevoError(f"group and least must be at least 1, got {c.group} and {c.least}")
        if not 0 < c.chance < 1 or c.chance_decay < 0 or not 0 <= c.memory < 1:
            raise QevoError(
                "chance must lie in 0..1, chance_decay be at least 0 and memory lie in 0..1, below "
                f"1, got {c.chance}, {c.chance_decay} and {c.memory}"
            )

    def start(self, key: jax.Array) -> VoteState:
        """The space's start, without a vote."""
        space = self.space
        return VoteState(
            parent=space.start,
            votes=jnp.zeros(space.size, jnp.int16),
            variance=jnp.zeros(space.size, jnp.int16),
            low=space.low,
            high=space.high,
            generation=jnp.int32(0),
        )

    def context(self, state: VoteState) -> jax.Array:
        """The parent, int8 ``[N]``."""
        return state.parent

    def propose(self, key: jax.Array, state: VoteState) -> tuple[Proposal, VoteState]:
        """Mirrored pairs, a row of positions for each."""
        key_positions, key_directions = jax.random.split(key)
        pairs = self.population_size // 2
        movable = None if self.all_movable else (state.low < state.high).astype(jnp.int32)
        positions = mutable_positions(key_positions, movable, self.space.size, pairs, self.group)
        direction = 2 * coin_flips(key_directions, pairs, self.group).astype(jnp.int32) - 1
        old, low, high = (
            part.at[positions].get(mode="clip").astype(jnp.int32)
            for part in (state.parent, state.low, state.high)
        )
        steps = jnp.stack([direction, -direction], axis=1)
        values = jnp.clip(old[:, None] + steps, low[:, None], high[:, None]).astype(jnp.int8)
        return Proposal(positions, values.reshape(2 * pairs, -1)), state

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: VoteState
    ) -> tuple[VoteState, Metrics]:
        """Count the votes, and move the genes that have enough."""
        c, positions = self.config, proposal.positions
        first, second = fitness[::2], fitness[1::2]
        winner = (first < second).astype(jnp.int32) - (first > second)
        before = state.parent.at[positions].get(mode="clip").astype(jnp.int32)
        first_step, second_step = (
            proposal.values[which::2].astype(jnp.int32) - before for which in (0, 1)
        )
        direction = jnp.sign(first_step - second_step)
        cast = winner[:, None] * direction * _VOTE
        heard = jnp.where((winner != 0)[:, None], jnp.abs(direction) * _VOTE, 0)

        votes = state.votes.astype(jnp.int32) * self.memory
        votes = jnp.sign(votes) * (jnp.abs(votes) // _VOTE)
        variance = state.variance.astype(jnp.int32) * self.memory**2 // _VOTE**2
        votes = votes.at[positions].add(cast, mode="drop")
        variance = variance.at[positions].add(heard, mode="drop")
        bound = _MOST_VOTES * _VOTE
        votes, variance = jnp.clip(votes, -bound, bound), jnp.minimum(variance, bound - 1)

        # votes**2 >= z**2 variance, both sides in units of 1 / (_VOTE * _SQUARE).
        square = jnp.asarray(self.squares)[jnp.minimum(state.generation, _THRESHOLDS - 1)]
        sure = votes * votes // (_VOTE // _SQUARE) >= square * variance
        sure &= jnp.abs(votes) >= c.least * _VOTE
        parent = state.parent.astype(jnp.int32)
        after = jnp.clip(parent + jnp.where(sure, jnp.sign(votes), 0), state.low, state.high)
        state = dataclasses.replace(
            state,
            parent=after.astype(jnp.int8),
            votes=jnp.where(sure, 0, votes).astype(jnp.int16),
            variance=jnp.where(sure, 0, variance).astype(jnp.int16),
            generation=state.generation + 1,
        )
        return state, {
            "moved": jnp.sum(after != parent, dtype=jnp.int32),
            "ties": jnp.sum(winner == 0, dtype=jnp.int32),
        }


def _squared_thresholds(chance: float, decay: float) -> np.ndarray:
    """For each generation, the square that a normal value passes with its chance, int32 in 1/16."""
    normal = statistics.NormalDist()
    shares = (chance / (1 + decay * t) for t in range(_THRESHOLDS))
    squares = [round(normal.inv_cdf(share / 2) ** 2 * _SQUARE) for share in shares]
    return np.asarray(squares, np.int32)

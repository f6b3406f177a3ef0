"""Tabu search: always the best move that does not undo a recent one, and kicks out of dead ends.

Glover 1989; tenure and aspiration as in Glover, Lü and Hao, *Diversification-driven tabu search for
unconstrained binary quadratic problems*, 4OR 2010; the kicks after Benlic and Hao, *Breakout local
search for the max-cut problem*, Eng. Appl. Artif. Intell. 2013, simplified to random moves.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qevo.algorithms.local_search import ChainConfig, Journal, LocalSearch
from qevo.core.moves import MoveProblem, least_at_random
from qevo.core.selection import WORST
from qevo.errors import QevoError


@dataclasses.dataclass(frozen=True)
class TabuConfig(ChainConfig):
    """Settings of tabu search."""

    tenure: int | None = None
    """Moves for which a gene may not go back, at least; N // 40 by default."""
    tenure_spread: int | None = None
    """Up to so many moves more, uniformly; N // 12 by default."""
    patience: int = 1000
    """Moves without a solution better than any since the last kick, before the next one."""
    kick: int | None = None
    """Random moves of a kick, at least one and at most so many; N // 8 by default."""


class _Walk(NamedTuple):
    """Where a chain is."""

    genes: jax.Array  # int8 [N]
    moves: Any  # the problem's state
    free: jax.Array  # int32 [N] or [N, L], the first move at which one is no longer tabu
    total: jax.Array  # int32 [], fitness less that of the chain's start
    best: jax.Array  # int32 [], the least total
    local: jax.Array  # int32 [], the least total since the last kick
    idle: jax.Array  # int32 [], moves since then
    kick: jax.Array  # int32 [], random moves left to make


class TabuSearch(LocalSearch):
    """Every chain makes the best move of all, ties broken at random.

    A move that would take a gene back to a level it has left lately is not made, unless it leads
    to a solution better than any of the chain in this generation. Each generation begins with
    nothing forbidden.
    """

    needs = MoveProblem
    config: TabuConfig

    def __init__(self, problem: MoveProblem, config: TabuConfig | None = None):
        config = config or TabuConfig()
        super().__init__(problem, config)
        space = problem.space
        if np.asarray(space.low == space.high).any():
            raise QevoError("tabu search needs genes that can all move: some have low equal high")
        size = space.size

        def default(value: int | None, otherwise: int) -> int:
            return otherwise if value is None else value

        self.spread = default(config.tenure_spread, size // 12)
        self.kick = default(config.kick, max(size // 8, 1))
        self.tenure = default(config.tenure, size // 40)
        if min(self.tenure, self.spread) < 0 or min(config.patience, self.kick) < 1:
            raise QevoError(
                "tenure and its spread must be at least 0, patience and kick at least 1, got "
                f"{self.tenure}, {self.spread}, {config.patience} and {self.kick}"
            )
        if self.tenure + self.spread >= size:
            raise QevoError(
                f"a tenure of up to {self.tenure + self.spread} moves leaves none of {size} genes "
                "free to move"
            )

    def walk(
        self, key: jax.Array, genes: jax.Array, generation: jax.Array
    ) -> tuple[jax.Array, Journal]:
        """Moves, each the best one that is free."""
        problem, count = self.problem, self.config.moves
        state = problem.moves(genes)
        zero = jnp.int32(0)
        free = jnp.zeros(state.change.shape, jnp.int32)
        first = _Walk(genes, state, free, zero, zero, zero, zero, zero)
        draws = jax.random.bits(key, (count, 2), jnp.uint32)
        times = jnp.arange(count, dtype=jnp.int32)
        last, entries = jax.lax.scan(self._step, first, (times, draws))
        return last.genes, Journal.of(entries)

    def _step(self, walk: _Walk, at: tuple[jax.Array, jax.Array]) -> tuple[_Walk, jax.Array]:
        """One move."""
        time, draws = at
        config, space = self.config, self.problem.space
        low = space.low.astype(jnp.int32)
        change, genes = walk.moves.change, walk.genes
        open_ = (walk.free <= time) | (walk.total + change < walk.best)
        if change.ndim == 2:
            level = jnp.arange(change.shape[1], dtype=jnp.int32)
            open_ &= level != (genes - low)[:, None]
        chosen = least_at_random(jnp.where(open_, change, WORST), draws[0])
        kicked = walk.kick > 0
        levels = 1 if change.ndim == 1 else change.shape[1]
        position, level = chosen // levels, chosen % levels
        random = (draws[1] % np.uint32(space.size)).astype(jnp.int32)
        position = jnp.where(kicked, random, position)
        old = genes[position].astype(jnp.int32)
        here = low[position]
        if change.ndim == 1:
            value, delta = 2 * here + 1 - old, change[position]
            forbidden = position
        else:
            top = space.high[position].astype(jnp.int32) - here
            other = 1 + (draws[0] % top.astype(jnp.uint32)).astype(jnp.int32)
            level = jnp.where(kicked, (old - here + other) % (top + 1), level)
            value, delta = here + level, change[position, level]
            forbidden = (position, old - here)
        tenure = self.tenure + (draws[1] >> 16).astype(jnp.int32) % (self.spread + 1)
        total = walk.total + delta
        left = jnp.maximum(walk.kick - 1, 0)
        # The search since a kick begins when its last random move is made.
        improved = (total < walk.local) | (walk.kick == 1)
        idle = jnp.where(improved | kicked, 0, walk.idle + 1)
        due = idle >= config.patience
        strength = 1 + (draws[1] >> 8).astype(jnp.int32) % self.kick
        moved = _Walk(
            genes=genes.at[position].set(value.astype(jnp.int8)),
            moves=self.problem.move(genes, walk.moves, position, value.astype(jnp.int8)),
            free=walk.free.at[forbidden].set(time + 1 + tenure),
            total=total,
            best=jnp.minimum(total, walk.best),
            local=jnp.where(improved, total, walk.local),
            idle=jnp.where(due, 0, idle),
            kick=jnp.where(due, strength, left),
        )
        return moved, Journal.entry(position, value, total)

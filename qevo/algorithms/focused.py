"""Focused search: flip a gene of a random violated constraint, rather one that breaks few others.

probSAT of Balint and Schöning, *Choosing probability distributions for stochastic local search and
the role of make versus break*, SAT 2012; its distribution is a table of integers here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qevo.algorithms.local_search import ChainConfig, Journal, LocalSearch
from qevo.core.moves import FocusedProblem, weighted_choice
from qevo.errors import QevoError

_ONE = 1 << 20  # weight of a flip that breaks nothing
_LIMIT = 64  # more broken constraints than that weigh as many


@dataclasses.dataclass(frozen=True)
class FocusedConfig(ChainConfig):
    """Settings of focused search."""

    moves: int = 20_000
    """Moves of a chain in a generation."""
    exponent: float = 2.3
    """A flip that breaks b constraints weighs ``(offset + b) ** -exponent``. The polynomial of
    Balint and Schöning 2012 for 3-SAT, with their values."""
    offset: float = 0.9
    """See `exponent`."""
    base: float | None = None
    """With a base, a flip weighs ``base ** -b`` instead, as they have it for longer clauses."""


class FocusedSearch(LocalSearch):
    """Every chain picks a random violated constraint and flips one of its genes.

    A solution that violates nothing ends no chain: it goes on at random, and its best stays known.
    """

    needs = FocusedProblem
    config: FocusedConfig

    def __init__(self, problem: FocusedProblem, config: FocusedConfig | None = None):
        config = config or FocusedConfig()
        super().__init__(problem, config)
        if config.offset <= 0 or (config.base is not None and config.base <= 1):
            raise QevoError(
                f"offset must be above 0 and base above 1, got {config.offset} and {config.base}"
            )
        if not 0 <= config.exponent < math.inf:
            raise QevoError(f"exponent must be 0 or more, got {config.exponent}")
        broken = np.arange(_LIMIT + 1, dtype=np.float64)
        if config.base is None:
            odds = ((config.offset + broken) / config.offset) ** -config.exponent
        else:
            odds = config.base**-broken
        self.odds = np.maximum(np.round(odds * _ONE), 1).astype(np.int32)

    def walk(
        self, key: jax.Array, genes: jax.Array, generation: jax.Array
    ) -> tuple[jax.Array, Journal]:
        """Flips, each in a violated constraint."""
        problem, size = self.problem, self.space.size
        odds = jnp.asarray(self.odds)
        state = problem.focused(genes)
        before = state.fitness

        def step(walk: tuple[jax.Array, Any], draws: jax.Array) -> Any:
            genes, state = walk
            positions, breaks = problem.focus(genes, state, draws[0])
            spare = max((len(positions) - 1).bit_length() - 10, 0)  # the sum is below 2**31
            lower = jnp.maximum(odds >> spare, 1)
            weights = jnp.where(positions < size, lower[jnp.minimum(breaks, _LIMIT)], 0)
            position = positions[weighted_choice(weights, draws[1])[0]]
            value = (1 - genes[position]).astype(jnp.int8)
            state = problem.flip(genes, state, position)
            entry = Journal.entry(position, value, state.fitness - before)
            return (genes.at[position].set(value), state), entry

        draws = jax.random.bits(key, (self.config.moves, 2), jnp.uint32)
        (genes, _), entries = jax.lax.scan(step, (genes, state), draws)
        return genes, Journal.of(entries)

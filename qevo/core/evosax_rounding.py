"""evosax's own strategies on integer problems: float genes, rounded before they are scored.

For comparison: here the search does hold floating point.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from evosax.problems.problem import Problem as EvosaxProblem
from evosax.problems.problem import State as EvosaxState

from qevo.core.problem import Problem


class RoundedProblem(EvosaxProblem):
    """An evosax problem over float32 ``[N]``, in gene units, that scores what it rounds to.

    ``genes = clip(round(x), low, high)``. Fitness is float32, exact below 2**24.
    """

    def __init__(self, problem: Problem):
        self.problem = problem

    @property
    def num_dims(self) -> int:
        """N, the number of genes."""
        return self.problem.space.size

    # The base class jits these three, and its type checkers see that instead of methods.
    def init(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array
    ) -> EvosaxState:
        """State for an evosax loop."""
        return self.problem.init(key)

    def sample(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array
    ) -> jax.Array:
        """A point float32 ``[N]`` whose genes are uniform within the bounds."""
        return self.problem.space.encode(self.problem.sample(key)).astype(jnp.float32)

    def genes(self, point: jax.Array) -> jax.Array:
        """The genes int8 ``[..., N]`` that points float ``[..., N]`` are rounded to."""
        space = self.problem.space
        return jnp.clip(jnp.round(point), space.low, space.high).astype(jnp.int8)

    def solution(self, point: jax.Array) -> Any:
        """The decoded solution that a point float ``[N]`` is rounded to."""
        return self.problem.space.decode(self.genes(point))

    def eval(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array, solutions: jax.Array, state: EvosaxState
    ) -> tuple[jax.Array, EvosaxState, dict[str, jax.Array]]:
        """Fitness float32 ``[P]`` of points float ``[P, N]``."""
        fitness, state, info = self.problem.eval(key, jax.vmap(self.solution)(solutions), state)
        return fitness.astype(jnp.float32), state, info

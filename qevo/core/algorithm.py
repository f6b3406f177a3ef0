"""The contract of a search algorithm, and its face towards evosax."""

from __future__ import annotations

import copy
import dataclasses
import json
import operator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.evosax_base import EvolutionaryAlgorithm, Params
from qevo.core.problem import Metrics, Problem, missing
from qevo.core.proposal import Proposal
from qevo.core.selection import WORST, Stage
from qevo.core.space import INT32, Space
from qevo.errors import QevoError


@struct.dataclass
class AskTellState:
    """What an evosax loop carries: the algorithm's own state and an integer archive."""

    inner: Any
    proposal: Proposal
    best_solution: Any  # decoded
    best_fitness: jax.Array  # int32 []
    generation_counter: jax.Array  # int32 []

    def replace(self, **updates: Any) -> AskTellState:
        """A copy with the given fields replaced, as evosax's states offer it."""
        return dataclasses.replace(self, **updates)


class Algorithm(EvolutionaryAlgorithm):
    """A search over the genes of a `Space`; fitness is int32 and minimised.

    Subclasses write `start`, `propose`, `update` and `context`: pure functions of integer pytrees,
    which `qevo.evolve` compiles into one generation. `init`, `ask` and `tell` put the same
    algorithm into any evosax loop, where candidates are dense and int8 stays int8.

    Attributes:
      space: the search space.
      population_size: P.
      stages: how `qevo.evolve` scores a generation's candidates; all of them on the whole batch
        where there are none. An evosax loop scores all candidates in any case.
      spared: the first so many candidates go through all stages.
      config: a dataclass of all settings, or None.
    """

    stages: tuple[Stage, ...] = ()
    spared: int = 0
    config: Any = None
    _default_params = Params()

    def __init__(self, space: Space, population_size: int):
        if population_size < 1:
            raise QevoError(f"population_size must be at least 1, got {population_size}")
        self.space = space
        self.population_size = operator.index(population_size)
        self.num_dims = space.size
        self.elite_ratio = 1.0

    @property
    def solution_flat(self) -> jax.Array:
        """The starting genes, int8 ``[N]`` (evosax's name for them)."""
        return self.space.start

    def on(self, problem: Problem) -> Self:
        """The same search in a generation whose problem is a traced argument; `LocalSearch` needs
        it."""
        return self

    def start(self, key: jax.Array) -> Any:
        """The state before the first generation: a pytree of integers, checkpointed as it is.

        It may hold the space's own arrays; a run copies them.
        """
        raise missing(self, "start(key)")

    def propose(self, key: jax.Array, state: Any) -> tuple[Proposal, Any]:
        """The candidates of one generation, and the state with what `update` needs of them."""
        raise missing(self, "propose(key, state)")

    def update(
        self, key: jax.Array, proposal: Proposal, fitness: jax.Array, state: Any
    ) -> tuple[Any, Metrics]:
        """Learn from fitness int32 ``[P]``; also returns int32 scalars for the log."""
        raise missing(self, "update(key, proposal, fitness, state)")

    def context(self, state: Any) -> jax.Array:
        """The genes int8 ``[N]`` that this generation's candidates edit."""
        raise missing(self, "context(state)")

    def solution(self, state: Any) -> jax.Array:
        """The genes int8 ``[N]`` that the algorithm would answer with now."""
        return self.context(state)

    def describe(self) -> dict[str, Any]:
        """What a resumed run must share with the run that it continues (plain JSON values)."""
        known = {"type": type(self).__name__, "population_size": self.population_size}
        if self.stages:
            known |= {"stages": self.stages, "spared": self.spared}
        if self.config is not None:
            known |= dataclasses.asdict(self.config)
        return json.loads(json.dumps(known))  # tuples become lists

    # evosax: https://github.com/RobertTLange/evosax, version 0.3
    # The base class jits these three, and its type checkers see that instead of methods.
    def init(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array, solution: Any = None, params: Any = None
    ) -> AskTellState:
        """State for an evosax loop, at ``solution`` (cut to the bounds) or at the space's start.

        evosax calls this with (key, params), or (key, solution, params) where there is a mean; its
        params hold nothing here.
        """
        here = copy.copy(self)
        if jax.tree.leaves(solution):
            here.space = dataclasses.replace(self.space, start=self.space.encode(solution))
        inner = here.start(key)
        shape = jax.eval_shape(lambda: self.propose(key, inner)[0])
        return AskTellState(
            inner=inner,
            proposal=jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape),
            best_solution=self.space.decode(self.solution(inner)),
            best_fitness=jnp.int32(WORST),
            generation_counter=jnp.int32(0),
        )

    def ask(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array, state: AskTellState, params: Any = None
    ) -> tuple[Any, Any]:
        """Dense candidates: the decoded pytree with a leading axis P.

        Compiled once for an algorithm, which must not be changed after its first call.
        """
        return self._compiled("_candidates")(key, state)

    def tell(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array, population: Any, fitness: Any, state: Any, params: Any = None
    ) -> tuple[AskTellState, Metrics]:
        """Learn from the fitness of what the last `ask` returned; it must be integer.

        Raises:
          TypeError: it is not, or of a type that may leave int32.
          ValueError: fitness of numpy's integers or Python's leaves int32.
        """
        return self._compiled("_learn")(key, population, _int32(fitness), state)

    def _compiled(self, name: str) -> Any:
        """A method of this very object, jitted once; a copy has its own."""
        owner, known = self.__dict__.get("_programs", (None, {}))
        if owner is not self:
            known = {}
            self._programs = (self, known)
        if name not in known:
            known[name] = jax.jit(getattr(self, name))
        return known[name]

    def _candidates(self, key: jax.Array, state: AskTellState) -> tuple[Any, AskTellState]:
        proposal, inner = self.propose(key, state.inner)
        population = jax.vmap(self.space.decode)(proposal.apply(self.context(state.inner)))
        return population, state.replace(inner=inner, proposal=proposal)

    def _learn(
        self, key: jax.Array, population: Any, fitness: jax.Array, state: AskTellState
    ) -> tuple[AskTellState, Metrics]:
        winner = jnp.argmin(fitness)
        better = fitness[winner] < state.best_fitness
        best_solution = jax.tree.map(
            lambda new, old: jnp.where(better, new[winner], old), population, state.best_solution
        )
        inner, metrics = self.update(key, state.proposal, fitness, state.inner)
        state = state.replace(
            inner=inner,
            best_solution=best_solution,
            best_fitness=jnp.minimum(fitness[winner], state.best_fitness),
            generation_counter=state.generation_counter + 1,
        )
        archive = {
            "generation_counter": state.generation_counter,
            "best_fitness": state.best_fitness,
            "best_fitness_in_generation": fitness[winner],
        }
        return state, archive | metrics


def _int32(fitness: Any) -> jax.Array:
    """A fitness int32 ``[P]``; values are looked at where they are not JAX's, and so at hand."""
    if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(fitness)):
        fitness = np.asarray(fitness)
        if fitness.dtype.kind in "iu":
            low, high = int(fitness.min(initial=0)), int(fitness.max(initial=0))
            if low < INT32.min or high > INT32.max:
                raise ValueError(
                    f"fitness must lie in int32, got {low if low < INT32.min else high}: scale or "
                    "clip it"
                )
            fitness = fitness.astype(np.int32)
    fitness = jnp.asarray(fitness)
    if not jnp.issubdtype(fitness.dtype, jnp.integer) or not np.can_cast(fitness.dtype, np.int32):
        raise TypeError(
            f"fitness must be integer (and is minimised), within int32, got {fitness.dtype}; scale "
            "it to a fixed-point int32"
        )
    return fitness.astype(jnp.int32)


def rank_weights(fitness: jax.Array) -> jax.Array:
    """How many candidates are worse minus how many are better, int32 ``[..., P]``.

    Sums to zero along the last axis; candidates of equal fitness share a weight, whatever their
    place in the array.
    """
    ordered = jnp.sort(fitness, axis=-1)

    def one(ordered: jax.Array, fitness: jax.Array) -> jax.Array:
        better = jnp.searchsorted(ordered, fitness, side="left")
        not_worse = jnp.searchsorted(ordered, fitness, side="right")
        return (fitness.shape[0] - not_worse - better).astype(jnp.int32)

    search = one
    for _ in range(fitness.ndim - 1):
        search = jax.vmap(search)
    return search(ordered, fitness)

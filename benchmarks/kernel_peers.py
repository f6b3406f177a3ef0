"""What a user would search with instead, on the same problems and with the same stopping rule.

Each peer is used through its own interface, as its documentation shows it, but for the fitness,
which is our compiled one, of a whole population in a call where the peer has a population:

- *deap*: `algorithms.eaSimple` as in its OneMax example: 300 individuals of ``array.array``,
  two-point crossover with probability 0.5, each bit flipped with probability 1 / n in a fifth of
  the children, tournaments of three.
- *nevergrad*: `DiscreteOnePlusOne` on ``TransitionChoice``, an evaluation at a time.
- *evosax*: `SimpleGA` with 256 float members and a standard deviation of 0.1, rounded to genes
  before they are scored; 20 generations a call.

A search starts where ours do: the problem's start is the first individual.
"""

from __future__ import annotations

import array
import random
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qevo.core.evosax_rounding import RoundedProblem
from qevo.core.problem import Problem

MEMBERS = 300  # DEAP's population, as in its example
FLOATS = 256  # evosax's
DEVIATION = 0.1  # of evosax's mutation, where a gene's levels are 1 apart
CALL = 20  # generations of evosax in a call


class Run(NamedTuple):
    """One run of a peer."""

    fitness: int  # the least seen
    reached: bool  # whether that is the target
    seconds: float  # until then or to the end
    evaluations: int


class _Over(Exception):
    """The target is reached, or time is up."""


class _Clock:
    """Counts evaluations, keeps the least fitness, and ends the search."""

    def __init__(self, target: int, seconds: float):
        self.target, self.limit = target, seconds
        self.least, self.evaluations = np.iinfo(np.int32).max, 0
        self.began = time.monotonic()

    def saw(self, fitness: np.ndarray) -> None:
        """Note some fitness values; raises `_Over` at the end."""
        self.evaluations += fitness.size
        self.least = min(self.least, int(fitness.min()))
        if self.least <= self.target or time.monotonic() - self.began >= self.limit:
            raise _Over

    def run(self, search: Callable[[], Any]) -> Run:
        """Run a search that goes on until `saw` ends it."""
        self.began = time.monotonic()
        try:
            while True:
                search()
        except _Over:
            spent = time.monotonic() - self.began
        return Run(self.least, self.least <= self.target, spent, self.evaluations)


def deap(problem: Problem, seed: int, target: int, seconds: float) -> Run:
    """DEAP's simple evolutionary algorithm."""
    from deap import algorithms, base, tools  # pyright: ignore[reportMissingImports]

    random.seed(seed)
    size = problem.space.size
    score = jax.jit(jax.vmap(lambda genes: problem.fitness(problem.space.decode(genes), ())))
    individual = deap_individual()
    drawn = np.random.default_rng(seed).integers(0, 2, (MEMBERS, size), np.int8)
    drawn[0] = np.asarray(problem.space.start)
    clock = _Clock(target, seconds)

    def scores(function: Any, members: Any) -> list[tuple[int]]:
        members = list(members)
        if not members:
            return []
        padded = np.zeros((MEMBERS, size), np.int8)
        for row, member in zip(padded, members, strict=False):
            row[:] = np.frombuffer(member, np.int8)
        fitness = np.asarray(score(padded))[: len(members)]
        clock.saw(fitness)
        return [(int(value),) for value in fitness]

    toolbox = base.Toolbox()
    toolbox.register("evaluate", len)  # `map` scores all members at once
    toolbox.register("map", scores)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutFlipBit, indpb=1 / size)
    toolbox.register("select", tools.selTournament, tournsize=3)
    population = [individual(row.tolist()) for row in drawn]
    jax.block_until_ready(score(drawn))

    def search() -> None:
        algorithms.eaSimple(population, toolbox, 0.5, 0.2, ngen=1 << 30, verbose=False)

    return clock.run(search)


def deap_individual() -> Any:
    """DEAP's class of an individual of bits, whose fitness is minimised."""
    from deap import base, creator  # pyright: ignore[reportMissingImports]

    if not hasattr(creator, "QevoIndividual"):
        creator.create("QevoFitness", base.Fitness, weights=(-1.0,))
        fitness = creator.QevoFitness  # pyright: ignore[reportAttributeAccessIssue]
        creator.create("QevoIndividual", array.array, typecode="b", fitness=fitness)
    return creator.QevoIndividual  # pyright: ignore[reportAttributeAccessIssue]


def nevergrad(problem: Problem, seed: int, target: int, seconds: float) -> Run:
    """nevergrad's (1 + 1) evolutionary algorithm for discrete variables."""
    start = np.asarray(problem.space.start)
    score = jax.jit(lambda genes: problem.fitness(problem.space.decode(genes), ()))
    jax.block_until_ready(score(start))
    optimizer = nevergrad_optimizer(start.size, seed)
    optimizer.suggest(tuple(start.tolist()))
    clock = _Clock(target, seconds)

    def search() -> None:
        candidate = optimizer.ask()
        fitness = np.asarray(score(np.asarray(candidate.value, np.int8)))
        optimizer.tell(candidate, float(fitness))
        clock.saw(fitness)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clock.run(search)


def nevergrad_optimizer(size: int, seed: int) -> Any:
    """`DiscreteOnePlusOne` over so many bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nevergrad as ng  # pyright: ignore[reportMissingImports]

        bits = ng.p.TransitionChoice([0, 1], repetitions=size)
        bits.random_state.seed(seed)
        return ng.optimizers.registry["DiscreteOnePlusOne"](bits, budget=1_000_000)


def evosax(problem: Problem, seed: int, target: int, seconds: float) -> Run:
    """evosax's simple genetic algorithm over floats."""
    rounded = RoundedProblem(problem)
    strategy, params = evosax_strategy(rounded.num_dims, FLOATS)
    key_start, key_first, key = jax.random.split(jax.random.key(seed), 3)
    first = jax.vmap(rounded.sample)(jax.random.split(key_start, FLOATS))
    first = first.at[0].set(problem.space.start.astype(jnp.float32))
    fitness, _, _ = rounded.eval(key_first, first, rounded.init(key_first))
    state = strategy.init(key_first, first, fitness, params)

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        key_ask, key_eval, key_tell = jax.random.split(key, 3)
        points, state = strategy.ask(key_ask, state, params)
        fitness, _, _ = rounded.eval(key_eval, points, rounded.init(key_eval))
        state, _ = strategy.tell(key_tell, points, fitness, state, params)
        return state, fitness

    steps = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
    jax.block_until_ready(steps(state, jax.random.split(key, CALL)))
    clock = _Clock(target, seconds)

    def search() -> None:
        nonlocal state, key
        key, key_call = jax.random.split(key)
        state, fitness = steps(state, jax.random.split(key_call, CALL))
        clock.saw(np.asarray(fitness).astype(np.int64))

    return clock.run(search)


def evosax_strategy(genes: int, members: int) -> tuple[Any, Any]:
    """`SimpleGA` over so many genes, and its parameters."""
    import optax
    from evosax.algorithms import SimpleGA

    strategy = SimpleGA(
        population_size=members,
        solution=jnp.zeros(genes, jnp.float32),
        std_schedule=optax.constant_schedule(DEVIATION),
    )
    return strategy, strategy.default_params


PEERS: dict[str, Callable[[Problem, int, int, float], Run]] = {
    "deap": deap,
    "nevergrad": nevergrad,
    "evosax": evosax,
}

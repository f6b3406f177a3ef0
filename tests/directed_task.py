"""A small search for directed evolution: two leaves to be sparse, and what each zero costs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.algorithms.directed import Directed, DirectedConfig, DirectedState
from qevo.core import Leaf, Problem, Space, evolve

KEY = jax.random.key(0)
CONFIG = DirectedConfig(
    zeros=(("a", 0.75), ("b", 0.5)),
    population=16,
    slots=8,
    step=0.1,
    committed=4,
    shifted=2,
)


def space() -> Space:
    """Two leaves to be sparse, the second of which has zeros already, and one of constants."""
    draw = np.random.RandomState(0)
    a = draw.choice([-3, -2, -1, 1, 2, 3], (20, 10))
    b = draw.choice([-2, -1, 0, 1, 2], (8, 10))
    return Space.of(
        {
            "a": Leaf((20, 10), -4, 3, a),
            "b": Leaf((8, 10), -2, 2, b),
            "c": Leaf((10,), -5, 5, base=1000, step=7, dtype=np.int32),
        }
    )


@struct.dataclass
class Costs(Problem):
    """What each zero costs, apart from its level, and how far the constants are from a goal."""

    space: Space
    costs: jax.Array  # int32 [N]
    goal: jax.Array  # int8 [N]

    def fitness(self, solution: Any, batch: Any) -> jax.Array:
        genes = self.space.encode(solution).astype(jnp.int32)
        lost = jnp.sum(jnp.where(genes == 0, self.costs, 0), dtype=jnp.int32)
        away = jnp.abs(genes - self.goal)[-10:]
        return lost + 5 * jnp.sum(away, dtype=jnp.int32)

    def validation(self, solution: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        return self.fitness(solution, ()), {}


def problem() -> Costs:
    here = space()
    costs = np.random.RandomState(1).randint(0, 100, here.size)
    costs[-10:] = 0
    goal = np.full(here.size, 3)
    return Costs(here, jnp.asarray(costs, jnp.int32), jnp.asarray(goal, jnp.int8))


def run(config: DirectedConfig = CONFIG, generations: int = 60, **options: Any) -> Any:
    task = problem()
    options = {"progress": False, "devices": 1, "validate_every": 1, "scan_length": 20} | options
    return evolve(Directed(task.space, config), task, 4, generations=generations, **options)


def states(config: DirectedConfig, count: int) -> list[DirectedState]:
    """The states of a run on `problem`, one after each generation."""
    task = problem()
    search = Directed(task.space, config)

    @jax.jit
    def step(key: jax.Array, state: DirectedState) -> DirectedState:
        first, second = jax.random.split(key)
        proposal, state = search.propose(first, state)
        candidates = proposal.apply(search.context(state))
        fitness = jax.vmap(lambda genes: task.fitness(task.space.decode(genes), ()))(candidates)
        return search.update(second, proposal, fitness, state)[0]

    found = [search.start(KEY)]
    for key in jax.random.split(KEY, count):
        found.append(step(key, found[-1]))
    return found

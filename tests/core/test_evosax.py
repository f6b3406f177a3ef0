"""evosax both ways: our search in its loop, its strategies on our problems."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms import CMA_ES, SNES
from support import onemax, quadratic

from qevo.algorithms import EDA, EDAConfig
from qevo.core import RoundedProblem


def test_the_loop_of_evosaxs_readme() -> None:
    """Word for word, but for the class and the fitness that it leaves open."""
    problem = onemax(30)
    dummy_solution = problem.sample(jax.random.key(1))
    num_generations = 60

    # Instantiate the search strategy
    es = EDA(problem.space, EDAConfig(population=32, selected=8, rate=0.3))
    params = es.default_params

    # Initialize state
    key = jax.random.key(0)
    state = es.init(key, dummy_solution, params)

    # Ask-Eval-Tell loop
    for _ in range(num_generations):
        key, key_ask, key_eval = jax.random.split(key, 3)

        # Generate a set of candidate solutions to evaluate
        population, state = es.ask(key_ask, state, params)

        # Evaluate the fitness of the population
        fitness, _, _ = problem.eval(key_eval, population, problem.init(key_eval))

        # Update the evolution strategy
        state, _metrics = es.tell(key, population, fitness, state, params)

    assert int(state.best_fitness) == 0
    np.testing.assert_array_equal(state.best_solution, np.ones(30, np.int8))
    assert state.best_solution.dtype == jnp.int8


@pytest.mark.parametrize("strategy", [CMA_ES, SNES])
def test_strategies_of_evosax_search_rounded_genes(strategy: Any) -> None:
    problem = quadratic()
    rounded = RoundedProblem(problem)
    start = problem.space.start.astype(jnp.float32)
    es = strategy(population_size=32, solution=start)
    params = es.default_params
    state = es.init(jax.random.key(0), start, params)

    def step(carry: Any, key: jax.Array) -> Any:
        state, problem_state = carry
        population, state = es.ask(key, state, params)
        fitness, problem_state, _ = rounded.eval(key, population, problem_state)
        state, _ = es.tell(key, population, fitness, state, params)
        return (state, problem_state), jnp.min(fitness)

    keys = jax.random.split(jax.random.key(2), 60)
    carry = (state, rounded.init(keys[0]))
    (state, problem_state), best = jax.jit(lambda c: jax.lax.scan(step, c, keys))(carry)
    assert problem_state.counter == 60
    assert float(jnp.min(best)) < float(best[0]) / 2
    found = rounded.solution(state.best_solution)
    assert float(problem.fitness(found, ())) == float(state.best_fitness) == float(jnp.min(best))


def test_rounding_keeps_to_the_bounds() -> None:
    problem = quadratic()
    rounded, space = RoundedProblem(problem), problem.space
    far = jnp.full(space.size, 1e9, jnp.float32)
    np.testing.assert_array_equal(rounded.genes(far), space.high)
    np.testing.assert_array_equal(rounded.genes(-far), space.low)
    near = space.start.astype(jnp.float32) + jnp.where(space.start < space.high, 0.4, -0.4)
    np.testing.assert_array_equal(rounded.genes(near), space.start)
    point = rounded.sample(jax.random.key(0))
    assert (point.dtype, point.shape) == (jnp.float32, (rounded.num_dims,))
    np.testing.assert_array_equal(rounded.genes(point), point)

"""Rank weights against plain Python, and what the evosax face of an algorithm refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Walk, onemax

from qevo.core import Leaf, Space, rank_weights

INT32 = st.one_of(st.integers(-3, 3), st.integers(-(2**31), 2**31 - 1))
rank = jax.jit(rank_weights)


@given(st.lists(INT32, min_size=7, max_size=7), st.permutations(range(7)))
def test_rank_weights_count_worse_minus_better(fitness: list[int], order: list[int]) -> None:
    weights = np.asarray(rank(jnp.array(fitness, jnp.int32))).tolist()
    assert weights == [sum(g > f for g in fitness) - sum(g < f for g in fitness) for f in fitness]
    assert sum(weights) == 0
    shuffled = rank(jnp.array([fitness[i] for i in order], jnp.int32))
    assert np.asarray(shuffled).tolist() == [weights[i] for i in order]


def test_rank_weights_rank_along_the_last_axis() -> None:
    fitness = jnp.asarray(np.random.RandomState(0).randint(0, 4, (2, 3, 7)), jnp.int32)
    weights = rank_weights(fitness)
    assert weights.dtype == jnp.int32
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(weights[index], rank(fitness[index]))


def test_a_population_needs_a_candidate() -> None:
    with pytest.raises(ValueError, match="population_size must be at least 1, got 0"):
        Walk(onemax().space, 0)


def test_tell_refuses_floating_point() -> None:
    walk = Walk(onemax().space)
    state = walk.init(jax.random.key(0))
    population, state = walk.ask(jax.random.key(1), state)
    with pytest.raises(TypeError, match=r"fitness must be integer .* got float32"):
        walk.tell(jax.random.key(2), population, jnp.ones(8), state)


def test_tell_takes_numpys_integers_within_int32() -> None:
    walk, key = Walk(onemax().space), jax.random.key(0)
    population, state = walk.ask(key, walk.init(key))
    fitness = np.arange(8) - 2**31
    assert int(walk.tell(key, population, fitness, state)[0].best_fitness) == -(2**31)
    assert int(walk.tell(key, population, fitness.tolist(), state)[0].best_fitness) == -(2**31)
    for wide, found in ((fitness - 1, -(2**31) - 1), (fitness + (2**32 + 5), 2**31 + 12)):
        with pytest.raises(ValueError, match=f"fitness must lie in int32, got {found}: scale"):
            walk.tell(key, population, wide, state)
    with pytest.raises(TypeError, match="within int32, got uint32"):
        jax.jit(walk.tell)(key, population, jnp.ones(8, jnp.uint32), state)


def test_an_evosax_loop_may_start_elsewhere() -> None:
    problem = onemax(8)
    walk, key = Walk(problem.space), jax.random.key(0)
    ones = jnp.ones(8, jnp.int8)
    for state in (walk.init(key, ones, walk.default_params), walk.init(key, 5 * ones)):
        np.testing.assert_array_equal(state.best_solution, ones)
        population, _ = walk.ask(key, state)
        assert int(jnp.min(jnp.sum(population, axis=1))) >= 7
    for state in (walk.init(key), walk.init(key, walk.default_params)):
        np.testing.assert_array_equal(state.best_solution, 0 * ones)
    np.testing.assert_array_equal(walk.space.start, 0 * ones)


@pytest.mark.parametrize("far", [256, 1000, 2**31 - 1])
def test_a_start_outside_is_cut_to_the_bounds(far: int) -> None:
    space = Space.of({"plain": Leaf((2,), 0, 10), "steps": Leaf((2,), -5, 5, step=3)})
    given = {"plain": np.array([far, -far]), "steps": np.array([far, -far])}
    state = Walk(space).init(jax.random.key(0), given)
    np.testing.assert_array_equal(state.best_solution["plain"], [10, 0])
    np.testing.assert_array_equal(state.best_solution["steps"], [15, -15])

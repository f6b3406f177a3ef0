"""Slips of the hand at the front door, and integers that would wrap."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import qevo
from qevo import QevoError, Space

SPACE = Space.integers(8, low=0, high=100)
PROBLEM = qevo.FunctionProblem(SPACE, lambda x: jnp.sum((x - 90) ** 2))


@pytest.mark.parametrize(
    ("algorithm", "problem", "message"),
    [
        (PROBLEM, qevo.Coevolution(SPACE), "not FunctionProblem and Coevolution"),
        (qevo.Coevolution, PROBLEM, "not the class Coevolution and FunctionProblem"),
    ],
)
def test_evolve_takes_an_algorithm_and_then_a_problem(
    algorithm: Any, problem: Any, message: str
) -> None:
    with pytest.raises(QevoError, match=message):
        qevo.evolve(algorithm, problem, 0, generations=1)


@pytest.mark.parametrize("seed", [-1, 1 << 32, np.int64(1 << 40)])
def test_a_seed_whose_draws_would_be_those_of_another(seed: Any) -> None:
    with pytest.raises(QevoError, match=f"seed must be 0 to 4294967295, got {seed}"):
        qevo.evolve(qevo.Coevolution(SPACE), PROBLEM, seed, generations=1)


def test_bounds_of_two_shapes() -> None:
    with pytest.raises(QevoError, match=re.escape("must fit one shape, got (3,), (4,)")):
        Space.between(np.zeros(3, int), np.ones(4, int))


def test_squares_of_small_integers_do_not_wrap() -> None:
    solution = SPACE.decode(SPACE.start)
    assert solution.dtype == jnp.int32
    assert PROBLEM.fitness(solution, None) == 8 * 90**2


def test_a_fitness_that_can_wrap_is_refused() -> None:
    narrow = Space.integers(8, low=0, high=100, dtype=jnp.int8)
    problem = qevo.FunctionProblem(narrow, lambda x: -jnp.dot(x, x))
    with pytest.raises(TypeError, match="fitness must be int32, got int8: compute in int32"):
        problem.fitness(narrow.decode(narrow.start), None)

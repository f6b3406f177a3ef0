"""Slips of the hand at the front door, and integers that would wrap."""

import pathlib
import re
from typing import Any

import jax
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generations": 1 << 31}, "generations must fit int32, got 2147483648"),
        ({"generations": None}, "generations must be an integer, got None"),
        ({"generations": 2.0}, r"generations must be an integer, got 2\.0"),
        ({"patience": 1 << 31}, "patience must fit int32"),
        ({"target": -(1 << 40)}, "target must fit int32"),
        ({"seed": 1.0}, "seed must be an integer or a key"),
    ],
)
def test_numbers_that_no_run_can_have(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        qevo.evolve(qevo.Coevolution(SPACE), PROBLEM, **{"seed": 0, "generations": 1} | settings)


def test_integers_of_numpy_are_integers(tmp_path: pathlib.Path) -> None:
    def run(number: Any, folder: str, seed: Any) -> qevo.Result:
        config = qevo.CoevolutionConfig(population=number(8), group=number(4))
        settings = {"target": number(3), "patience": number(3), "devices": number(1)}
        search = qevo.Coevolution(SPACE, config)
        where = {"folder": tmp_path / folder, "generations": number(4)}
        return qevo.evolve(search, PROBLEM, seed, progress=False, **settings, **where)

    found, expected = run(np.int64, "numpy", jnp.int32(5)), run(int, "python", 5)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found.carry, expected.carry))


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

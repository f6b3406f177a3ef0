"""F1 to F24 against the ioh package, value by value, and their optima against all solutions."""

import ioh
import jax
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.problems import PBO

SIZES = {20: (9, 25), 21: (9, 25), 23: (9, 25), 24: (10, 25)}


def _score(problem: PBO, solutions: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(lambda x: problem.fitness(x, ())))(solutions))


@pytest.mark.parametrize("function", range(1, 25))
def test_values_are_those_of_ioh(function: int) -> None:
    for size in SIZES.get(function, (13, 26)):
        problem = PBO.of(function, size)
        theirs = ioh.get_problem(function, 1, size, ioh.ProblemClass.PBO)
        draw = np.random.RandomState(function)
        solutions = draw.randint(0, 2, (60, size)).astype(np.int8)
        for row in solutions[:30]:  # near the optimum, where a ruggedness or a trap shows
            row[:] = 1
            row[draw.randint(0, size, draw.randint(0, 4))] = 0
        solutions[0] = 0
        expected = np.asarray([theirs(row.tolist()) for row in solutions])
        if function == 18:
            expected = size**2 / 2 / expected
        else:
            expected = -expected * (5 if function == 24 else 1)
        np.testing.assert_allclose(_score(problem, solutions), expected, atol=1e-6)
        assert problem.name == theirs.meta_data.name


@pytest.mark.parametrize("function", range(1, 25))
def test_the_optimum_is_the_least_of_all(function: int) -> None:
    size = {20: 9, 21: 9, 23: 9, 24: 10}.get(function, 11)
    every = (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(np.int8)
    problem = PBO.of(function, size)
    assert problem.optimum == _score(problem, every).min()


def test_sizes_that_do_not_fit() -> None:
    assert PBO.of(18, 40).optimum is None
    for function, size, message in (
        (25, 10, "functions are 1 to 24, got 25"),
        (20, 10, "F20 IsingTorus needs a square number, got 10 bits"),
        (24, 12, "F24 ConcatenatedTrap needs a multiple of 5, got 12 bits"),
        (1, 0, "F1 OneMax needs 1 to 268,435,456 bits, got 0 bits"),
        (18, 1, "F18 LABS needs 2 to 1,861 bits, got 1 bits"),
        (20, -4, "F20 IsingTorus needs 1 to 268,435,456 bits, got -4 bits"),
        (24, 0, "F24 ConcatenatedTrap needs 5 to 268,435,456 bits, got 0 bits"),
        (2, 10**9, "F2 LeadingOnes needs 1 to 268,435,456 bits"),
    ):
        with pytest.raises(QevoError, match=message):
            PBO.of(function, size)


LARGEST = {  # bits, and the value of ones in integers of any size
    3: (65_535, lambda n: -n * (n + 1) // 2),
    18: (1_861, lambda n: sum((n - k) ** 2 for k in range(1, n))),
    22: (32_769, lambda n: (n - 1) * (2 * (n - 1) - 4) - (n - 1)),
    23: (813**2, lambda n: 2 * 813 * 812 * 1625 - n),
}


@pytest.mark.parametrize("function", LARGEST)
def test_values_fit_int32_up_to_the_largest_size(function: int) -> None:
    size, value = LARGEST[function]
    problem = PBO.of(function, size)
    ones = np.ones((1, size), np.int8)
    assert _score(problem, ones).tolist() == [value(size)]
    larger = 814**2 if function == 23 else size + 1
    with pytest.raises(QevoError, match=f"F{function} .* needs . to {size:,} bits, got {larger}"):
        PBO.of(function, larger)

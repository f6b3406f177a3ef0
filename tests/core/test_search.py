"""A whole run as a pure function: the bits of `evolve`, mapped over seeds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import Medians, Walk, onemax

from qevo.core import evolve, search
from qevo.errors import QevoError

GENES = 24


@pytest.mark.parametrize(
    "settings",
    [{"generations": 25}, {"generations": 300, "target": 1}, {"generations": 300, "patience": 4}],
    ids=["generations", "target", "patience"],
)
def test_runs_over_seeds_are_those_of_evolve(settings: dict[str, Any]) -> None:
    problem = onemax(GENES)
    walk = Walk(problem.space)
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
    run = jax.jit(jax.vmap(lambda key: search(walk, problem, key, **settings)))
    found = run(keys)
    assert len({int(n) for n in found.generations}) > 1 or "target" not in settings
    for index, key in enumerate(keys):
        result = evolve(walk, problem, key, progress=False, devices=1, **settings)
        np.testing.assert_array_equal(found.solution[index], result.solution)
        np.testing.assert_array_equal(found.genes[index], result.genes)
        each = (found.fitness, found.found, found.generations)
        expected = (result.fitness, result.found, result.generations)
        assert tuple(int(part[index]) for part in each) == expected


def test_a_validated_run_ends_with_a_look() -> None:
    problem = Medians.of(6)
    walk = Walk(problem.space)
    for generations in (6, 8, 9):
        settings = {"generations": generations, "validate_every": 4}
        found = jax.jit(
            lambda key, settings=settings: search(walk, problem, key, **settings),
        )(jax.random.key(5))
        result = evolve(walk, problem, 5, progress=False, devices=1, **settings)
        assert (int(found.fitness), int(found.found)) == (result.fitness, result.found)
        np.testing.assert_array_equal(found.solution, result.solution)


def test_the_number_of_generations_may_be_traced() -> None:
    problem = onemax(GENES)
    walk = Walk(problem.space)
    done = jax.jit(
        lambda n: search(walk, problem, jax.random.key(0), generations=n).generations,
    )
    assert [int(done(jnp.int32(n))) for n in (2, 5)] == [2, 5]


def test_a_start_that_meets_the_target_is_the_answer() -> None:
    problem = onemax(GENES)
    found = search(Walk(problem.space), problem, jax.random.key(0), generations=9, target=GENES)
    assert (int(found.fitness), int(found.generations)) == (GENES, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validate_every": 0}, "validate_every must be at least 1, got 0"),
        ({"algorithm": Walk(onemax(GENES + 1).space)}, "search different spaces"),
    ],
)
def test_what_evolve_refuses_is_refused(settings: dict[str, Any], message: str) -> None:
    problem = onemax(GENES)
    settings = {"algorithm": Walk(problem.space), "generations": 3} | settings
    with pytest.raises(QevoError, match=message):
        search(problem=problem, key=jax.random.key(0), **settings)

"""What every algorithm does on every problem; a new algorithm is one line in ALGORITHMS."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import Medians, Walk, on_devices, onemax, quadratic

from qevo.algorithms import (
    EDA,
    Coevolution,
    CoevolutionConfig,
    EDAConfig,
    Genetic,
    GeneticConfig,
    RandomSearch,
    RandomSearchConfig,
    ShiftConfig,
    ShiftES,
    VoteConfig,
    VoteES,
)
from qevo.core import Algorithm, Problem, Result, Space, evolve
from qevo.core import search as run_whole
from qevo.core.generation import Rules, first_carry, run_generation
from qevo.integer import audit
from qevo.problems import Coloring, MaxCut
from qevo.problems.rudy import random_graph

FAST = CoevolutionConfig(population=32, group=24, spread=0.2, rate=4.0, margin=0.01, schedule=100)
HEAVY_TAILED = ShiftConfig(population=32, slots=16, levels=3, mutation="heavy-tailed", neutral=True)
GENERATIONAL = GeneticConfig(
    population=32, replacement="generational", crossover="points", tournament=4, levels=3
)

ALGORITHMS: dict[str, Callable[[Space], Algorithm]] = {
    "coevolution": lambda space: Coevolution(space, FAST),
    "shift_es": lambda space: ShiftES(space, ShiftConfig(population=32, slots=16, levels=3)),
    "heavy_tailed": lambda space: ShiftES(space, HEAVY_TAILED),
    "eda": lambda space: EDA(space, EDAConfig(population=32, selected=8, rate=0.15)),
    "genetic": lambda space: Genetic(space, GeneticConfig(population=32, levels=3)),
    "generational": lambda space: Genetic(space, GENERATIONAL),
    "vote_es": lambda space: VoteES(space, VoteConfig(population=32, group=12)),
    "random_search": lambda space: RandomSearch(space, RandomSearchConfig(population=32)),
    "walk": lambda space: Walk(space, 32),  # the tests' own: the bars are no feat
}


class Task(NamedTuple):
    problem: Problem
    generations: int
    bar: int  # what an algorithm must reach from a start several times as bad


TASKS = {
    "onemax": Task(onemax(), 120, 2),
    "quadratic": Task(quadratic(), 120, 4),
    "noisy": Task(Medians.of(), 160, 9300),
    "max-cut": Task(MaxCut.of(60, *random_graph(60, 240, 7)), 120, -160),
    "colouring": Task(Coloring.of(40, *random_graph(40, 120, 7), 5), 120, 4),
}

# Bars for what learns nothing.
NO_SEARCH = {
    "onemax": 36,
    "quadratic": 150,
    "noisy": 20_000,
    "max-cut": -140,
    "colouring": 12,
}


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(algorithm: str) -> Callable[[Space], Algorithm]:
    return ALGORITHMS[algorithm]


@pytest.fixture(params=TASKS)
def goal(request: pytest.FixtureRequest) -> str:
    return request.param


def search(
    make: Callable[[Space], Algorithm], task: Task, seed: int = 1, **settings: Any
) -> Result:
    settings = {"generations": task.generations, "validate_every": 5, "scan_length": 20} | settings
    return evolve(make(task.problem.space), task.problem, seed, progress=False, **settings)


@functools.cache
def whole(algorithm: str, goal: str, seed: int = 1) -> Result:
    """An uninterrupted run, which several tests look at."""
    return search(ALGORITHMS[algorithm], TASKS[goal], seed)


def in_bounds(space: Space, genes: jax.Array) -> bool:
    return bool(jnp.all((genes >= space.low) & (genes <= space.high)))


def test_it_reaches_the_bar(algorithm: str, goal: str) -> None:
    result, task = whole(algorithm, goal), TASKS[goal]
    space, batch = task.problem.space, task.problem.batch(jax.random.key(0))

    def fitness(solution: jax.Array) -> int:
        seen = task.problem.validation(solution) or [task.problem.fitness(solution, batch)]
        return int(seen[0])

    assert in_bounds(space, result.genes)
    assert result.fitness == fitness(result.solution)
    if algorithm == "random_search" and goal == "noisy":  # nothing uniform beats the middle
        found = min(record["validation"] for record in result.metrics if "validation" in record)
        assert found <= NO_SEARCH[goal]
        return
    bar = NO_SEARCH[goal] if algorithm == "random_search" else task.bar
    assert result.fitness <= bar < fitness(space.decode(space.start))
    assert result.metrics[0]["best"] > bar or task.problem.optimum is None


@pytest.mark.parametrize("size", [1, 2])
def test_one_gene_or_two_are_learned(make: Callable[[Space], Algorithm], size: int) -> None:
    """By the algorithm's own answer, not only as the best candidate that was ever seen."""
    problem = onemax(size)
    algorithm = make(problem.space)
    result = evolve(algorithm, problem, 1, generations=30, scan_length=30, progress=False)
    np.testing.assert_array_equal(algorithm.solution(result.carry.state), 1)


def test_the_bar_is_reached_block_by_block_too() -> None:
    """In `evolve`, and through evosax's ask and tell."""
    task, config = TASKS["quadratic"], dataclasses.replace(FAST, grouping="block")
    assert len(task.problem.space.blocks) > 1

    def make(space: Space) -> Algorithm:
        return Coevolution(space, config)

    result = search(make, task)
    assert result.fitness <= task.bar
    assert result.metrics[0]["best"] > task.bar
    assert in_bounds(task.problem.space, result.genes)

    es, problem = make(task.problem.space), task.problem

    def step(state: Any, key: jax.Array) -> Any:
        population, state = es.ask(key, state)
        fitness, _, _ = problem.eval(key, population, problem.init(key))
        return es.tell(key, population, fitness, state)

    keys = jax.random.split(jax.random.key(0), task.generations)
    run = jax.jit(lambda state: jax.lax.scan(step, state, keys)[0])
    assert int(run(es.init(keys[0])).best_fitness) <= task.bar


def test_another_seed_is_another_run(algorithm: str) -> None:
    first, second = (whole(algorithm, "onemax", seed) for seed in (1, 2))
    assert first.metrics != second.metrics


def test_it_resumes_to_the_same_bits_also_in_calls_of_another_length(
    algorithm: str, tmp_path: pathlib.Path
) -> None:
    make, expected = ALGORITHMS[algorithm], whole(algorithm, "noisy")
    first = search(make, TASKS["noisy"], folder=tmp_path, max_seconds=0.0)
    assert (first.stopped, first.generations) == ("time", 20)
    second = search(make, TASKS["noisy"], folder=tmp_path, resume=True, scan_length=33)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, second.carry, expected.carry))
    assert first.metrics + second.metrics == expected.metrics


SHARDED = """
import json, sys
import jax
from test_every_algorithm import ALGORITHMS, TASKS, search

assert len(jax.devices()) == 4
found = {}
for name, make in ALGORITHMS.items():
    runs = [search(make, TASKS["quadratic"], generations=6, devices=d) for d in (1, 4)]
    found[name] = [[run.metrics, run.genes.tolist()] for run in runs]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_any_devices_give_the_same_bits() -> None:
    """Four of them are forced on the host, in a process apart."""
    found = json.loads(on_devices(4, SHARDED))
    assert found.keys() == ALGORITHMS.keys()
    for name, (one, four) in found.items():
        assert one == four, name


def test_a_generation_holds_no_floats(make: Callable[[Space], Algorithm], goal: str) -> None:
    problem, key = TASKS[goal].problem, jax.random.key(0)
    algorithm = make(problem.space)
    carry = first_carry(algorithm, problem, key)
    rules = Rules(generations=9, patience=3, target=0)

    def generation(problem: Problem, key: jax.Array, carry: Any) -> Any:
        return run_generation(algorithm, problem, key, carry, rules=rules, chunk=3, mesh=None)

    report = audit(generation, problem, key, carry)
    assert report.integer_only, report
    shapes = jax.eval_shape(generation, problem, key, carry)[0]
    assert jax.tree.map(lambda a: (a.shape, a.dtype), carry) == jax.tree.map(
        lambda a: (a.shape, a.dtype), shapes
    )


def test_it_runs_in_an_evosax_loop_in_integers(make: Callable[[Space], Algorithm]) -> None:
    """The loop of evosax's README, scanned."""
    problem = TASKS["quadratic"].problem
    es = make(problem.space)
    params = es.default_params
    dummy_solution = problem.sample(jax.random.key(9))

    def run(key: jax.Array) -> Any:
        key, key_init, key_problem = jax.random.split(key, 3)
        state = es.init(key_init, dummy_solution, params)
        problem_state = problem.init(key_problem)

        def step(carry: Any, _: None) -> Any:
            key, state, problem_state = carry
            key, key_ask, key_eval = jax.random.split(key, 3)
            population, state = es.ask(key_ask, state, params)
            fitness, problem_state, _info = problem.eval(key_eval, population, problem_state)
            state, metrics = es.tell(key, population, fitness, state, params)
            return (key, state, problem_state), (population, metrics)

        carry, logged = jax.lax.scan(step, (key, state, problem_state), length=30)
        return carry[1], logged

    state, (population, metrics) = jax.jit(run)(jax.random.key(3))
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), dummy_solution)
    found = jax.tree.map(lambda leaf: (leaf.shape[2:], leaf.dtype), population)
    assert found == expected
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.best_solution) == expected
    for leaf in jax.tree.leaves((state, metrics)):
        assert jnp.issubdtype(leaf.dtype, jnp.integer)
        assert leaf.ndim <= 1 or leaf.dtype.itemsize <= 4
    assert metrics["best_fitness"].shape == (30,)
    assert int(state.best_fitness) == int(jnp.min(metrics["best_fitness_in_generation"]))
    assert int(state.generation_counter) == 30
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), population)
    genes = jax.vmap(problem.space.encode)(flat)  # cut to the bounds
    assert jax.tree.all(jax.tree.map(jnp.array_equal, jax.vmap(problem.space.decode)(genes), flat))


@pytest.mark.parametrize("algorithm", ["coevolution", "shift_es", "eda", "generational"])
def test_runs_over_several_seeds_at_once_are_those_alone(
    make: Callable[[Space], Algorithm],
) -> None:
    problem = TASKS["quadratic"].problem
    algorithm = make(problem.space)

    def run(key: jax.Array) -> Any:
        return run_whole(algorithm, problem, key, generations=30)

    keys = jnp.stack([jax.random.key(3), jax.random.key(4)])
    several = jax.jit(jax.vmap(run))(keys)
    for index, key in enumerate(keys):
        mine = jax.tree.map(lambda leaf, index=index: leaf[index], several)
        assert jax.tree.all(jax.tree.map(jnp.array_equal, mine, jax.jit(run)(key)))

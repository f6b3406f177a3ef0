"""What every local search does on the problems that it can move in; a new one is one line."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import on_devices, onemax

from qevo.algorithms import (
    Annealing,
    AnnealingConfig,
    FocusedConfig,
    FocusedSearch,
    LocalSearch,
    Memetic,
    MemeticConfig,
    TabuConfig,
    TabuSearch,
)
from qevo.algorithms.local_search import Journal, best_on_the_way
from qevo.core import Algorithm, Problem, evolve
from qevo.core.generation import Rules, first_carry, run_generation
from qevo.core.selection import WORST
from qevo.errors import QevoError
from qevo.integer import audit
from qevo.problems import NK, SAT, Coloring, MaxCut, Trap
from qevo.problems.rudy import random_graph


class Task(NamedTuple):
    make: Callable[[Any], Algorithm]
    problem: Callable[[], Any]
    generations: int
    bar: int | None = None  # the optimum by default


TABU = TabuConfig(population=4, moves=150, patience=100, kick=10)
POINTS = MemeticConfig(crossover="points", points=4, tournament=2, patience=9)
TASKS = {
    "tabu, max-cut": Task(
        lambda p: TabuSearch(p, TABU), lambda: MaxCut.of(100, *random_graph(100, 500, 7)), 20, -360
    ),
    "tabu, colouring": Task(
        lambda p: TabuSearch(p, TABU), lambda: Coloring.of(40, *random_graph(40, 160, 7), 5), 20, 0
    ),
    "annealing, nk": Task(
        lambda p: Annealing(p, AnnealingConfig(population=8, moves=1000, cycle=8, restart=16)),
        lambda: NK.random(jax.random.key(0), 40, 3),
        40,
    ),
    "annealing, colouring": Task(
        lambda p: Annealing(p, AnnealingConfig(population=4, moves=600, cycle=10)),
        lambda: Coloring.of(40, *random_graph(40, 160, 7), 5),
        20,
        0,
    ),
    "focused, sat": Task(
        lambda p: FocusedSearch(p, FocusedConfig(population=4, moves=1000, restart=8)),
        lambda: SAT.planted(jax.random.key(0), 100, 400),
        20,
    ),
    "memetic, trap": Task(
        lambda p: Memetic(TabuSearch(p, TabuConfig(population=32, moves=60)), POINTS),
        lambda: Trap.of(60),
        40,
    ),
}


@pytest.fixture(params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def task(name: str) -> Task:
    return TASKS[name]


def search(task: Task, seed: int = 1, **settings: Any) -> Any:
    problem = task.problem()
    settings = {"generations": task.generations, "scan_length": 4, "devices": 1} | settings
    return evolve(task.make(problem), problem, seed, progress=False, **settings)


@functools.cache
def whole(name: str) -> Any:
    """An uninterrupted run, which several tests look at."""
    return search(TASKS[name])


def test_it_reaches_the_bar(name: str, task: Task) -> None:
    problem = task.problem()
    bar = problem.optimum if task.bar is None else task.bar
    result = whole(name)
    assert result.fitness <= bar
    assert int(problem.fitness(problem.space.decode(problem.space.start), ())) > bar
    assert result.fitness == int(problem.fitness(result.solution, ()))
    space = problem.space
    assert bool(jnp.all((result.genes >= space.low) & (result.genes <= space.high)))


def test_another_seed_is_another_run(name: str, task: Task) -> None:
    first, second = whole(name), search(task, 2, generations=4)
    apart = first.fitness == second.fitness and not np.array_equal(first.genes, second.genes)
    assert first.metrics[:4] != second.metrics or apart  # both at once, at optima of their own


def test_it_resumes_to_the_same_bits_also_in_calls_of_another_length(
    name: str, task: Task, tmp_path: pathlib.Path
) -> None:
    first = search(task, folder=tmp_path, max_seconds=0.0)
    assert (first.stopped, first.generations) == ("time", 4)
    second = search(task, scan_length=2, folder=tmp_path, resume=True)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, second.carry, whole(name).carry))
    assert first.metrics + second.metrics == whole(name).metrics


def test_a_generation_holds_no_floats_and_no_data(task: Task) -> None:
    """The problem's arrays are arguments of a generation, not constants in its program."""
    problem, key = task.problem(), jax.random.key(0)
    algorithm = task.make(problem)
    carry = first_carry(algorithm, problem, key)

    def generation(problem: Problem, key: jax.Array, carry: Any) -> Any:
        rules = Rules(generations=9, target=0)
        return run_generation(algorithm, problem, key, carry, rules=rules, chunk=None, mesh=None)

    assert audit(generation, problem, key, carry).integer_only
    closed = jax.make_jaxpr(generation)(problem, key, carry)
    sizes = [np.size(constant) for constant in closed.consts]
    assert max(sizes, default=0) <= max(4096 * 16, problem.space.size)
    data = {a.shape for a in jax.tree.leaves(problem) if a.size > problem.space.size}
    assert data.isdisjoint(np.shape(constant) for constant in closed.consts)


def test_it_runs_in_an_evosax_loop(task: Task) -> None:
    problem = task.problem()
    es = task.make(problem)

    def run(key: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> Any:
            population, state = es.ask(key, state)
            fitness, _, _ = problem.eval(key, population, problem.init(key))
            return es.tell(key, population, fitness, state)

        return jax.lax.scan(step, es.init(key), jax.random.split(key, 3))

    keys = jnp.stack([jax.random.key(1), jax.random.key(2)])
    states, metrics = jax.jit(jax.vmap(run))(keys)
    assert states.best_solution.dtype == jnp.int8
    assert metrics["best_fitness"].shape == (2, 3)
    for solution, fitness in zip(states.best_solution, states.best_fitness, strict=True):
        assert int(problem.fitness(solution, ())) == int(fitness)
    alone, _ = jax.jit(run)(keys[0])
    np.testing.assert_array_equal(alone.best_solution, states.best_solution[0])


SHARDED = """
import dataclasses, json, jax
from test_local_search import TASKS, search

assert len(jax.devices()) == 4
found = {}
for name in ("tabu, colouring", "memetic, trap"):
    runs = [search(TASKS[name], generations=4, devices=d) for d in (1, 4, 2)]
    found[name] = [[run.metrics, run.genes.tolist()] for run in runs]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_chains_are_shared_out_over_devices_with_the_same_bits() -> None:
    """Four of them are forced on the host, in a process apart."""
    found = json.loads(on_devices(4, SHARDED))
    for name, (one, four, two) in found.items():
        assert one == four == two, name


def test_chains_side_by_side_walk_the_same_ways() -> None:
    problem = MaxCut.of(100, *random_graph(100, 500, 7))
    configs = [TabuConfig(population=4, moves=40, chains_at_once=n) for n in (1, 2, 4)]
    found = [
        evolve(TabuSearch(problem, c), problem, 0, generations=2, progress=False) for c in configs
    ]
    for other in found[1:]:
        assert jax.tree.all(jax.tree.map(jnp.array_equal, other.carry, found[0].carry))


def test_tabu_forbids_what_was_left_lately() -> None:
    """No gene moves twice within the tenure, but for a better solution than any before."""
    problem = MaxCut.of(60, *random_graph(60, 200, 3))
    config = TabuConfig(population=1, moves=400, tenure=8, tenure_spread=0, patience=10**6)
    genes = jnp.zeros(60, jnp.int8)
    _, journal = jax.jit(TabuSearch(problem, config).walk)(jax.random.key(0), genes, jnp.int32(0))
    positions, totals = np.asarray(journal.positions), np.asarray(journal.totals)
    lately = [p in positions[max(i - 8, 0) : i] for i, p in enumerate(positions)]
    aspires = totals < np.concatenate([[0], np.minimum.accumulate(totals)[:-1]]).clip(max=0)
    assert not (np.asarray(lately) & ~aspires).any()
    assert totals.min() < -100
    steps = np.diff(totals)
    assert (steps > 0).any()  # it goes on from a local optimum


def test_focused_search_draws_all_literals_of_a_long_clause() -> None:
    """Odds of 2**20 each would not fit int32 together."""
    size = 4096
    problem = SAT.of(size, [list(range(1, size + 1))])
    search = FocusedSearch(problem, FocusedConfig(population=64, moves=1))
    keys = jax.random.split(jax.random.key(0), 64)
    genes = jnp.zeros(size, jnp.int8)
    walk = jax.jit(jax.vmap(lambda key: search.walk(key, genes, jnp.int32(0))[1].positions))
    drawn = np.asarray(walk(keys)).reshape(-1)
    assert len(set(drawn.tolist())) > 50
    assert drawn.min() < size // 4
    assert drawn.max() >= size * 3 // 4


@pytest.mark.parametrize("clauses", [[[1, 2], [], [-1]], [[1, -2], [2, 3], []], [[], []]])
def test_focused_search_leaves_empty_clauses_alone(clauses: list[list[int]]) -> None:
    problem = SAT.of(3, clauses)
    search = FocusedSearch(problem, FocusedConfig(moves=20))
    genes = np.zeros(3, np.int8)
    _, journal = search.walk(jax.random.key(0), jnp.asarray(genes), jnp.int32(0))
    before = int(problem.fitness(jnp.asarray(genes), ()))
    for position, value, total in zip(*map(np.asarray, journal), strict=True):
        if position < 3:
            genes[position] = value
        assert problem.fitness(jnp.asarray(genes), ()) == before + total


def test_annealing_has_temperatures_where_nothing_changes() -> None:
    problem = MaxCut.of(5, [], [])
    search = Annealing(problem, AnnealingConfig(population=2, moves=20))
    assert search.temperatures[0] == 1
    assert search.temperatures[-1] == pytest.approx(0.15)
    assert evolve(search, problem, 0, generations=2, progress=False).fitness == 0


def test_annealing_accepts_as_metropolis_does() -> None:
    """A move that costs 1 is made about exp(-1 / T) as often as one that costs nothing."""
    edges = random_graph(200, 1200, 5)
    problem = MaxCut.of(200, *edges)
    config = AnnealingConfig(population=1, moves=60_000, cycle=1, hot=2.0, cold=2.0)
    search = Annealing(problem, config)
    genes = jnp.asarray(np.random.RandomState(0).randint(0, 2, 200), jnp.int8)
    _, journal = jax.jit(search.walk)(jax.random.key(0), genes, jnp.int32(0))
    delta = np.diff(np.asarray(journal.totals)[10_000:])
    # In equilibrium a move that costs d is made as often as one that gains d (detailed balance).
    for cost in (1, 2, 3, 4):
        up, down = (delta == cost).sum(), (delta == -cost).sum()
        assert abs(up - down) < 6 * np.sqrt(up + down + 1)
    for temperature in (0.3, 1.0, 4.0):
        search = Annealing(problem, AnnealingConfig(cycle=1, hot=temperature, cold=temperature))
        for cost in (0, 1, 3):
            made = (search.thresholds[0] >= cost).mean()
            assert abs(made - np.exp(-cost / temperature)) < 0.001


def test_the_best_solution_on_the_way() -> None:
    genes = jnp.zeros(4, jnp.int8)
    journal = Journal(
        jnp.asarray([2, 0, 2, 3], jnp.int32),
        jnp.asarray([5, 1, 6, 7], jnp.int8),
        jnp.asarray([4, -1, -3, 0], jnp.int32),
    )
    assert best_on_the_way(genes, journal).tolist() == [1, 0, 6, 0]
    worse = journal._replace(totals=jnp.asarray([4, 1, 0, 9], jnp.int32))
    assert best_on_the_way(genes, worse).tolist() == [0, 0, 0, 0]
    first = journal._replace(totals=jnp.asarray([-9, 1, -9, 9], jnp.int32))
    assert best_on_the_way(genes, first).tolist() == [0, 0, 5, 0]


@pytest.mark.parametrize(
    ("config", "idle", "anew"),
    [
        (MemeticConfig(), 49, False),
        (MemeticConfig(), 50, True),
        (MemeticConfig(patience=0), 10**6, False),
    ],
)
def test_a_pool_that_stays_the_same_is_drawn_anew(
    config: MemeticConfig, idle: int, *, anew: bool
) -> None:
    search = Memetic(TabuSearch(Trap.of(10), TabuConfig(population=4, moves=1)), config)
    state = search.start(jax.random.key(0)).replace(
        fitness=jnp.arange(4, dtype=jnp.int32), idle=jnp.int32(idle), generation=jnp.int32(60)
    )
    _, state = search.propose(jax.random.key(1), state)
    assert state.fitness.tolist() == ([0] + [WORST] * 3 if anew else [0, 1, 2, 3])


def test_the_pool_holds_each_solution_once() -> None:
    problem = Trap.of(10)
    search = Memetic(TabuSearch(problem, TabuConfig(population=8, moves=30)))
    result = evolve(search, problem, 0, generations=6, progress=False)
    state = result.carry.state
    scored = np.asarray(state.fitness) < 2**31 - 1
    pool = np.asarray(state.pool)[scored]
    assert len({row.tobytes() for row in pool}) == len(pool) > 1
    assert (np.diff(np.asarray(state.fitness)) >= 0).all()
    for genes, fitness in zip(pool, np.asarray(state.fitness)[scored], strict=True):
        assert int(problem.fitness(jnp.asarray(genes), ())) == fitness


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: TabuSearch(onemax()), "makes the moves of a MoveProblem, which FunctionProblem"),  # pyright: ignore
        (lambda p: FocusedSearch(p), "makes the moves of a FocusedProblem, which Trap is not"),
        (
            lambda p: FocusedSearch(TASKS["focused, sat"].problem(), FocusedConfig(exponent=-5)),
            "exponent must be 0 or more, got -5",
        ),
        (lambda p: TabuSearch(p, TabuConfig(moves=0)), "moves must be at least 1"),
        (lambda p: TabuSearch(p, TabuConfig(tenure=9, tenure_spread=9)), "leaves none of 10 genes"),
        (lambda p: TabuSearch(p, TabuConfig(patience=0)), "patience and kick at least 1"),
        (lambda p: Annealing(p, AnnealingConfig(hot=1.0, cold=2.0)), "must be above 0 and fall"),
        (lambda p: Memetic(TabuSearch(p), MemeticConfig(points=0)), "with at least 1 cut point"),
        (lambda p: Memetic(TabuSearch(p, TabuConfig(population=1))), "at least 2 members"),
        (lambda p: Memetic(TabuSearch(p, TabuConfig(restart=5))), "restart must be 0 .* got 5 and"),
        (lambda p: Memetic(TabuSearch(p, TabuConfig(random_start=False))), "got 0 and False; the"),
    ],
)
def test_settings_that_cannot_work(make: Callable[[Any], LocalSearch], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        make(Trap.of(10))

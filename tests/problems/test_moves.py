"""Incremental moves of every problem, against the fitness of all neighbours computed anew."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.core.moves import MoveProblem, any_place, least_at_random, weighted_choice
from qevo.core.selection import WORST
from qevo.problems import NK, QUBO, SAT, Coloring, Knapsack, MaxCut, Trap
from qevo.problems.rudy import random_graph


def _cut(vertices: int, edges: int) -> MaxCut:
    weight = np.random.RandomState(0).randint(-5, 6, edges)
    return MaxCut.of(vertices, *random_graph(vertices, edges, 1), weight)


def _qubo(size: int, entries: int) -> QUBO:
    draw = np.random.RandomState(1)
    first, second = draw.randint(0, size, (2, entries))
    return QUBO.of(size, first, second, draw.randint(-99, 100, entries), maximise=True)


def _sat(variables: int, clauses: int) -> SAT:
    """Clauses of 1 to 4 literals, also with a variable twice; weighted, some hard."""
    draw = np.random.RandomState(2)
    lists = [
        [int(v) for v in draw.randint(1, variables + 1, draw.randint(1, 5)) * draw.choice([-1, 1])]
        for _ in range(clauses)
    ]
    weights, hard = draw.randint(1, 9, clauses).tolist(), (draw.rand(clauses) < 0.2).tolist()
    return SAT.of(variables, [*lists, [1, -1], [2, 2, -3]], [*weights, 5, 4], [*hard, True, False])


PROBLEMS: dict[str, Callable[[], MoveProblem]] = {
    "max-cut, dense": lambda: _cut(40, 150),
    "max-cut, lists": lambda: _cut(200, 150),
    "qubo, dense": lambda: _qubo(30, 200),
    "qubo, lists": lambda: _qubo(300, 300),
    "sat": lambda: _sat(200, 600),
    "planted": lambda: SAT.planted(jax.random.key(1), 30, 120),
    "knapsack": lambda: Knapsack.random(jax.random.key(2), 30),
    "nk": lambda: NK.random(jax.random.key(3), 150, 4),
    "nk, k = 0": lambda: NK.random(jax.random.key(3), 8, 0),
    "trap": lambda: Trap.of(20),
    "colouring, dense": lambda: Coloring.of(25, *random_graph(25, 90, 2), 4),
    "colouring, lists": lambda: Coloring.of(300, *random_graph(300, 290, 2), 4),
}


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> MoveProblem:
    return PROBLEMS[request.param]()


def _walk(problem: MoveProblem, genes: np.ndarray, length: int) -> tuple[Any, Any, list[int]]:
    """Random moves, some of them to the present value, and the sum of the changes they announce."""
    draw = np.random.RandomState(5)
    positions = draw.randint(0, problem.space.size, length)
    low, high = (np.asarray(part)[positions] for part in (problem.space.low, problem.space.high))
    values = draw.randint(low, high.astype(int) + 1).astype(np.int8)

    def step(carry: Any, move: Any) -> Any:
        genes, state = carry
        position, value = move
        level = (value - problem.space.low[position]).astype(jnp.int32)
        change = state.change
        change = change[position] if change.ndim == 1 else change[position, level]
        change = jnp.where(genes[position] == value, 0, change)
        state = problem.move(genes, state, position, value)
        return (genes.at[position].set(value), state), change

    first = jnp.asarray(genes), problem.moves(jnp.asarray(genes))
    moves = jnp.asarray(positions, jnp.int32), jnp.asarray(values)
    (end, state), changes = jax.jit(lambda f, m: jax.lax.scan(step, f, m))(first, moves)
    return np.asarray(end), state, np.asarray(changes).tolist()


def test_changes_after_many_moves_are_those_of_all_neighbours(problem: MoveProblem) -> None:
    space = problem.space
    low, high = np.asarray(space.low, int), np.asarray(space.high, int)
    start = np.random.RandomState(4).randint(low, high + 1).astype(np.int8)
    genes, state, announced = _walk(problem, start, 80)

    levels = int((high - low).max()) + 1
    neighbours = np.tile(genes, (space.size, levels, 1))
    for gene in range(space.size):
        neighbours[gene, :, gene] = low[gene] + np.arange(levels)
    score = jax.jit(jax.vmap(lambda genes: problem.fitness(space.decode(genes), ())))
    before, now = np.asarray(score(np.stack([start, genes])))
    found = np.asarray(score(neighbours.reshape(-1, space.size))).reshape(-1, levels) - now
    if state.change.ndim == 1:
        found = found[np.arange(space.size), 1 - (genes - low)]
    np.testing.assert_array_equal(state.change, found)
    assert sum(announced) == now - before
    anew = jax.jit(problem.moves)(jnp.asarray(genes))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state, anew))


@pytest.mark.parametrize("name", ["sat", "planted"])
def test_a_violated_clause_and_what_its_flips_break(name: str) -> None:
    problem = PROBLEMS[name]()
    assert isinstance(problem, SAT)
    variables, size = np.asarray(problem.variables), problem.space.size
    focus, flip = jax.jit(problem.focus), jax.jit(problem.flip)
    draw = np.random.RandomState(6)
    genes = jnp.asarray(draw.randint(0, 2, size).astype(np.int8))
    state = problem.focused(genes)
    met = set()
    for _ in range(60):
        true = np.asarray(problem.true_literals(genes))
        positions, breaks = focus(genes, state, jnp.uint32(draw.randint(0, 2**32, dtype=np.int64)))
        row = tuple(np.asarray(positions))
        assert not (true == 0).any() or row in map(tuple, variables[true == 0])
        met.add(row)
        for position, count in zip(row, np.asarray(breaks).tolist(), strict=True):
            if position < size:
                flipped = genes.at[int(position)].set(1 - genes[int(position)])
                after = np.asarray(problem.true_literals(flipped))
                assert count == ((true > 0) & (after == 0)).sum()
        position = int(draw.choice([p for p in row if p < size]))
        state = flip(genes, state, jnp.int32(position))
        genes = genes.at[position].set(1 - genes[position])
    assert len(met) > 10
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state, problem.focused(genes)))
    assert int(state.fitness) == int(problem.fitness(genes, ()))


def test_random_places_come_in_proportion() -> None:
    draws = jax.random.bits(jax.random.key(0), (20_000,), jnp.uint32)
    weights = jnp.asarray([0, 3, 0, 1, 6, 0], jnp.int32)
    chosen, before = jax.vmap(lambda d: weighted_choice(weights, d))(draws)
    count = np.bincount(np.asarray(chosen), minlength=6)
    assert (np.abs(count - np.asarray(weights) * 2000) < 200).all()
    assert set(zip(chosen.tolist(), before.tolist(), strict=True)) == {(1, 0), (3, 3), (4, 4)}

    scores = jnp.full(300, WORST).at[jnp.asarray([0, 7, 131, 255, 299])].set(-4).at[9].set(-3)
    count = np.bincount(np.asarray(jax.vmap(lambda d: least_at_random(scores, d))(draws)))
    assert np.nonzero(count)[0].tolist() == [0, 7, 131, 255, 299]
    assert (np.abs(count[count > 0] - 4000) < 400).all()
    assert int(any_place(jnp.asarray([False, True]), draws[0])) == 1


@pytest.mark.parametrize("size", [2, 3, 1000, 200_000])
def test_a_random_one_of_many_places(size: int) -> None:
    """Also of so many that few bits of a hash are left to tell them apart by."""
    draws = jax.random.bits(jax.random.key(1), (600,), jnp.uint32)
    everywhere = jnp.ones(size, bool)
    places = np.asarray(jax.lax.map(lambda draw: any_place(everywhere, draw), draws))
    assert abs(np.mean(places) / (size - 1) - 0.5) < 0.05
    quarters = np.bincount(places * min(size, 4) // size, minlength=min(size, 4))
    assert quarters.min() > 0.75 * len(draws) / len(quarters)

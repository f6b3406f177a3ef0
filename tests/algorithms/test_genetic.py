"""The genetic algorithm: who is a parent, what children are made of, and who stays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import onemax, quadratic

from qevo.algorithms import Genetic, GeneticConfig, GeneticState
from qevo.core import Algorithm, Problem, Space
from qevo.errors import QevoError

KEY = jax.random.key(0)


def generations(algorithm: Algorithm, problem: Problem, count: int) -> Any:
    """States before and after each generation, candidates, fitness and metrics, stacked."""

    def step(state: GeneticState, key: jax.Array) -> Any:
        proposal, state = algorithm.propose(key, state)
        score = jax.vmap(lambda genes: problem.fitness(problem.space.decode(genes), ()))
        fitness = score(proposal.values)
        after, metrics = algorithm.update(key, proposal, fitness, state)
        return after, (state, after, proposal.values, fitness, metrics)

    run = jax.jit(lambda keys: jax.lax.scan(step, algorithm.start(KEY), keys)[1])
    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(1), count)))


def marked(**settings: Any) -> tuple[Genetic, GeneticState]:
    """A population whose member i has level i everywhere, and is the i-th best."""
    algorithm = Genetic(Space.integers(60, 0, 15), GeneticConfig(population=16, **settings))
    state = algorithm.start(KEY)
    return algorithm, state.replace(
        population=jnp.tile(jnp.arange(16, dtype=jnp.int8)[:, None], (1, 60)),
        fitness=jnp.arange(16, dtype=jnp.int32),
        generation=jnp.int32(5),
    )


def children(algorithm: Genetic, state: GeneticState, count: int = 100) -> np.ndarray:
    draw = jax.jit(jax.vmap(lambda key: algorithm.propose(key, state)[0].values))
    return np.asarray(draw(jax.random.split(KEY, count))).reshape(-1, 60)


@pytest.mark.parametrize("offspring", [10, 4, 3])
def test_the_best_of_parents_and_children_stay(offspring: int) -> None:
    problem = quadratic()
    algorithm = Genetic(problem.space, GeneticConfig(population=10, offspring=offspring, levels=2))
    before, after, _, fitness, metrics = generations(algorithm, problem, 25)
    first = -(-10 // offspring)
    score = jax.vmap(lambda genes: problem.fitness(problem.space.decode(genes), ()))
    for g in range(25):
        scored = np.asarray(score(after.population[g]))
        if g < first - 1:
            continue
        np.testing.assert_array_equal(after.fitness[g], scored)  # each has its own fitness
        if g >= first:
            pool = np.concatenate([before.fitness[g], fitness[g]])
            assert sorted(scored) == sorted(pool)[:10]
    np.testing.assert_array_equal(after.population[first - 1], before.population[0])
    assert before.population[0][0].tolist() == problem.space.start.tolist()
    assert metrics["kept"][first:].sum() > 0
    assert after.fitness[-1].min() < after.fitness[first - 1].min()


def test_generational_replacement_scores_the_elite_anew() -> None:
    problem = onemax(40)
    config = GeneticConfig(population=12, replacement="generational", elite=3)
    before, after, candidates, fitness, _ = generations(Genetic(problem.space, config), problem, 20)
    np.testing.assert_array_equal(after.population, candidates)
    np.testing.assert_array_equal(after.fitness, fitness)
    for g in range(1, 20):
        best = np.argsort(before.fitness[g], kind="stable")[:3]
        np.testing.assert_array_equal(candidates[g][:3], before.population[g][best])
    assert np.all(np.diff(fitness.min(axis=1)) <= 0)


@pytest.mark.parametrize("tournament", [1, 3])
def test_the_best_of_a_tournament_is_a_parent(tournament: int) -> None:
    algorithm, state = marked(tournament=tournament, crossed=0.0, mutated=0.0)
    made = children(algorithm, state, 300)
    parent = np.median(made, axis=1)
    rank = np.arange(16)
    odds = ((16 - rank) ** tournament - (15 - rank) ** tournament) / 16**tournament
    found = np.bincount(parent.astype(int), minlength=16) / len(parent)
    np.testing.assert_allclose(found, odds, atol=0.03)
    # A child of one parent shifts one gene at least; with no mutation it is just one.
    np.testing.assert_array_equal(np.sum(made != parent[:, None], axis=1), 1)


def test_uniform_crossover_takes_each_gene_from_either_parent() -> None:
    algorithm, state = marked(crossed=1.0, mutated=0.0)
    made = children(algorithm, state)
    kinds = np.array([len(set(child)) for child in made])
    assert set(kinds) == {1, 2}
    mixed = made[kinds == 2]
    share = np.mean(mixed == mixed[:, :1], axis=0)[1:]
    np.testing.assert_allclose(share, 0.5, atol=0.06)
    assert abs(np.corrcoef(mixed[:, 1] == mixed[:, 0], mixed[:, 2] == mixed[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("points", [1, 2, 5])
def test_point_crossover_takes_runs(points: int) -> None:
    algorithm, state = marked(crossed=1.0, mutated=0.0, crossover="points", points=points)
    made = children(algorithm, state)
    runs = 1 + np.sum(made[:, 1:] != made[:, :-1], axis=1)
    assert runs.max() == points + 1
    assert max(len(set(child)) for child in made) == 2
    ends = np.flatnonzero(np.any(made[:, 1:] != made[:, :-1], axis=0))
    assert len(ends) > 50  # anywhere


@pytest.mark.parametrize("mutation", ["binomial", "heavy-tailed"])
def test_mutation_is_sparse_and_as_often_as_set(mutation: Any) -> None:
    algorithm, state = marked(
        crossed=1.0, tournament=1, mutation=mutation, mutated=2.0, slots=12, levels=2
    )
    state = state.replace(population=jnp.full((16, 60), 7, jnp.int8))
    shift = children(algorithm, state, 300).astype(int) - 7
    count = np.sum(shift != 0, axis=1)
    assert set(np.abs(shift[shift != 0])) == {1, 2}
    assert count.max() <= 12
    strength = np.arange(1, 13)
    law = strength**-1.5 / np.sum(strength**-1.5)
    mean = 2.0 if mutation == "binomial" else np.sum(law * strength)
    assert abs(count.mean() - mean) < 0.1
    assert (np.mean(count > 8) > 0.02) == (mutation == "heavy-tailed")


def test_a_search_may_begin_at_the_start_alone() -> None:
    problem = quadratic()
    algorithm = Genetic(problem.space, GeneticConfig(population=6, initial="start"))
    population = np.asarray(algorithm.start(KEY).population)
    np.testing.assert_array_equal(population, np.tile(problem.space.start, (6, 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replacement": "none"}, "replacement must be one of steady, generational, got 'none'"),
        (
            {"crossover": "two"},
            "crossover must be one of uniform, points, with at least 1 cut point, got 'two'",
        ),
        ({"mutation": "all"}, "mutation must be one of binomial, heavy-tailed, got 'all'"),
        ({"initial": "zero"}, "initial must be one of uniform, start, got 'zero'"),
        ({"population": 1}, "2 to 65535 members and at most as many offspring, got 1 and 1"),
        ({"population": 8, "offspring": 9}, "at most as many offspring, got 8 and 9"),
        (
            {"population": 8, "offspring": 4, "replacement": "generational"},
            "needs as many offspring as members, and an elite of fewer, got 4, 8 and 1",
        ),
        ({"tournament": 0}, "tournament must be at least 1"),
        ({"mutated": 20.0}, "slots must be 1 to 65536 and hold the mutated genes"),
        ({"exponent": 1.0}, "the exponent of a power law must lie in 1..4"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        Genetic(onemax(9).space, GeneticConfig(**settings))
    with pytest.raises(QevoError, match="no gene can move"):
        Genetic(Space.integers(3, 2, 2))

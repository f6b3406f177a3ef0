"""Problems: chunks, the evosax face, and fitness that is no integer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from support import Medians, Walk, onemax, quadratic

from qevo.core import FunctionProblem, Problem, Space, evolve


@struct.dataclass
class Careless(Problem):
    """A user's problem that forgets to stay in integers."""

    space: Space

    def fitness(self, solution: Any, batch: Any) -> Any:
        return jnp.mean(solution)


@pytest.mark.parametrize("problem", [onemax(), quadratic(), Medians.of()], ids=["a", "b", "c"])
def test_scores_do_not_depend_on_the_chunk(problem: Problem) -> None:
    walk, key = Walk(problem.space, 10), jax.random.key(0)
    state = walk.start(key)
    proposal, _ = walk.propose(key, state)
    batch = problem.batch(key)
    parts = (state.genes, proposal.positions, proposal.rows, proposal.values, batch)
    one = jax.jit(lambda genes: problem.fitness(problem.space.decode(genes), batch))
    expected = [int(one(genes)) for genes in proposal.apply(state.genes)]
    for chunk in (None, 1, 3, 5, 64):
        scores = jax.jit(partial(problem.scores, chunk=chunk))(*parts)
        assert scores.dtype == jnp.int32
        assert scores.tolist() == expected


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_eval_scores_a_population_as_evosax_does(chunk: int | None) -> None:
    problem, key = quadratic().replace(candidate_chunk=chunk), jax.random.key(4)
    population = jax.vmap(problem.sample)(jax.random.split(key, 5))
    fitness, state, _ = problem.eval(key, population, problem.init(key))
    assert fitness.dtype == jnp.int32
    assert state.counter == 1
    one = jax.jit(problem.function)
    for i, value in enumerate(fitness.tolist()):
        assert value == int(one(jax.tree.map(lambda leaf, i=i: leaf[i], population)))
    assert problem.num_dims == problem.space.size


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Careless(Space.integers(4, 0, 1)), r"got float32\[\]"),
        (FunctionProblem(Space.integers(4, 0, 1), lambda x: x), r"got int8\[4\]"),
        (FunctionProblem(Space.integers(4, 0, 1), lambda x: jnp.sum(x) / 2), r"got float32\[\]"),
        (FunctionProblem(Space.integers(4, 0, 1), lambda x: x[0] > 0), r"got bool\[\]"),
    ],
)
def test_fitness_must_be_one_integer(problem: Problem, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        evolve(Walk(problem.space), problem, 0, generations=1, progress=False)
    population = jnp.zeros((2, 4), jnp.int8)
    with pytest.raises(TypeError, match=message):
        problem.eval(jax.random.key(0), population, problem.init(jax.random.key(0)))


def test_the_description_tells_data_and_functions_apart() -> None:
    first = Medians.of()
    other = first.replace(measured=first.measured.at[3, 4].add(1))
    assert first.describe() == Medians.of().describe()
    assert first.describe() != other.describe()
    assert onemax(8).describe() != onemax(9).describe()
    assert onemax(8).describe()["function"] == "onemax.<locals>.zeros"


def test_samples_are_solutions() -> None:
    problem = quadratic()
    solution = problem.sample(jax.random.key(0))
    for part, leaf in zip(problem.space.layout, jax.tree.leaves(solution), strict=True):
        assert (leaf.shape, leaf.dtype.name) == (part.shape, part.dtype)
    genes = np.asarray(problem.space.encode(solution))
    assert np.all(genes >= problem.space.low)
    assert np.all(genes <= problem.space.high)

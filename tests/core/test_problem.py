"""Problems: chunks, the evosax face, and fitness that is no integer."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxprs_in_params
from support import Medians, Walk, onemax, quadratic

from qevo.core import FunctionProblem, Leaf, Problem, Proposal, Space, blocks, evolve
from qevo.core.blocks import Place
from qevo.core.problem import int32_scalar


@struct.dataclass
class Careless(Problem):
    """A user's problem that forgets to stay in integers."""

    space: Space

    def fitness(self, solution: Any, batch: Any) -> Any:
        return jnp.mean(solution)


@struct.dataclass
class Products(Problem):
    """Two matrix products over a batch of rows, the first one under a name; blocks of each kind."""

    space: Space
    rows: jax.Array  # int32 [B, 3]
    batch_chunk: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(cls, batch_chunk: int | None) -> "Products":
        step = np.arange(1, 5)
        second = Leaf((4, 3), -9, 9, 1, base=100, step=step[:, None], dtype=np.int32)
        space = Space.of(
            {"a_first": Leaf((3, 4), -9, 9, 1), "bias": Leaf((4,), -9, 9, 1), "second": second}
        )
        space = space.with_blocks([(["a_first"], 3), (["second"], 2), (["bias"], None)])
        rows = np.random.RandomState(0).randint(-9, 9, (11, 3))
        return cls(space, jnp.asarray(rows, jnp.int32), batch_chunk)

    def batch(self, key: jax.Array) -> jax.Array:
        return self.rows

    def fitness(self, solution: Any, batch: Any) -> jax.Array:
        hidden = checkpoint_name(batch @ solution["a_first"].astype(jnp.int32), "hidden")
        hidden = jnp.abs(hidden + solution["bias"])
        return jnp.sum(jnp.abs(hidden @ solution["second"]))


@pytest.mark.parametrize("problem", [onemax(), quadratic(), Medians.of()], ids=["a", "b", "c"])
def test_scores_do_not_depend_on_the_chunk(problem: Problem) -> None:
    walk, key = Walk(problem.space, 10), jax.random.key(0)
    state = walk.start(key)
    proposal, _ = walk.propose(key, state)
    batch = problem.batch(key)
    one = jax.jit(lambda genes: problem.fitness(problem.space.decode(genes), batch))
    expected = [int(one(genes)) for genes in proposal.apply(state.genes)]
    for chunk in (None, 1, 3, 5, 64):
        scores = jax.jit(partial(problem.scores, chunk=chunk))(state.genes, proposal.share, batch)
        assert scores.dtype == jnp.int32
        assert scores.tolist() == expected


def products_per_candidate(jaxpr: Any, *, inside: bool = False) -> list[int]:
    """Matrix products in the loop over candidates of each block."""
    found, here = [], 0
    for eqn in jaxpr.eqns:
        here += inside and eqn.primitive.name == "dot_general"
        for inner in jaxprs_in_params(eqn.params):
            found += products_per_candidate(inner, inside=eqn.primitive.name == "scan")
    return [here, *found] if here else found


@pytest.mark.parametrize(("batch_chunk", "chunk"), [(None, 4), (1, None), (4, 1)])
def test_a_block_scores_as_the_whole_at_every_place(
    batch_chunk: int | None, chunk: int | None
) -> None:
    problem, draw = Products.of(batch_chunk), np.random.RandomState(2)
    space, batch = problem.space, problem.batch(jax.random.key(0))
    context = jnp.asarray(draw.randint(-9, 10, space.size), jnp.int8)
    score = jax.jit(partial(problem.scores, chunk=chunk))
    one = jax.jit(lambda genes: problem.fitness(space.decode(genes), batch))
    for number, channel in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)):
        block = space.blocks[number]
        size = blocks.size(space, block)
        within = np.stack([draw.permutation(size + 1)[: size - 1] for _ in range(2)])  # padded
        positions = blocks.positions_at(space, block, jnp.int32(channel), jnp.asarray(within))
        values = jnp.asarray(draw.randint(-9, 10, (6, size - 1)), jnp.int8)
        place = Place(jnp.int32(number), jnp.int32(channel))
        proposal = Proposal(positions, values, place, jnp.asarray(within, jnp.int32))
        expected = [int(one(genes)) for genes in proposal.apply(context)]
        assert len(set(expected)) == 6
        assert score(context, proposal.share, batch).tolist() == expected


def test_candidates_of_a_block_share_what_it_cannot_change() -> None:
    problem = Products.of(None)
    zeros = jnp.zeros((1, 3), jnp.int32), jnp.zeros((4, 3), jnp.int8)
    place = Place(jnp.int32(0), jnp.int32(0))
    parts = problem.space.start, Proposal(*zeros, place, zeros[0]).share, problem.rows
    jaxpr = jax.make_jaxpr(partial(problem.scores, chunk=1))(*parts).jaxpr
    assert products_per_candidate(jaxpr) == [2, 1, 1]


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_eval_scores_a_population_as_evosax_does(chunk: int | None) -> None:
    problem, key = dataclasses.replace(quadratic(), candidate_chunk=chunk), jax.random.key(4)
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
        (FunctionProblem(Space.integers(4, 0, 1), lambda x: x), r"got int32\[4\]"),
        (FunctionProblem(Space.integers(4, 0, 1), lambda x: jnp.sum(x) / 2), r"got float32\[\]"),
        (FunctionProblem(Space.integers(4, 0, 1), lambda x: x[0] > 0), r"got bool\[\]"),
        (
            FunctionProblem(Space.integers(4, 0, 1), lambda x: jnp.sum(x, dtype=jnp.uint32)),
            "must be int32, got uint32: compute in int32",
        ),
    ],
)
def test_fitness_must_be_one_integer(problem: Problem, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        evolve(Walk(problem.space), problem, 0, generations=1, progress=False)
    population = jnp.zeros((2, 4), jnp.int32)
    with pytest.raises(TypeError, match=message):
        problem.eval(jax.random.key(0), population, problem.init(jax.random.key(0)))


def test_a_fitness_may_be_an_int_and_no_wider_than_int32() -> None:
    assert int32_scalar(5).dtype == jnp.int32
    with pytest.raises(TypeError, match="fitness must be int32, got int64"):
        int32_scalar(np.int64(2**32 + 5))
    with jax.enable_x64(True):
        assert int32_scalar(5).dtype == jnp.int32
        with pytest.raises(TypeError, match=r"got int64: .* jnp\.sum\(x, dtype=jnp\.int32\)"):
            int32_scalar(jnp.sum(jnp.arange(3)))


def test_the_description_tells_data_and_functions_apart() -> None:
    first = Medians.of()
    other = dataclasses.replace(first, measured=first.measured.at[3, 4].add(1))
    assert first.describe() == Medians.of().describe()
    assert first.describe() != other.describe()
    assert onemax(8).describe() != onemax(9).describe()
    assert onemax(8).describe()["function"] == "onemax.<locals>.zeros"


def test_samples_are_solutions() -> None:
    problem = quadratic()
    solution = problem.sample(jax.random.key(0))
    for part, leaf in zip(problem.space.layout, jax.tree.leaves(solution), strict=True):
        assert (leaf.shape, leaf.dtype.name) == (part.shape, part.dtype)
    within = problem.space.decode(problem.space.encode(solution))  # which is cut to the bounds
    assert jax.tree.all(jax.tree.map(jnp.array_equal, within, solution))

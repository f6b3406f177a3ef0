"""Directed evolution of whole filters, and of at most n survivors of m: what goes, and how much."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from directed_task import CONFIG, KEY, problem, run, space, states

from qevo.algorithms.directed import Directed, DirectedConfig
from qevo.core import Leaf, Space
from qevo.errors import QevoError
from qevo.integer import audit

FILTERS = dataclasses.replace(
    CONFIG, pattern="filters", zeros=(("a", 0.5), ("b", 0.3)), shifted=8, slots=8, focus=1
)
GROUPS = dataclasses.replace(CONFIG, pattern=(2, 3), zeros=(("a", 0.0), ("b", 0.0)))


def matrices(genes: Any) -> tuple[np.ndarray, np.ndarray]:
    genes = np.asarray(genes)
    return genes[:200].reshape(20, 10), genes[200:280].reshape(8, 10)


def survivors(matrix: np.ndarray, of: int) -> np.ndarray:
    """How many there are in each run of rows, the last one being shorter."""
    runs = [matrix[first : first + of] for first in range(0, len(matrix), of)]
    return np.array([np.count_nonzero(run, axis=0) for run in runs])


def test_filters_go_whole_and_come_back_whole() -> None:
    config = dataclasses.replace(FILTERS, zeroing=2, restoring=1, repairing=0, step=0.2)
    start = matrices(space().start)
    gone = [tuple(channels(part) for part in matrices(s.genes)) for s in states(config, 40)]
    assert gone[0] == (0, 0)
    assert min(gone[-3:]) >= (4, 2)  # the last generations may have given some back
    assert (5, 3) in gone
    returned = 0
    for before, after in itertools.pairwise(states(config, 40)):
        for was, now, first in zip(
            matrices(before.genes), matrices(after.genes), start, strict=True
        ):
            assert channels(now) - channels(was) <= 2  # a fifth of ten
            stood, stands = was.any(axis=0), now.any(axis=0)
            assert not np.any((now == 0) & (was != 0) & stands)  # survivors stay
            back = ~stood & stands
            np.testing.assert_array_equal(now[:, back], first[:, back])
            returned += back.sum()
    assert returned > 0


def channels(matrix: np.ndarray) -> int:
    return int((~matrix.any(axis=0)).sum())


@pytest.mark.parametrize("most", [1, 500, 1 << 16])
def test_the_first_answer_zeroes_the_filters_of_least_saliency(most: int) -> None:
    draw = np.random.RandomState(3).randint(1, most + 1, space().size)
    search = Directed(space(), FILTERS, draw)
    found = matrices(search.solution(search.start(KEY)))
    weights = matrices(draw.astype(np.float64) * np.asarray(space().start, float) ** 2)
    for part, worth, count in zip(found, weights, (5, 3), strict=True):
        gone = ~part.any(axis=0)
        assert gone.sum() == count
        assert worth.sum(0)[gone].max() <= worth.sum(0)[~gone].min()
        np.testing.assert_array_equal(part[:, ~gone] != 0, (worth != 0)[:, ~gone])


def test_filters_of_most_saliency_come_back_first() -> None:
    """By their sums: one small weight does not make a filter worth little."""
    genes = np.full((9, 20), 1)
    genes[1:, 10:] = 100
    here = Space.of({"a": Leaf((9, 20), -127, 127, genes)})
    config = DirectedConfig(
        (("a", 0.9),), "filters", population=4, committed=2, slots=9, shifted=1, focus=4
    )
    search = Directed(here, dataclasses.replace(config, zeroing=1, restoring=1, repairing=0))
    state = search.start(KEY)
    genes = jnp.zeros((9, 20), jnp.int8).at[:, 0].set(1).reshape(-1)
    state = state.replace(genes=genes, generation=jnp.int32(1))
    propose = jax.jit(lambda key: search.propose(key, state)[0].positions)
    drawn = np.concatenate([np.asarray(propose(key)[1:]).ravel() for key in jax.random.split(KEY)])
    drawn = drawn[drawn < here.size]
    assert len(drawn) >= 9 * 4
    assert np.all(drawn % 20 >= 10)


@pytest.mark.parametrize("config", [FILTERS, GROUPS])
def test_what_goes_costs_less_than_by_saliency_alone(config: DirectedConfig) -> None:
    result = run(config, 80)
    first = Directed(space(), config)
    plain = first.solution(first.start(KEY))
    task = problem()
    assert result.fitness < int(task.fitness(task.space.decode(plain), ()))
    a, b = matrices(task.space.encode(result.solution))
    if config is FILTERS:
        assert (channels(a), channels(b)) == (5, 3)
    else:
        assert survivors(a, 3).max() == survivors(b, 3).max() == 2


def test_runs_keep_as_many_as_they_may() -> None:
    config = dataclasses.replace(GROUPS, step=0.4, repairing=0)
    begun = [survivors(part, 3) for part in matrices(space().start)]
    for state in states(config, 30)[1:]:
        for part, first in zip(matrices(state.genes), begun, strict=True):
            assert np.all(survivors(part, 3) >= np.minimum(first, 2))
    for part, first in zip(matrices(state.genes), begun, strict=True):
        np.testing.assert_array_equal(survivors(part, 3), np.minimum(first, 2))
    search = Directed(space(), config)
    for part in matrices(search.solution(search.start(KEY))):
        assert survivors(part, 3).max() == 2


def test_zeros_that_lie_badly_do_not_count_for_a_pattern() -> None:
    """Runs without survivors do not make up for runs with too many."""
    genes = np.ones((8, 4), int)
    genes[:4] = 0
    here = Space.of({"a": Leaf((8, 4), -1, 1, genes)})
    config = dataclasses.replace(GROUPS, pattern=(2, 4), zeros=(("a", 0.5),), step=0.5, repairing=0)
    search = Directed(here, config)
    state = search.start(KEY)
    propose, update = jax.jit(search.propose), jax.jit(search.update)
    for key in jax.random.split(KEY, 6):
        proposal, state = propose(key, state)
        state, metrics = update(key, proposal, jnp.zeros(16, jnp.int32), state)
    assert survivors(np.asarray(state.genes).reshape(8, 4), 4).tolist() == [[0] * 4, [2] * 4]
    assert int(metrics["missing"]) == 0


@pytest.mark.parametrize("config", [FILTERS, GROUPS])
def test_patterns_hold_no_float(config: DirectedConfig) -> None:
    search = Directed(space(), config)
    state = search.start(KEY)
    proposal = search.propose(KEY, state)[0]
    assert audit(search.propose, KEY, state).integer_only
    assert audit(search.update, KEY, proposal, jnp.zeros(16, jnp.int32), state).integer_only
    assert audit(search.solution, state).integer_only


@pytest.mark.parametrize("pattern", ["blocks", 4, (2, 2), (0, 4), (1, 2, 3), (1, 65)])
def test_patterns_that_there_are_not(pattern: Any) -> None:
    with pytest.raises(QevoError, match="a pattern is 'free', 'filters' or"):
        Directed(space(), dataclasses.replace(CONFIG, pattern=pattern))


@pytest.mark.parametrize("pattern", ["filters", (2, 4)])
@pytest.mark.parametrize("shape", [(12,), ()])
def test_patterns_need_channels(pattern: Any, shape: tuple[int, ...]) -> None:
    flat = Space.of({"a": Leaf(shape, -1, 1, 1)})
    config = dataclasses.replace(CONFIG, pattern=pattern, zeros=(("a", 0.5),), slots=1, shifted=1)
    with pytest.raises(QevoError, match="a has one axis at most"):
        Directed(flat, config)

"""The vote evolution strategy: mirrored steps, what votes add up to, and what chance moves."""

import functools
import math
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.algorithms import VoteConfig, VoteES, VoteState
from qevo.core import Leaf, Proposal, Space
from qevo.errors import QevoError

KEY = jax.random.key(0)


def space() -> Space:
    """Genes in the middle, at either bound, and two that cannot move."""
    start = [0] * 30 + [-5] * 5 + [5] * 5 + [1, 1]
    low, high = [-5] * 40 + [1, 1], [5] * 40 + [1, 1]
    return Space.of(Leaf((42,), low, high, start))


def test_pairs_mirror_each_other_within_the_bounds() -> None:
    algorithm = VoteES(space(), VoteConfig(population=8, group=10))
    state = algorithm.start(KEY)
    propose = jax.jit(jax.vmap(lambda k: algorithm.propose(k, state)[0]))
    drawn = propose(jax.random.split(KEY, 50))
    start = np.asarray(state.parent, int)
    seen = set()
    for positions, values in zip(*map(np.asarray, (drawn.positions, drawn.values)), strict=True):
        for pair, genes in enumerate(positions):
            assert len(set(genes.tolist())) == 10
            first, second = values[2 * pair] - start[genes], values[2 * pair + 1] - start[genes]
            middle = genes < 30
            np.testing.assert_array_equal(first[middle], -second[middle])
            np.testing.assert_array_equal(np.abs(first - second), np.where(middle, 2, 1))
            seen |= set(zip(genes.tolist(), first.tolist(), strict=True))
    assert {gene for gene, _ in seen} == set(range(40))
    assert {step for gene, step in seen if 30 <= gene < 35} == {0, 1}
    assert {step for gene, step in seen if 35 <= gene < 40} == {-1, 0}


def test_votes_add_up_and_move_a_gene_by_one_level() -> None:
    algorithm = VoteES(space(), VoteConfig(6, 3, chance=0.2, memory=0.5, least=3))
    state = algorithm.start(KEY)
    positions = jnp.array([[0, 1, 30], [0, 2, 31], [0, 1, 42]], jnp.int32)
    steps = jnp.array([[1, 1, 1], [1, -1, 0], [-1, 1, 0]], jnp.int32)
    old = state.parent.at[positions].get(mode="clip")
    values = jnp.stack([old + steps, old - steps], axis=1)
    values = jnp.clip(values, -5, 5).reshape(6, 3).astype(jnp.int8)
    fitness = jnp.array([1, 2, 1, 2, 2, 1], jnp.int32)  # gene 0: three votes for more
    after, metrics = algorithm.update(KEY, Proposal(positions, values), fitness, state)
    moved = np.asarray(after.parent, int) - np.asarray(state.parent)
    np.testing.assert_array_equal(np.flatnonzero(moved), [0])
    assert moved[0] == int(metrics["moved"]) == 1
    # Gene 0 starts again; gene 1 has a vote each way, gene 2 one for less, gene 30 one for more.
    votes, variance = np.asarray(after.votes) / 64, np.asarray(after.variance) / 64
    np.testing.assert_array_equal(votes[[0, 1, 2, 30, 31, 41]], [0, 0, -1, 1, 0, 0])
    np.testing.assert_array_equal(variance[[0, 1, 2, 30, 31, 41]], [0, 2, 1, 1, 0, 0])
    # A tie has no vote; what is kept halves, and its variance quarters.
    level = jnp.zeros(6, jnp.int32)
    later, metrics = algorithm.update(KEY, Proposal(positions, values), level, after)
    assert int(metrics["ties"]) == 3
    np.testing.assert_array_equal(np.asarray(later.votes)[[1, 2, 30]] / 64, [0, -0.5, 0.5])
    np.testing.assert_array_equal(np.asarray(later.variance)[[1, 2, 30]] / 64, [0.5, 0.25, 0.25])


def test_chance_moves_as_many_genes_as_it_may_and_fewer_later() -> None:
    """As many as have so uneven a count among 256 coins."""
    config = VoteConfig(population=512, group=100, chance=0.2, memory=0.0, least=1)
    algorithm = VoteES(Space.integers(100, -100, 100), config)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def moved(key: jax.Array, state: VoteState) -> jax.Array:
        proposal, state = algorithm.propose(key, state)
        noise = jax.random.bits(key, (512,), jnp.uint32).astype(jnp.int32)
        return algorithm.update(key, proposal, noise, state)[1]["moved"]

    state, keys = algorithm.start(KEY), jax.random.split(KEY, 100)
    for generation in (0, 10, 50, 200):
        chance = 0.2 / (1 + 0.015 * generation)
        least = 16 * statistics.NormalDist().inv_cdf(1 - chance / 2)  # votes more one way
        share = sum(math.comb(256, n) for n in range(257) if abs(2 * n - 256) >= least) / 2**256
        found = np.asarray(moved(keys, state.replace(generation=jnp.int32(generation)))) / 100
        assert abs(found.mean() - share) < 5 * np.sqrt(share / found.size / 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 7}, "a population of mirrored pairs is even and at most 512, got 7"),
        ({"population": 514}, "at most 512, got 514"),
        ({"group": 0}, "group and least must be at least 1, got 0 and 2"),
        ({"chance": 1.0}, "chance must lie in 0..1"),
        ({"memory": 1.0}, "memory lie in 0..1, below 1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        VoteES(space(), VoteConfig(**settings))
    with pytest.raises(QevoError, match="no gene can move"):
        VoteES(Space.integers(3, 2, 2))

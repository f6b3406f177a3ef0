"""Univariate estimation of distribution: steps as the papers have them, draws, margins, memory."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.algorithms import EDA, EDAConfig, EDAState
from qevo.algorithms.eda import selection_weights
from qevo.core import Leaf, Proposal, Space
from qevo.core.random import TABLE_TOTAL
from qevo.errors import QevoError

KEY = jax.random.key(0)
GENES = 20


def bits() -> Space:
    """Binary genes of all kinds: two of them cannot move, one starts at its upper level."""
    low, high = np.zeros(GENES, int), np.ones(GENES, int)
    low[3], high[3], low[4], high[4] = -1, 0, 7, 8
    low[5] = high[5] = -3
    low[6] = high[6] = 1
    start = low.copy()
    start[7] = 1
    return Space.of(Leaf((GENES,), low, high, start))


def levels() -> Space:
    draw = np.random.RandomState(0)
    low, high = -draw.randint(0, 4, GENES), draw.randint(0, 4, GENES)
    return Space.of(Leaf((GENES,), low, high))


def shares(state: EDAState) -> np.ndarray:
    """Probabilities float [N, L] that a state's tables stand for."""
    if state.tables.ndim == 1:
        upper = np.asarray(state.tables) / 2**16
        return np.stack([1 - upper, upper], axis=1)
    return np.asarray(state.tables) / TABLE_TOTAL


def frequencies(chosen: np.ndarray, low: np.ndarray, width: int) -> np.ndarray:
    return np.stack([np.mean(chosen - low == level, axis=0) for level in range(width)], axis=1)


CONFIGS = {
    "umda": EDAConfig.umda(40, 13),
    "pbil": EDAConfig.pbil(30, 7, 0.2),
    "compact": EDAConfig.compact(150),
    "against worst": EDAConfig(24, 5, 0.03, against_worst=True),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("space", [bits(), levels()], ids=["bits", "levels"])
def test_a_step_is_that_of_the_papers(name: str, space: Space) -> None:
    config = CONFIGS[name]
    algorithm = EDA(space, dataclasses.replace(config, margin=0.004))
    state = algorithm.start(KEY)
    low, width = np.asarray(space.low), algorithm.levels
    one = 1 / algorithm.total
    step = jax.jit(lambda k, s: (algorithm.propose(k, s)[0], k))
    for seed in range(3):
        before = shares(state)
        proposal, key = step(jax.random.key(seed), state)
        order = np.random.RandomState(seed).permutation(config.population)
        state, _ = algorithm.update(key, proposal, jnp.asarray(order, jnp.int32), state)
        candidates = np.asarray(proposal.values)[np.argsort(order)]
        best = frequencies(candidates[: config.selected], low, width)
        worst = frequencies(candidates[-config.selected :], low, width)
        towards = best - worst if config.against_worst else best - before
        expected = before + config.rate * towards
        inside = np.all((expected > 0.005) | (before == 0), axis=1)  # where no margin comes in
        assert inside.sum() > 5
        found = shares(state)
        np.testing.assert_allclose(found[inside], expected[inside], atol=(width + 2) * one)


@pytest.mark.parametrize(
    "config",
    [
        EDAConfig.noisy(10**8, 8),  # steps of a table's smallest unit
        EDAConfig.noisy(10**8, 64),
        EDAConfig(64, 16, rate=0.01, antithetic=False),
        EDAConfig(64, 16, rate=0.01, against_worst=True),
    ],
    ids=["noisy, 8", "noisy, 64", "pbil", "against worst"],
)
def test_chance_draws_tables_to_neither_side(config: EDAConfig) -> None:
    algorithm = EDA(Space.integers(4000, 0, 1), config)

    def step(state: EDAState, key: jax.Array) -> tuple[EDAState, None]:
        draw, order = jax.random.split(key)
        proposal, state = algorithm.propose(draw, state)
        noise = jax.random.permutation(order, jnp.arange(config.population, dtype=jnp.int32))
        return algorithm.update(key, proposal, noise, state)[0], None

    start = algorithm.start(KEY)
    end, _ = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, 100)))(start)
    drift = (shares(end) - shares(start))[:, 1]
    assert drift.std() > 0
    assert abs(drift.mean()) < 4 * drift.std() / np.sqrt(len(drift))


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("space", [bits(), levels()], ids=["bits", "levels"])
def test_candidates_follow_the_tables(space: Space, antithetic: bool) -> None:
    config = EDAConfig(population=16, rate=0.5, antithetic=antithetic)
    algorithm = EDA(space, config)
    state = algorithm.start(KEY)
    proposal, _ = algorithm.propose(KEY, state)
    noise = jax.random.randint(KEY, (16,), 0, 9, jnp.int32)
    state, _ = algorithm.update(KEY, proposal, noise, state)
    draw = jax.jit(jax.vmap(lambda key: algorithm.propose(key, state)[0].values))
    drawn = np.asarray(draw(jax.random.split(KEY, 500)))
    found = frequencies(drawn.reshape(-1, GENES), np.asarray(space.low), algorithm.levels)
    np.testing.assert_allclose(found, shares(state), atol=0.03)
    assert np.all((drawn >= space.low) & (drawn <= space.high))
    if antithetic and algorithm.binary:  # a gene is never at its likelier level in neither
        pair = drawn[:, ::2] != drawn[:, 1::2]
        likely = shares(state).max(axis=1)
        np.testing.assert_allclose(pair.mean(axis=(0, 1)), 2 * (1 - likely), atol=0.04)


@pytest.mark.parametrize("space", [bits(), levels()], ids=["bits", "levels"])
@pytest.mark.parametrize("name", ["umda", "against worst"])
def test_margins_hold_and_tables_end_up_there(space: Space, name: str) -> None:
    algorithm = EDA(space, CONFIGS[name])
    width, size = algorithm.levels, np.asarray(space.high, int) - space.low + 1

    def step(state: EDAState, key: jax.Array) -> Any:
        proposal, state = algorithm.propose(key, state)
        fitness = jnp.sum(proposal.values, axis=1, dtype=jnp.int32)
        state, metrics = algorithm.update(key, proposal, fitness, state)
        return state, (state.tables, metrics["undecided"])

    run = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, 150)))
    state, (tables, undecided) = run(algorithm.start(KEY))
    least = 1 / ((width - 1) * GENES)
    one = 1 / algorithm.total
    for row in np.asarray(tables):
        share = shares(state.replace(tables=row))
        np.testing.assert_allclose(share.sum(axis=1), 1)
        allowed = np.arange(width) < size[:, None]
        moving = size > 1
        assert np.all(share[allowed & moving[:, None]] >= least - one)
        assert np.all(share[~allowed] == 0)
    np.testing.assert_array_equal(algorithm.context(state), space.low)
    assert undecided[0] > 10
    assert undecided[-1] < undecided[0] / 2


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_tables_of_few_genes_decide(size: int, levels: int) -> None:
    """1 / ((L - 1) N), the theory's margin, would be all that a table has."""
    algorithm = EDA(Space.integers(size, 0, levels - 1))
    state, fitness = algorithm.start(KEY), jnp.arange(64, dtype=jnp.int32)
    values = jnp.where(fitness[:, None] < 16, algorithm.space.high, algorithm.space.low)
    values = jnp.broadcast_to(values, (64, size))
    learn = jax.jit(algorithm.update)
    for _ in range(30):
        state, _ = learn(KEY, Proposal.whole(values), fitness, state)
    np.testing.assert_array_equal(algorithm.context(state), levels - 1)
    np.testing.assert_allclose(shares(state).sum(axis=1), 1)
    assert shares(state).max(axis=1).min() > 1 / 2


def test_the_start_is_the_first_answer_and_no_more_likely_than_it_must_be() -> None:
    for space in (bits(), levels()):
        algorithm = EDA(space)
        state = algorithm.start(KEY)
        np.testing.assert_array_equal(algorithm.context(state), space.start)
        size = np.asarray(space.high, int) - space.low + 1
        likeliest = shares(state).max(axis=1)
        assert np.all(likeliest <= 1 / size + algorithm.levels / algorithm.total)
        fixed = np.asarray(algorithm.propose(KEY, state)[0].values)[:, size == 1]
        np.testing.assert_array_equal(fixed, np.tile(space.start[size == 1], (64, 1)))


def test_a_bit_takes_three_bytes() -> None:
    space = Space.integers(1000, 0, 1)
    state = jax.eval_shape(EDA(space, EDAConfig.compact(50)).start, KEY)
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) == 3004


def test_a_plateau_of_a_large_population_teaches_nothing() -> None:
    algorithm = EDA(Space.integers(6, low=0, high=1), EDAConfig.umda(20_000, 10_000))
    proposal, state = algorithm.propose(KEY, algorithm.start(KEY))
    fitness = jnp.zeros(20_000, jnp.int32)
    after, _ = algorithm.update(KEY, proposal, fitness, state)
    np.testing.assert_array_equal(after.tables, state.tables)


def test_two_equal_candidates_teach_the_compact_algorithm_nothing() -> None:
    algorithm = EDA(bits(), EDAConfig.compact(50))
    state = algorithm.start(KEY)
    proposal = Proposal.whole(jnp.stack([algorithm.space.low, algorithm.space.high]))
    same, _ = algorithm.update(KEY, proposal, jnp.array([4, 4], jnp.int32), state)
    np.testing.assert_array_equal(same.tables, state.tables)
    lower, _ = algorithm.update(KEY, proposal, jnp.array([3, 4], jnp.int32), state)
    movable = np.asarray(algorithm.space.low < algorithm.space.high)
    fell = np.asarray(state.tables, int) - np.asarray(lower.tables, int)
    np.testing.assert_array_equal(fell, np.where(movable, round(2**16 / 50), 0))


@given(st.lists(st.integers(-2, 2), min_size=9, max_size=9), st.integers(1, 9))
def test_selection_shares_the_last_places_evenly(fitness: list[int], selected: int) -> None:
    weights = np.asarray(selection_weights(jnp.asarray(fitness, jnp.int32), selected), float)
    bound = sorted(fitness)[selected - 1]
    tied = sum(f == bound for f in fitness)
    places = selected - sum(f < bound for f in fitness)
    share = [1 if f < bound else places / tied if f == bound else 0 for f in fitness]
    np.testing.assert_allclose(weights / 2**14, np.array(share) / selected, atol=3e-4)
    assert weights.sum() <= 2**14


@pytest.mark.parametrize(
    ("space", "config", "message"),
    [
        (Space.integers(4, 0, 0), EDAConfig(), "no gene can move"),
        (Space.integers(4, 0, 64), EDAConfig(), "a gene has 65 levels, and a table at most 64"),
        (bits(), EDAConfig(selected=65), "selected must be 1 to 64 of a population of 64, got 65"),
        (bits(), EDAConfig(8, 5, against_worst=True), "1 to 4 of a population of 8, half of it"),
        (bits(), EDAConfig(population=17), "antithetic pairs need an even population, got 17"),
        (bits(), EDAConfig(rate=1.5), r"rate must lie in 0..1, above 0, got 1\.5"),
        (bits(), EDAConfig.compact(1 << 18), r"is less than a table's smallest unit, 2\*\*-16"),
        (levels(), EDAConfig.compact(1 << 16), r"is less than a table's smallest unit, 2\*\*-14"),
        (bits(), EDAConfig(margin=0.3), r"margin must lie in 0\.\.0\.2500, above 0, for 2 levels"),
    ],
)
def test_settings_that_cannot_work(space: Space, config: EDAConfig, message: str) -> None:
    with pytest.raises(QevoError, match=message):
        EDA(space, config)

"""Coevolution: what tables keep to, what a grouping draws, how mass moves, what is refused."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import block_space, genes_of

from qevo.algorithms import Coevolution, CoevolutionConfig, CoevolutionState
from qevo.core import Leaf, Proposal, Space, blocks
from qevo.core.random import TABLE_TOTAL
from qevo.errors import QevoError


def mixed_space() -> Space:
    """Wide, narrow and fixed genes; starts in the middle, at a bound and at both."""
    draw = np.random.RandomState(0)
    low = -draw.randint(0, 4, 30)
    high = draw.randint(0, 4, 30)
    return Space.of(
        {
            "a": Leaf((30,), low, high),
            "b": Leaf((6,), -128, -126, [-128, -127, -126] * 2),
            "c": Leaf((4,), 120, 127, [127, 120, 121, 126]),
            "d": Leaf((3,), 5, 5, 5),
        }
    ).with_blocks([(["a"], 7), (["d"], None), (["b", "c"], None)])


def settings(**changes: Any) -> CoevolutionConfig:
    return dataclasses.replace(
        CoevolutionConfig(population=16, group=8, spread=0.2, margin=0.01), **changes
    )


@pytest.mark.parametrize(
    "config",
    [
        settings(rate=16.0, grouping="entropy"),
        settings(rate=2.0, grouping="top_k", radius=2, subgroups=2),
        settings(rate=4.0, grouping="block", subgroups=2, schedule=10, final_rate=0.0),
        settings(grouping="random", radius=15, subgroups=4, antithetic=False, margin=0.001),
    ],
    ids=lambda config: f"{config.grouping}{config.radius}",
)
def test_tables_bounds_and_metrics_hold_in_a_long_run(config: CoevolutionConfig) -> None:
    """Fitness is noise with many ties, so that every gene is dragged to and fro."""
    space = mixed_space()
    algorithm = Coevolution(space, config)

    def step(state: CoevolutionState, key: jax.Array) -> Any:
        keys = jax.random.split(key, 3)
        proposal, proposed = algorithm.propose(keys[0], state)
        fitness = jax.random.randint(keys[1], (16,), -3, 3, jnp.int32)
        after, metrics = algorithm.update(keys[2], proposal, fitness, proposed)
        return after, (after, proposal, proposal.apply(state.centre), metrics)

    first = algorithm.start(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 60)
    _, (states, proposals, candidates, metrics) = jax.jit(
        lambda state, keys: jax.lax.scan(step, state, keys)
    )(first, keys)

    low, high, start = (np.asarray(a, np.int64) for a in (space.low, space.high, space.start))
    candidates = np.asarray(candidates)
    assert np.all((candidates >= low) & (candidates <= high))
    before = first
    for generation in range(60):
        after = jax.tree.map(lambda leaf, g=generation: np.asarray(leaf[g]), states)
        tables, centre = after.tables.astype(np.int64), after.centre.astype(np.int64)
        level = centre[:, None] + np.arange(-config.radius, config.radius + 1)
        allowed = (level >= low[:, None]) & (level <= high[:, None])
        assert np.all(tables.sum(axis=1) == TABLE_TOTAL)
        assert np.all(tables[allowed] >= algorithm.margin)
        assert np.all(tables[~allowed] == 0)
        assert np.all(tables[:, config.radius] == tables.max(axis=1))
        assert np.all(after.uncertainty == TABLE_TOTAL - tables[:, config.radius])
        assert np.all((centre >= low) & (centre <= high))

        positions = np.asarray(proposals.positions[generation])
        drawn = positions[positions < space.size]
        assert len(set(drawn.tolist())) == drawn.size > 0
        assert not set(drawn.tolist()) & set(np.flatnonzero(low == high).tolist())
        others = np.setdiff1d(np.arange(space.size), drawn)
        assert np.array_equal(after.tables[others], np.asarray(before.tables)[others])
        assert np.array_equal(after.centre[others], np.asarray(before.centre)[others])
        away = centre != start
        edge = (centre == low) | (centre == high)
        assert int(metrics["changed"][generation]) == away.sum()
        assert int(metrics["at_bound"][generation]) == (away & edge & (low < high)).sum()
        assert int(metrics["moved"][generation]) == (centre != np.asarray(before.centre)).sum()
        mean = TABLE_TOTAL - after.uncertainty.astype(np.int64).mean()
        assert 0 <= int(metrics["confidence"][generation]) - mean < 1
        before = after
    assert before.generation == 60
    assert int(metrics["changed"][-1]) > 5


def test_the_centre_keeps_its_lead_when_its_window_uncovers_a_level() -> None:
    space = Space.of(Leaf((2,), 0, 9, [9, 0]))
    algorithm = Coevolution(space, settings(group=2, population=2))
    state = algorithm.start(jax.random.key(0))
    tables = jnp.array([[8193, 8191, 0], [0, 8191, 8193]], jnp.int16)
    proposal = Proposal(jnp.array([[0, 1]], jnp.int32), jnp.array([[9, 0]] * 2, jnp.int8))
    state, metrics = jax.jit(algorithm.update)(
        jax.random.key(1),
        proposal,
        jnp.zeros(2, jnp.int32),
        dataclasses.replace(state, tables=tables),
    )
    np.testing.assert_array_equal(state.centre, [8, 1])
    margin = algorithm.margin
    row = [margin, 8193, 8191 - margin]
    np.testing.assert_array_equal(state.tables, [row, row[::-1]])
    assert int(metrics["moved"]) == 2


class Draws:
    """Proposals of an algorithm under different keys, and their positions ``[draws, S, G]``."""

    def __init__(self, algorithm: Coevolution, draws: int):
        self.keys = jax.random.split(jax.random.key(7), draws)

        def draw(key: jax.Array, state: CoevolutionState) -> Proposal:
            return algorithm.propose(key, state)[0]._replace(values=jnp.zeros((), jnp.int8))

        self.draw = jax.jit(jax.vmap(draw, (0, None)))

    def proposals(self, state: CoevolutionState) -> Proposal:
        return jax.tree.map(np.asarray, self.draw(self.keys, state))

    def __call__(self, state: CoevolutionState) -> np.ndarray:
        return np.asarray(self.proposals(state).positions)


def uncertain(algorithm: Coevolution, uncertainty: Any) -> CoevolutionState:
    state = algorithm.start(jax.random.key(0))
    return dataclasses.replace(state, uncertainty=jnp.asarray(uncertainty, jnp.int16))


def test_top_k_draws_the_least_confident_only() -> None:
    algorithm = Coevolution(
        Space.integers(40, -1, 1), settings(grouping="top_k", group=5, subgroups=2)
    )
    order = np.random.RandomState(0).permutation(40)
    draws = Draws(algorithm, 100)
    for drawn in draws(uncertain(algorithm, 300 * (order + 1))):
        assert sorted(order[np.ravel(drawn)]) == list(range(30, 40))
    # Ties at the threshold are drawn at random, and nothing below it ever is.
    tied = np.where(order < 20, 10, np.where(order < 36, 500, 9000))
    drawn = draws(uncertain(algorithm, tied))
    assert set(np.ravel(drawn).tolist()) == set(np.flatnonzero(tied > 10).tolist())
    # Where fewer genes can move than are wanted, all of those are drawn.
    few = np.where(order < 36, 0, order)
    for drawn in draws(uncertain(algorithm, few)):
        assert sorted(np.ravel(drawn).tolist()) == [*np.flatnonzero(few).tolist(), *[40] * 6]


PLACES = [(0, 0), (1, 0), (1, 3), (1, 4), (3, 2)]  # block and first channel, where genes can move


@pytest.mark.parametrize(("group", "subgroups"), [(3, 2), (30, 1)])
def test_a_generation_stays_within_one_place(group: int, subgroups: int) -> None:
    space = block_space()
    config = settings(grouping="block", group=group, subgroups=subgroups)
    algorithm = Coevolution(space, config)
    draws = Draws(algorithm, 400)
    drawn = draws.proposals(algorithm.start(jax.random.key(0)))
    assert drawn.place is not None
    assert drawn.within is not None
    assert drawn.positions.shape == drawn.within.shape == (400, subgroups, group)
    places = list(zip(*drawn.place, strict=True))
    assert set(places) == set(PLACES)
    movable = np.flatnonzero(space.low < space.high)
    for place, positions, within in zip(places, drawn.positions, drawn.within, strict=True):
        block, channel = space.blocks[place[0]], place[1]
        here = genes_of(space, block, channel)
        # Places that are no gene of the block are padding, and so are their positions.
        np.testing.assert_array_equal(positions, np.append(here, space.size)[within])
        if (place, group) == ((1, 4), 3):
            again = blocks.positions_at(space, block, jnp.int32(channel), jnp.asarray(within))
            np.testing.assert_array_equal(again, positions)
        found = positions[positions < space.size]
        assert len(set(found.tolist())) == found.size > 0
        assert set(found.tolist()) <= set(here.tolist()) & set(movable.tolist())
        if group == 30 and place[0] == 3:
            assert found.size <= 6  # more are wanted than there are
            assert np.sum(within == len(here)) == 30 - found.size


def test_places_are_drawn_in_proportion_to_their_uncertainty() -> None:
    space, draws = block_space(), 20_000
    algorithm = Coevolution(space, settings(grouping="block", group=2))
    sample = Draws(algorithm, draws)
    some = np.random.RandomState(0).randint(0, 4, space.size) * 900
    fixed = np.asarray(space.low == space.high)
    last = genes_of(space, space.blocks[1], 4)[2::3]
    only_one = np.where(np.isin(np.arange(space.size), last), 5, 0)
    for uncertainty in (np.where(fixed, 0, some), only_one):
        drawn = sample.proposals(uncertain(algorithm, uncertainty))
        assert drawn.place is not None
        seen = np.bincount(drawn.place.block * 10 + drawn.place.channel, minlength=40)
        places = [(0, 0), (1, 0), (1, 3), (1, 4), (2, 0), (3, 0), (3, 2)]
        weights = uncertainty + (uncertainty > 0)
        mass = np.array([weights[genes_of(space, space.blocks[b], c)].sum() for b, c in places])
        share = mass / mass.sum()
        found = seen[[block * 10 + channel for block, channel in places]] / draws
        assert found.sum() == 1
        assert np.all(np.abs(found - share) <= 5 * np.sqrt(share / draws))
        assert np.all(found[mass == 0] == 0)
        # Every gene that can move is drawn, those of the last channels too.
        reached = set(np.unique(drawn.positions).tolist()) - {space.size}
        assert reached == set(np.flatnonzero(uncertainty).tolist())


def test_where_nothing_is_uncertain_nothing_is_drawn() -> None:
    space = block_space()
    algorithm = Coevolution(space, settings(grouping="block", group=2))
    state = uncertain(algorithm, np.zeros(space.size))
    propose = jax.jit(algorithm.propose)
    proposal, _ = propose(jax.random.key(0), state)
    np.testing.assert_array_equal(proposal.positions, [[space.size] * 2])
    candidates = proposal.apply(state.centre)
    np.testing.assert_array_equal(candidates, np.tile(space.start, (16, 1)))


@pytest.mark.parametrize("grouping", ["random", "entropy"])
def test_genes_are_drawn_uniformly_or_in_proportion_to_uncertainty(grouping: Any) -> None:
    genes, draws = 40, 20_000
    algorithm = Coevolution(
        Space.integers(genes, -1, 1), settings(grouping=grouping, group=2, subgroups=2)
    )
    uncertainty = np.arange(genes) % 4 * 1000
    drawn = Draws(algorithm, draws)(uncertain(algorithm, uncertainty))
    weights = (uncertainty > 0) * 1.0 if grouping == "random" else uncertainty
    for group in range(2):
        frequency = np.bincount(np.ravel(drawn[:, group]), minlength=genes + 1)[:genes] / draws
        share = 2 * weights / weights.sum()
        assert np.all(np.abs(frequency - share) <= 0.03 * share + 5 * np.sqrt(share / draws))


def test_subgroups_learn_side_by_side_from_their_own_candidates_only() -> None:
    algorithm = Coevolution(Space.integers(20, -1, 1), settings(group=6, subgroups=2, rate=2.0))
    state = algorithm.start(jax.random.key(0))
    proposal, state = jax.jit(algorithm.propose)(jax.random.key(1), state)
    assert proposal.positions.shape == (2, 6)
    assert proposal.values.shape == (16, 6)
    first, second = (set(row.tolist()) - {20} for row in np.asarray(proposal.positions))
    assert not first & second
    update = jax.jit(algorithm.update)
    fitness = jnp.arange(16, dtype=jnp.int32)

    learned, _ = update(jax.random.key(2), proposal, fitness, state)
    shifted, _ = update(jax.random.key(2), proposal, fitness.at[8:].add(10_000), state)
    np.testing.assert_array_equal(shifted.tables, learned.tables)
    level = fitness.at[:8].set(0)  # the first subgroup learns nothing
    half, _ = update(jax.random.key(2), proposal, level, state)
    changed = np.flatnonzero(np.any(np.asarray(half.tables != state.tables), axis=1))
    assert set(changed.tolist()) <= second
    rows = jnp.array(sorted(second))
    np.testing.assert_array_equal(half.tables[rows], learned.tables[rows])


class Unanimous:
    """The table of one gene after the better half of the candidates held its upper level."""

    def __init__(self, config: CoevolutionConfig):
        self.algorithm = Coevolution(Space.integers(1, -9, 9), config)
        self.start = self.algorithm.start(jax.random.key(0))
        self.update = jax.jit(self.algorithm.update)

    def __call__(self, generation: int) -> list[int]:
        half = self.algorithm.population_size // 2
        values = jnp.repeat(jnp.array([1, 0], jnp.int8), half)[:, None]
        proposal = Proposal(jnp.zeros((1, 1), jnp.int32), values)
        fitness = jnp.arange(2 * half, dtype=jnp.int32)
        state = dataclasses.replace(self.start, generation=jnp.int32(generation))
        return self.update(jax.random.key(1), proposal, fitness, state)[0].tables[0].tolist()


@pytest.mark.parametrize("population", [2, 10])
def test_the_rate_is_the_mass_that_a_unanimous_population_moves(population: int) -> None:
    after = Unanimous(
        settings(population=population, group=1, rate=0.3, final_rate=0.2, schedule=100)
    )
    fresh = after.start.tables[0].tolist()
    for generation, factor in ((0, 1.0), (25, 0.8), (50, 0.6), (100, 0.2), (5000, 0.2)):
        mass = round(0.3 * factor * TABLE_TOTAL)
        expected = [fresh[0], fresh[1] - mass, fresh[2] + mass]
        assert np.allclose(after(generation), expected, rtol=0, atol=6)


def test_extreme_settings_stay_within_int32() -> None:
    largest = Unanimous(settings(population=1 << 14, group=1, rate=16.0))
    margin = largest.algorithm.margin
    # All the mass goes to the upper level, which becomes the centre of the window.
    assert largest(0) == [margin, TABLE_TOTAL - 2 * margin, margin]
    smallest = Unanimous(settings(population=1 << 14, group=1, rate=1e-7))
    assert smallest(0) == smallest.start.tables[0].tolist()


@pytest.mark.parametrize("rate", [0.5, 1.0, 16.0])
def test_a_vote_moves_mass_also_where_the_losing_level_has_none(rate: float) -> None:
    """The lower level lies at the margin, so the centre must pay for the upper one's gain."""
    algorithm = Coevolution(
        Space.integers(1, -9, 9), settings(population=2, group=1, rate=rate, spread=0.02)
    )
    start = algorithm.start(jax.random.key(0))
    proposal = Proposal(jnp.zeros((1, 1), jnp.int32), jnp.array([[1], [-1]], jnp.int8))
    fitness = jnp.array([0, 1], jnp.int32)
    state, _ = jax.jit(algorithm.update)(jax.random.key(1), proposal, fitness, start)
    gained = min(round(rate * TABLE_TOTAL), TABLE_TOTAL - 3 * algorithm.margin)
    masses = sorted(state.tables[0].tolist())
    assert masses[0] == algorithm.margin
    upper = state.tables[0, 2 - int(state.centre[0])]
    # A window that moves drops its last level, whose mass goes to the new centre.
    assert 0 <= int(upper) - algorithm.margin - gained <= algorithm.margin + 2


def test_the_window_follows_a_gene_to_its_bound() -> None:
    space = Space.of(Leaf((6,), -7, [9, 5, 9, 127, 127, 3], [0, 0, -7, 118, 120, 3]))
    algorithm = Coevolution(space, settings(group=6, rate=8.0, schedule=1 << 19, margin=0.02))

    def step(state: CoevolutionState, key: jax.Array) -> Any:
        proposal, state = algorithm.propose(key, state)
        candidates = proposal.apply(algorithm.context(state)).astype(jnp.int32)
        fitness = -jnp.sum(candidates, axis=1, dtype=jnp.int32)
        state, metrics = algorithm.update(key, proposal, fitness, state)
        return state, metrics["at_bound"]

    run = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
    start = algorithm.start(jax.random.key(0))
    state, at_bound = run(start, jax.random.split(jax.random.key(1), 200))
    np.testing.assert_array_equal(algorithm.solution(state), space.high)
    assert int(at_bound[-1]) == 5  # the last one started there


def test_a_run_starts_at_the_start() -> None:
    space = mixed_space()
    state = Coevolution(space, settings()).start(jax.random.key(0))
    np.testing.assert_array_equal(state.centre, space.start)
    fixed = np.asarray(space.low == space.high)
    np.testing.assert_array_equal(np.asarray(state.uncertainty == 0), fixed)


def test_there_must_be_something_to_search() -> None:
    with pytest.raises(QevoError, match="no gene can move: low equals high everywhere"):
        Coevolution(Space.integers(7, 2, 2))


def test_a_group_is_cut_to_the_genes_there_are() -> None:
    assert Coevolution(Space.integers(7, 0, 1)).group == 7
    assert Coevolution(Space.integers(7, 0, 1), settings(group=100, subgroups=2)).group == 3


def test_the_description_holds_every_setting() -> None:
    description = Coevolution(Space.integers(7, 0, 1)).describe()
    assert description.items() >= dataclasses.asdict(CoevolutionConfig()).items()
    assert description["type"] == "Coevolution"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population": 0}, "population_size must be at least 1, got 0"),
        ({"subgroups": 0}, "0 subgroups do not divide a population of 16"),
        ({"subgroups": 3}, "3 subgroups do not divide a population of 16"),
        ({"subgroups": 16}, "a subgroup has 1 candidates; it needs at least 2"),
        ({"population": 12, "subgroups": 4}, "a subgroup has 3 candidates; .* an even number"),
        ({"population": 1 << 15}, "a subgroup has 32768 candidates; at most 16384 are ranked"),
        ({"group": 0}, "1 subgroups of 0 genes do not fit 7 genes"),
        ({"subgroups": 8, "population": 64}, "8 subgroups of 8 genes do not fit 7 genes"),
        ({"grouping": "size"}, "grouping must be one of entropy, top_k, random, block, got 'size'"),
        ({"radius": 0}, "radius must be 1 to 15, got 0"),
        ({"radius": 16}, "radius must be 1 to 15, got 16"),
        ({"spread": 0.0}, r"spread must lie in 0\.0001\.\.0\.6667 and hold the margin of 2 levels"),
        ({"spread": 0.7}, "got spread 0.7 and margin 0.01"),
        ({"spread": 0.01}, "spread must lie in .* got spread 0.01 and margin 0.01"),
        ({"margin": -0.1}, "got spread 0.2 and margin -0.1"),
        ({"radius": 15, "margin": 0.0, "spread": 0.001}, r"spread must lie in 0\.0018"),
        ({"rate": 0.0}, r"rate must lie in 0\.\.16"),
        ({"rate": 17.0}, r"rate must lie in 0\.\.16"),
        ({"final_rate": 1.5}, r"final_rate in 0\.\.1"),
        ({"schedule": 0}, r"schedule in 1\.\.2\*\*20"),
        ({"schedule": 1 << 20}, r"schedule in 1\.\.2\*\*20"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        Coevolution(Space.integers(7, 0, 1), settings(**changes))

"""The shift evolution strategy: what it proposes, how it selects and adjusts, what is refused."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import block_space, genes_of, quadratic

from qevo.algorithms import ShiftConfig, ShiftES, ShiftState
from qevo.core import FunctionProblem, Leaf, Proposal, Space, blocks, evolve
from qevo.errors import QevoError

KEY = jax.random.key(0)


def settings(**changes: Any) -> ShiftConfig:
    return dataclasses.replace(ShiftConfig(population=16, slots=12, shifted=3.0), **changes)


def mixed_space() -> Space:
    """Wide, narrow and fixed genes; starts in the middle and at the ends of int8."""
    return Space.of(
        {
            "a": Leaf((40,), -9, 9),
            "b": Leaf((3,), -128, -126, [-128, -127, -126]),
            "c": Leaf((4,), 120, 127, [127, 120, 126, 124]),
            "d": Leaf((20,), 5, 5, 5),
        }
    )


def test_a_block_of_fewer_genes_than_slots_is_drawn_without_repetition() -> None:
    """Also where every gene of the space can move."""
    space = Space.of({"a": Leaf((100, 10), -9, 9), "b": Leaf((10,), -9, 9)})
    space = space.with_blocks([(["a"], None), (["b"], None)])
    search = ShiftES(space, settings(slots=64, shifted=20.0, order=(1,)))
    proposal, _ = jax.jit(search.propose)(KEY, search.start(KEY))
    for row in np.asarray(proposal.positions):
        used = row[row < space.size].tolist()
        assert len(set(used)) == len(used)
        assert set(used) <= set(genes_of(space, space.blocks[1]))
    assert (np.asarray(proposal.positions)[2:] < space.size).sum(1).max() > 1


class Search:
    """An algorithm whose steps are compiled, and a state to begin with."""

    def __init__(self, space: Space, config: ShiftConfig):
        self.algorithm = ShiftES(space, config)
        self.start = self.algorithm.start(KEY)
        self.propose = jax.jit(self.algorithm.propose)
        self.update = jax.jit(self.algorithm.update)
        propose = jax.vmap(lambda key, state: self.algorithm.propose(key, state)[0], (0, None))
        self.draw = jax.jit(propose)

    def draws(self, count: int, state: ShiftState | None = None, seed: int = 7) -> Proposal:
        """Proposals ``[count, ...]`` under different keys."""
        keys = jax.random.split(jax.random.key(seed), count)
        return jax.tree.map(np.asarray, self.draw(keys, state or self.start))


@pytest.mark.parametrize("levels", [1, 3])
def test_shifts_have_the_stated_length_and_turn_round_at_a_bound(levels: int) -> None:
    space = mixed_space()
    parent = np.asarray(space.start, int)
    low, high = np.asarray(space.low, int), np.asarray(space.high, int)
    search = Search(space, settings(levels=levels, siblings=0))
    drawn = search.draws(400)
    used = drawn.positions < space.size
    genes, values = drawn.positions[used], drawn.values[used].astype(int)
    shift = values - parent[genes]
    assert np.all((values >= low[genes]) & (values <= high[genes]))
    assert np.all(low[genes] < high[genes])  # what cannot move is never proposed
    assert set(genes.tolist()) == set(np.flatnonzero(low < high).tolist())
    assert set(np.abs(shift).tolist()) == set(range(1, levels + 1))

    free = genes < 40  # as far from both bounds as a shift goes
    count = np.bincount(np.abs(shift[free]), minlength=levels + 1)[1:]
    odds = 0.5 ** np.arange(1, levels + 1)
    odds[-1] = odds[-2] if levels > 1 else 1.0
    np.testing.assert_allclose(count / free.sum(), odds, atol=0.03)
    assert abs(np.mean(shift[free] > 0) - 0.5) < 0.03
    assert set(shift[genes == 40]) == set(range(1, min(levels, 2) + 1))  # upward only
    assert set(shift[genes == 42]) == set(range(-min(levels, 2), 0))
    assert set(shift[genes == 43]) == set(range(-levels, 0))
    assert set(np.sign(shift[genes == 41])) == {-1, 1}
    assert set(np.abs(shift[genes == 41])) == {1}  # cut at the bound, turned round for none


@pytest.mark.parametrize("order", [(), (0, 1)])
def test_positions_in_a_row_are_distinct(order: tuple[int, ...]) -> None:
    """Also where there are fewer genes than slots."""
    space = block_space()
    search = Search(space, settings(slots=60, shifted=15.0, order=order))
    state = dataclasses.replace(search.start, share=jnp.int32(search.algorithm.most))
    drawn = search.draws(50, state)
    assert drawn.positions.shape == (50, 16, 60)
    for row in drawn.positions.reshape(-1, 60):
        genes = row[row < space.size].tolist()
        assert len(set(genes)) == len(genes)
    # The parent, siblings that are not there yet, and mutants of at least one shift.
    count = np.sum(drawn.positions < space.size, axis=-1)
    assert np.all(count[:, :3] == 0)
    assert np.all(count[:, 3:] > 0)
    assert count.max() > 5


@pytest.mark.parametrize("share", [0.06, 0.2])
def test_half_the_mutants_take_half_the_share_and_half_take_double(share: float) -> None:
    space, slots = Space.integers(4000, -1, 1), 50
    search = Search(space, settings(slots=slots, siblings=1))
    fixed = round(share * 2**16)
    drawn = search.draws(600, dataclasses.replace(search.start, share=jnp.int32(fixed)))
    count = np.sum(drawn.positions[:, 2:] < space.size, axis=-1)
    for first, factor in ((0, 0.5), (1, 2.0)):
        odds = share * factor
        mean, spread = 1 + (slots - 1) * odds, np.sqrt((slots - 1) * odds * (1 - odds))
        found = count[:, first::2]
        assert abs(found.mean() - mean) < 5 * spread / np.sqrt(found.size)
        assert abs(found.std() / spread - 1) < 0.1


def test_the_first_share_is_that_of_the_setting() -> None:
    def first(shifted: float, slots: int, genes: int = 1000) -> int:
        algorithm = ShiftES(Space.integers(genes, 0, 1), settings(shifted=shifted, slots=slots))
        return int(algorithm.start(KEY).share)

    assert first(8.0, 256) == 2**16 * 8 // 256
    assert first(200.0, 256) == 2**14  # a quarter of the slots at most
    assert first(0.01, 256) == 2**16 // 256  # and one shift at least
    assert first(8.0, 256, genes=64) == 2**16 * 8 // 64  # of the slots that there are


def test_the_share_follows_the_best_mutant_or_chance() -> None:
    search = Search(Space.integers(50, -1, 1), settings(slots=40, shifted=4.0))
    state, proposal = search.start, search.propose(KEY, search.start)[0]
    before = int(state.share)
    for best, odds in ((3, 0.25), (4, 0.75)):  # made with half the share, and with double
        fitness = jnp.full(16, 50, jnp.int32).at[best].set(20).at[0].set(10)
        found = [
            int(search.update(key, proposal, fitness, state)[0].share)
            for key in jax.random.split(KEY, 300)
        ]
        assert set(found) == {before // 2, before * 2}
        assert abs(np.mean(np.array(found) > before) - odds) < 0.1
    for share in (search.algorithm.least, search.algorithm.most):
        edge = dataclasses.replace(state, share=jnp.int32(share))
        found = {
            int(search.update(key, proposal, fitness, edge)[0].share)
            for key in jax.random.split(KEY, 20)
        }
        inside = share * 2 if share == search.algorithm.least else share // 2
        assert found == {share, inside}


def test_equal_mutants_do_not_draw_the_share_to_one_side() -> None:
    search = Search(Space.integers(50, -1, 1), settings(slots=40, shifted=4.0))
    proposal = search.propose(KEY, search.start)[0]
    level = jnp.zeros(16, jnp.int32)
    update = jax.vmap(lambda key: search.algorithm.update(key, proposal, level, search.start)[0])
    share = jax.jit(update)(jax.random.split(KEY, 2000)).share
    rose = np.mean(np.asarray(share) > int(search.start.share))
    assert abs(rose - (0.5 * 6 / 13 + 0.25)) < 0.05  # 6 of 13 mutants have double the share


def test_the_parent_is_the_first_candidate_and_its_fitness_never_rises() -> None:
    problem = quadratic()
    search = Search(problem.space, settings(levels=2, siblings=2))
    algorithm = search.algorithm

    def step(state: ShiftState, key: jax.Array) -> Any:
        keys = jax.random.split(key)
        proposal, state = algorithm.propose(keys[0], state)
        context = algorithm.context(state)
        fitness = problem.scores(context, proposal.share, (), chunk=None)
        after, metrics = algorithm.update(keys[1], proposal, fitness, state)
        return after, (context, proposal.apply(context), fitness, algorithm.context(after), metrics)

    keys = jax.random.split(KEY, 120)
    run = jax.jit(lambda state: jax.lax.scan(step, state, keys)[1])
    contexts, candidates, fitness, after, metrics = jax.tree.map(np.asarray, run(search.start))
    np.testing.assert_array_equal(candidates[:, 0], contexts)
    np.testing.assert_array_equal(after[:-1], contexts[1:])
    parent = fitness[:, 0]
    assert np.all(np.diff(parent) <= 0)
    assert np.all(parent[1:] == fitness.min(1)[:-1])  # the best one is the next parent
    assert parent[-1] < parent[0] / 10
    stays = parent == fitness.min(1)
    assert 0 < stays.sum() < len(stays)
    np.testing.assert_array_equal(after[stays], contexts[stays])  # a tie is no reason to move
    changed = np.sum(after != contexts, axis=1)
    np.testing.assert_array_equal(metrics["moved"], changed)
    np.testing.assert_array_equal(
        metrics["changed"], np.sum(after != np.asarray(problem.space.start), axis=1)
    )
    winner = fitness.argmin(1)
    np.testing.assert_array_equal(metrics["crossed"], (winner > 0) & (winner <= 2))
    assert metrics["crossed"].sum() > 0


def test_crossing_puts_the_shifts_of_siblings_on_top_of_the_parent_and_can_win() -> None:
    """Mutants that help add up, so that what one generation found apart is soon together."""
    space = Space.integers(30, 0, 9)
    search = Search(space, settings(population=8, slots=30, shifted=2.0, siblings=2))
    state = search.start
    proposal, state = search.propose(KEY, state)
    candidates = np.asarray(proposal.apply(state.parent))
    fitness = jnp.array([50, 50, 50, 40, 20, 60, 30, 50], jnp.int32)
    state, metrics = search.update(KEY, proposal, fitness, state)
    np.testing.assert_array_equal(state.parent, candidates[4])
    assert int(metrics["crossed"]) == 0

    following, state = search.propose(jax.random.key(1), state)
    crossed = np.asarray(following.apply(state.parent))
    for row, sibling in ((1, 6), (2, 3)):  # by fitness
        shifted = candidates[sibling] != candidates[0]
        expected = np.where(shifted, candidates[sibling], candidates[4])
        np.testing.assert_array_equal(crossed[row], expected)
    fitness = jnp.array([20, 10, 20, 40, 40, 40, 40, 15], jnp.int32)
    after, metrics = search.update(KEY, following, fitness, state)
    np.testing.assert_array_equal(after.parent, crossed[1])
    assert int(metrics["crossed"]) == 1

    # Where no sibling beats the old parent, nothing is crossed.
    fitness = jnp.array([20, 30, 30, 30, 10, 20, 30, 40], jnp.int32)
    after, _ = search.update(KEY, following, fitness, state)
    assert np.all(np.asarray(after.sibling_positions) == space.size)
    alone = np.asarray(search.propose(KEY, after)[0].apply(after.parent))
    np.testing.assert_array_equal(alone[1:3], np.tile(alone[0], (2, 1)))


def test_an_order_takes_blocks_in_turn_and_scores_agree_with_dense_candidates() -> None:
    space, order, turn = block_space(), (1, 0, 0), 3
    weights = np.random.RandomState(0).randint(-9, 10, space.size)

    def value(solution: Any) -> jax.Array:
        genes = space.encode(solution).astype(jnp.int32)
        return jnp.sum(weights * genes, dtype=jnp.int32) + jnp.sum(genes[1:] * genes[:-1])

    problem = FunctionProblem(space, value)
    search = Search(space, settings(order=order, turn=turn, slots=9, shifted=2.0))
    algorithm = search.algorithm

    def step(state: ShiftState, key: jax.Array) -> Any:
        keys = jax.random.split(key)
        proposal, state = algorithm.propose(keys[0], state)
        fitness = problem.scores(state.parent, proposal.share, (), chunk=None)
        dense = jax.vmap(lambda genes: value(space.decode(genes)))(proposal.apply(state.parent))
        after, metrics = algorithm.update(keys[1], proposal, fitness, state)
        return after, (proposal, fitness, dense, metrics["crossed"])

    keys = jax.random.split(jax.random.key(4), 45)
    run = jax.jit(lambda state: jax.lax.scan(step, state, keys)[1])
    proposals, fitness, dense, crossed = jax.tree.map(np.asarray, run(search.start))
    np.testing.assert_array_equal(fitness, dense)
    assert np.all(np.diff(fitness[:, 0]) <= 0)
    assert crossed.sum() > 0
    expected = [order[number // turn % len(order)] for number in range(45)]
    np.testing.assert_array_equal(proposals.place.block, expected)
    assert set(proposals.place.channel[proposals.place.block == 1].tolist()) == {0, 3, 4}
    for number, block in enumerate(expected):
        positions, within = proposals.positions[number], proposals.within[number]
        here = genes_of(space, space.blocks[block])
        assert set(positions.ravel().tolist()) <= {*here, space.size}
        channel = jnp.int32(proposals.place.channel[number])
        again = blocks.positions_at(space, space.blocks[block], channel, jnp.asarray(within))
        np.testing.assert_array_equal(again, positions)
        size = blocks.size(space, space.blocks[block])
        np.testing.assert_array_equal(within == size, positions == space.size)
    # Siblings of another block, or of other channels, are not crossed.
    here = np.stack(proposals.place, axis=1)
    moved = np.any(here[1:] != here[:-1], axis=1)
    shifts = np.any(proposals.positions[1:, 1:3] < space.size, axis=(1, 2))
    assert not shifts[moved].any()
    assert shifts[~moved].any()


def test_a_search_in_an_order_resumes_to_the_same_bits(tmp_path: pathlib.Path) -> None:
    leaves = {"a": Leaf((9,), -9, 9), "b": Leaf((4, 3), -9, 9)}
    space = Space.of(leaves).with_blocks([(["b"], 2), (["a"], None)])

    def value(solution: Any) -> jax.Array:
        return jnp.sum(jnp.square(space.encode(solution).astype(jnp.int32) - 5))

    problem = FunctionProblem(space, value)

    def run(**options: Any) -> Any:
        algorithm = ShiftES(space, settings(order=(1, 0), turn=2, levels=2))
        options = {"devices": 1, "progress": False, "scan_length": 5} | options
        return evolve(algorithm, problem, 2, generations=20, **options)

    whole = run()
    assert run(folder=tmp_path, max_seconds=0.0).generations == 5
    parts = run(folder=tmp_path, resume=True)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, parts.carry, whole.carry))
    assert whole.fitness < whole.metrics[0]["best"]


def test_the_description_holds_every_setting_as_json() -> None:
    config = settings(stages=((16, 4), (4, 8)), order=(0, 0))
    algorithm = ShiftES(Space.integers(7, 0, 1), config)
    described = algorithm.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["stages"] == [[16, 4], [4, 8]]
    assert described["order"] == [0, 0]
    assert described.keys() >= {field.name for field in dataclasses.fields(ShiftConfig)}
    assert described["type"] == "ShiftES"
    assert algorithm.stages[1].rows == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population": 0}, "population_size must be at least 1, got 0"),
        ({"population": 4}, "4 has no room for the parent, 2 crossed candidates and at least 2 mu"),
        ({"siblings": -1}, "no room for the parent, -1 crossed candidates"),
        ({"siblings": 14}, "16 has no room for the parent, 14 crossed"),
        ({"slots": 0}, "slots must be 1 to 65536 and hold the shifted genes, got 0 and 3.0"),
        ({"slots": 1 << 17}, "slots must be 1 to 65536 .* got 131072 and 3.0"),
        ({"shifted": 0.0}, r"hold the shifted genes, got 12 and 0\.0"),
        ({"shifted": 13.0}, r"hold the shifted genes, got 12 and 13\.0"),
        ({"mutation": "one"}, "mutation must be one of two-rate, heavy-tailed, got 'one'"),
        ({"exponent": 5.0}, "the exponent of a power law must lie in 1..4"),
        ({"levels": 0}, "levels must be 1 to 15 and turn at least 1, got 0 and 10"),
        ({"levels": 16}, "levels must be 1 to 15 and turn at least 1, got 16 and 10"),
        ({"turn": 0}, "levels must be 1 to 15 and turn at least 1, got 1 and 0"),
        ({"order": (0, 4)}, r"order \(0, 4\) names blocks that are not among the space's 4"),
        ({"order": (-1,)}, r"order \(-1,\) names blocks that are not"),
        ({"order": (0, 2)}, "no gene can move: low equals high in d$"),
        ({"stages": ((15, 3), (4, 9))}, "stages must begin with all 16 candidates"),
        ({"stages": ((16, 3), (1, 9))}, "no more of them, but at least 2, on more rows"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        ShiftES(block_space(), settings(**changes))


def test_there_must_be_something_to_search() -> None:
    fixed = Space.of({"a": Leaf((3,), 2, 2, 2), "b": Leaf((2,), 0, 0)})
    for space in (fixed, fixed.with_blocks([(["a"], None), (["b"], None)])):
        with pytest.raises(QevoError, match="no gene can move: low equals high in a, b"):
            ShiftES(space)
    ShiftES(block_space())  # a block that cannot move does no harm


def test_heavy_tailed_mutants_shift_many_genes_now_and_then() -> None:
    space, slots = Space.integers(400, 0, 9), 50
    search = Search(space, settings(mutation="heavy-tailed", slots=slots))
    drawn = search.draws(300)
    count = np.sum(drawn.positions[:, 3:] < space.size, axis=-1).ravel()
    strength = np.arange(1, slots + 1)
    law = strength**-1.5 / np.sum(strength**-1.5)
    # The first slot is always used, the others with the probability strength / slots.
    mean = np.sum(law * (1 + (slots - 1) * strength / slots))
    assert count.min() == 1
    assert abs(count.mean() - mean) < 0.5
    assert 0.02 < np.mean(count > 25) < 0.15
    proposal, state = search.propose(KEY, search.start)
    same = dataclasses.replace(state, share=jnp.int32(search.algorithm.most))  # has no part in it
    again = search.propose(KEY, same)[0]
    np.testing.assert_array_equal(again.positions, proposal.positions)


def test_neutral_moves_take_an_equal_mutant_not_a_worse_one() -> None:
    search = Search(Space.integers(50, -1, 1), settings(neutral=True, siblings=2))
    proposal, state = search.propose(KEY, search.start)
    level = jnp.full(16, 5, jnp.int32)
    after, _ = search.update(KEY, proposal, level, state)
    moved = np.asarray(proposal.apply(state.parent))[3]
    np.testing.assert_array_equal(after.parent, moved)  # the first of the mutants
    after, _ = search.update(KEY, proposal, level.at[0].set(4), state)
    np.testing.assert_array_equal(after.parent, state.parent)
    after, _ = search.update(KEY, proposal, level.at[9].set(4), state)
    np.testing.assert_array_equal(after.parent, np.asarray(proposal.apply(state.parent))[9])

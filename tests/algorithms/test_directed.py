"""Directed evolution: what it zeroes, gives back and repairs, and that it keeps the contract."""

import dataclasses
import itertools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from directed_task import CONFIG, KEY, problem, run, space, states
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support import on_devices

from qevo.algorithms.directed import (
    IMPORTANCE_LIMIT,
    Directed,
    DirectedConfig,
    integer_importance,
)
from qevo.algorithms.zero_patterns import least_values
from qevo.core import Leaf, Space
from qevo.errors import QevoError
from qevo.integer import audit


def zeros(solution: Any, name: str) -> int:
    return int(np.sum(np.asarray(solution[name]) == 0))


def test_it_reaches_the_targets_and_loses_less_than_pruning_by_magnitude() -> None:
    result = run(dataclasses.replace(CONFIG, focus=0), 120)
    first = Directed(space(), CONFIG)
    plain = space().decode(first.solution(first.start(KEY)))
    for solution in (result.solution, plain):
        assert (zeros(solution, "a"), zeros(solution, "b")) == (150, 40)
    task = problem()
    # The best that any 150 and 40 zeros can cost, by sorting.
    costs = np.asarray(task.costs)
    given = np.asarray(task.space.start)[200:280] == 0
    free = np.sort(costs[200:280][~given])[: 40 - given.sum()].sum() + costs[200:280][given].sum()
    bound = np.sort(costs[:200])[:150].sum() + free
    assert bound <= result.fitness < (bound + 2 * int(task.fitness(plain, ()))) / 3
    assert min(record["missing"] for record in result.metrics[-6:]) == 0


def test_a_set_costs_what_it_costs_by_the_weight() -> None:
    """With one set committed and nothing else, every step is the best of the sets drawn."""
    config = dataclasses.replace(CONFIG, committed=1, restoring=0, repairing=0, step=0.02)
    task = problem()
    search = Directed(task.space, config)
    state = search.start(KEY)
    proposal, state = jax.jit(search.propose)(KEY, state)
    used = np.asarray(proposal.positions) < task.space.size
    assert not used[0].any()
    assert used[1:].sum(1).max() == 4  # 2 % of 200
    assert used[1:].sum() >= 0.9 * 60
    drawn = np.asarray(proposal.positions)[used]
    assert len(set(drawn.tolist())) == len(drawn)
    assert drawn.max() < 200
    fitness = jnp.arange(100, 84, -1, dtype=jnp.int32).at[7].set(3)
    after, _ = jax.jit(search.update)(KEY, proposal, fitness, state)
    changed = np.flatnonzero(np.asarray(after.genes) != np.asarray(state.genes))
    assert set(changed) == set(np.asarray(proposal.positions[7])[used[7]].tolist())
    assert not np.asarray(after.genes)[changed].any()


@pytest.mark.parametrize(
    ("fitness", "moved"), [([5, 4, 9, 9], True), ([4, 3, 9, 9], True), ([4, 4, 9, 9], False)]
)
def test_the_least_improvement_is_committed(fitness: list[int], moved: bool) -> None:
    start = np.asarray([1, 2, 3, 4, 5, 6, 7, -3])
    config = DirectedConfig(zeros=(("w", 0.0),), population=4, slots=4, shifted=1, committed=2)
    algorithm = Directed(Space.of({"w": Leaf((8,), -8, 7, start)}), config)
    proposal, state = algorithm.propose(KEY, algorithm.start(KEY))
    _, metrics = algorithm.update(KEY, proposal, jnp.asarray(fitness, jnp.int32), state)
    assert bool(metrics["moved"]) == moved


def test_narrowing_keeps_the_least_important_of_the_sets() -> None:
    config = dataclasses.replace(CONFIG, narrow=0.25)
    task = problem()
    draw = np.random.RandomState(3).randint(1, 500, task.space.size)
    search = Directed(task.space, config, draw)
    state = search.start(KEY)
    proposal, state = jax.jit(search.propose)(KEY, state)
    fitness = jnp.int32(4) << jnp.arange(16)  # sets 1 to 4 are the best
    after, _ = jax.jit(search.update)(KEY, proposal, fitness, state)
    positions = np.asarray(proposal.positions[1:5]).ravel()
    positions = positions[positions < task.space.size]
    saliency = draw * np.asarray(task.space.start, int) ** 2
    ranked = sorted(positions, key=lambda p: saliency[p])
    changed = np.flatnonzero(np.asarray(after.genes) != np.asarray(state.genes))
    assert 0 < len(changed) == len(positions) // 4
    assert saliency[changed].max() <= saliency[ranked[len(changed)]]


@pytest.mark.parametrize("lockstep", [True, False])
def test_the_order_of_the_layers(lockstep: bool) -> None:
    config = dataclasses.replace(CONFIG, lockstep=lockstep, restoring=0, repairing=0)
    way = []
    for state in states(config, 30):
        genes = np.asarray(state.genes)
        way.append((int((genes[:200] == 0).sum()), int((genes[200:280] == 0).sum())))
    assert way[-1] == (150, 40)
    begun = way[0][1]
    assert way == sorted(way)
    if lockstep:
        middle = next(found for found in way if found[0] >= 75)
        assert begun < middle[1] < 40
    else:
        assert all(found[1] == begun for found in way if found[0] < 150)


def test_zeroed_weights_come_back_at_their_first_values() -> None:
    config = dataclasses.replace(CONFIG, zeroing=1, restoring=1, repairing=0, step=0.3)
    start = np.asarray(space().start)[:280]
    returned = 0
    found = [np.asarray(state.genes)[:280] for state in states(config, 40)]
    for before, after in itertools.pairwise(found):
        back = (before == 0) & (after != 0)
        returned += back.sum()
        assert np.array_equal(after[back], start[back])
    assert returned > 10


def test_repair_shifts_survivors_and_constants_and_zeroes_nothing() -> None:
    config = dataclasses.replace(CONFIG, zeroing=1, restoring=0, repairing=3)
    found = [np.asarray(state.genes, int) for state in states(config, 60)]
    low, high = (np.asarray(part, int) for part in (space().low, space().high))
    weights = np.arange(space().size) < 280
    shifted = 0
    for place, (before, after) in enumerate(itertools.pairwise(found)):
        assert ((after >= low) & (after <= high)).all()
        if place % 4:
            assert np.array_equal((before == 0)[weights], (after == 0)[weights])
            shifted += np.count_nonzero(before != after)
    assert shifted > 0
    assert np.abs(found[-1][280:] - 3).sum() < np.abs(found[0][280:] - 3).sum()


def test_the_same_bits_again_also_after_a_stop(tmp_path: pathlib.Path) -> None:
    whole = run()
    first = run(folder=tmp_path, max_seconds=0.0)
    assert (first.stopped, first.generations) == ("time", 20)
    second = run(folder=tmp_path, resume=True)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, second.carry, whole.carry))
    assert first.metrics + second.metrics == whole.metrics
    with pytest.raises(QevoError, match=r"(?s)belongs to another setup.*zeros"):
        run(dataclasses.replace(CONFIG, zeros=(("a", 0.7),)), folder=tmp_path, resume=True)


SHARDED = """
import json
import numpy as np
import test_directed as here
found = [here.run(generations=30, devices=count).carry.state.genes for count in (1, 4)]
print(json.dumps([np.asarray(genes).tolist() for genes in found]))
"""


@pytest.mark.slow
def test_it_does_not_depend_on_the_devices() -> None:
    one, four = json.loads(on_devices(4, SHARDED))
    assert one == four


def test_a_generation_holds_no_float() -> None:
    search = Directed(space(), CONFIG)
    state = search.start(KEY)
    proposal = search.propose(KEY, state)[0]
    fitness = jnp.zeros(16, jnp.int32)
    assert audit(search.propose, KEY, state).integer_only
    assert audit(search.update, KEY, proposal, fitness, state).integer_only
    assert audit(search.solution, state).integer_only
    for leaf in jax.tree.leaves((state, proposal)):
        assert jnp.issubdtype(leaf.dtype, jnp.integer)


least = jax.jit(least_values)


@settings(max_examples=60)
@given(st.data())
def test_the_least_are_those_of_a_sort(data: st.DataObject) -> None:
    values = data.draw(
        arrays.arrays(np.int32, 12, elements=st.sampled_from([0, 1, 2, 7, 1 << 30, 5]))
    )
    there = data.draw(arrays.arrays(bool, 12))
    count = data.draw(st.integers(0, int(there.sum())))
    found = np.asarray(least(values, there, count))
    order = sorted(np.flatnonzero(there), key=lambda place: (values[place], place))
    assert np.flatnonzero(found).tolist() == sorted(order[:count])


def test_importance_in_integers() -> None:
    here = space()
    found = integer_importance(here, {"a": np.arange(10.0), "c": np.array(0.25)})
    assert found[:10].tolist() == [max(round(i * IMPORTANCE_LIMIT / 9), 1) for i in range(10)]
    assert set(found[200:280].tolist()) == {1}
    assert set(found[280:].tolist()) == {IMPORTANCE_LIMIT}
    with pytest.raises(QevoError, match="a: importances must be finite"):
        integer_importance(here, {"a": np.array(-1.0)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zeros": ()}, "zeros must name leaves"),
        ({"zeros": (("d", 0.5),)}, "there are a, b, c"),
        ({"zeros": (("a", 0.5), ("a", 0.6))}, "once each"),
        ({"zeros": (("a", 1.0),)}, "a: a share of zeros"),
        ({"zeros": (("c", 0.5),)}, "c: a share of zeros"),
        ({"population": 2}, "population must be at least 3"),
        ({"committed": 16}, "got 16 and 16"),
        ({"shifted": 9}, "got 9 of 8"),
        ({"step": 0.0}, "step and narrow above 0"),
        ({"narrow": 1.5}, "at most 1, got"),
        ({"zeroing": 0}, "zeroing must be at least 1"),
        ({"focus": 5}, "focus 0 to 4"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(QevoError, match=message):
        Directed(space(), dataclasses.replace(CONFIG, **changes))


def test_genes_and_importances_that_cannot_work() -> None:
    away = Space.of({"a": Leaf((4, 2), 1, 3, 1)})
    with pytest.raises(QevoError, match="a: the bounds of every gene must hold 0"):
        Directed(away, dataclasses.replace(CONFIG, zeros=(("a", 0.5),)))
    for wrong in (np.ones(3, int), np.zeros(290, int), np.full(290, IMPORTANCE_LIMIT + 1)):
        with pytest.raises(QevoError, match="importance must be integers"):
            Directed(space(), CONFIG, wrong)

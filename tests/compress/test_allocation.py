"""One budget for all layers, against every choice there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.compress import allocate, reallocate
from qevo.errors import QevoError

Tables = tuple[list[list[int]], list[list[int]]]


@st.composite
def tables(draw: Any) -> Tables:
    """Costs and losses of up to five layers with up to four options each."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    costs, losses = (
        [draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)) for n in sizes]
        for _ in range(2)
    )
    return costs, losses


def best_loss(costs: list[list[int]], losses: list[list[int]], budget: float) -> int:
    return min(
        sum(row[option] for row, option in zip(losses, choice, strict=True))
        for choice in itertools.product(*(range(len(row)) for row in costs))
        if sum(row[option] for row, option in zip(costs, choice, strict=True)) <= budget
    )


@given(tables(), st.floats(0, 1))
def test_no_choice_is_better(pair: Tables, share: float) -> None:
    costs, losses = pair
    least, most = sum(map(min, costs)), sum(map(max, costs))
    budget = least + int(share * (most - least))
    best = best_loss(costs, losses, budget)
    found = allocate(costs, losses, budget)
    assert found.cost == sum(row[o] for row, o in zip(costs, found.choice, strict=True)) <= budget
    assert found.loss == sum(row[o] for row, o in zip(losses, found.choice, strict=True)) == best
    assert found.bound == pytest.approx(best)
    rough = allocate(costs, losses, budget, max_states=1)
    assert rough.cost <= budget
    assert rough.bound - 1e-6 <= best <= rough.loss


def test_fewest_bytes_within_a_loss() -> None:
    sizes, losses = [[100, 60, 30], [200, 90, 80]], [[0, 1, 5], [0, 2, 9]]
    assert allocate(losses, sizes, 3).choice == (1, 1)
    assert allocate(losses, sizes, 2).choice == (0, 1)


@given(tables(), st.floats(0, 1), st.integers(0, 2**16))
def test_a_measured_choice_is_a_local_optimum_within_the_budget(
    pair: Tables, share: float, seed: int
) -> None:
    costs, losses = pair
    least, most = sum(map(min, costs)), sum(map(max, costs))
    budget = least + int(share * (most - least))
    draw = np.random.RandomState(seed)
    joint = draw.randint(0, 30, [len(row) for row in costs])  # a loss that does not add up
    measured: list[tuple[int, ...]] = []

    def measure(choice: tuple[int, ...]) -> float:
        measured.append(choice)
        return float(joint[choice])

    first = allocate(costs, losses, budget).choice
    best = reallocate(costs, losses, budget, first, measure, tries=1000)
    assert measured[0] == first
    assert len(set(measured)) == len(measured)
    assert joint[best] == min(joint[choice] for choice in measured)
    for choice in measured:
        assert sum(row[o] for row, o in zip(costs, choice, strict=True)) <= budget
    assert reallocate(costs, losses, budget, first, measure, tries=1) == first
    measured.clear()
    assert reallocate(costs, losses, budget, first, measure, tries=0) == first
    assert not measured


def test_layers_that_cost_more_together_are_not_pruned_together() -> None:
    # One by one the first two layers lose least; both at once lose ten times the sum.
    sizes, losses = [[100, 50], [100, 50], [100, 50]], [[0, 1], [0, 1], [0, 3]]

    def measure(choice: tuple[int, ...]) -> float:
        return (
            sum(row[o] for row, o in zip(losses, choice, strict=True)) + 18 * choice[0] * choice[1]
        )

    first = allocate(sizes, losses, 200).choice
    assert first == (1, 1, 0)
    found = reallocate(sizes, losses, 200, first, measure, tries=20)
    assert found[2] == 1
    assert measure(found) == 4


def test_as_many_layers_as_yolov3_has() -> None:
    draw = np.random.default_rng(0)
    costs = np.sort(draw.integers(1_000, 1_000_000, (75, 12)))
    losses = -np.sort(-draw.random((75, 12)))
    found = allocate(costs.tolist(), losses.tolist(), 75 * 300_000)
    assert found.loss == found.bound
    assert found.cost <= 75 * 300_000


@pytest.mark.parametrize(
    ("costs", "losses", "budget", "said"),
    [
        ([[3, 4]], [[1, 0]], 2, "the cheapest choice costs 3, above the budget of 2"),
        ([[3, 4]], [[1]], 9, "same options"),
        ([[]], [[]], 9, "at least one"),
        ([[1.0]], [[float("nan")]], 9, "finite"),
    ],
)
def test_what_cannot_be(costs: Any, losses: Any, budget: float, said: str) -> None:
    with pytest.raises(QevoError, match=said):
        allocate(costs, losses, budget)

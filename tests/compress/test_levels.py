"""Codebooks and assignments: what they promise, and what they cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qevo.compress import LayerValues, assign, choose_levels, codebook
from qevo.compress.coder import encode_layer
from qevo.compress.levels import Kind
from qevo.errors import QevoError

KINDS: tuple[Kind, ...] = ("uniform", "two_sided", "power_of_two", "optimal")


@pytest.fixture(scope="module")
def layer() -> LayerValues:
    """Pruned by magnitude: a gap around zero. Rows matter differently."""
    draw = np.random.default_rng(0)
    values = draw.laplace(0, 25, (90, 40)).clip(-127, 127)
    values[np.abs(values) < np.quantile(np.abs(values), 0.85)] = 0
    return LayerValues(values, draw.exponential(1.0, (90, 1)), -127, 127)


def error_of(layer: LayerValues, levels: np.ndarray) -> float:
    """At the nearest levels, one weight after the other."""
    there = layer.values != 0
    distance = np.abs(layer.values[there][:, None] - levels.astype(np.float64)).min(1)
    return float((layer.importance[there] * distance**2).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 4, 7, 16])
def test_codebooks(layer: LayerValues, kind: Kind, count: int) -> None:
    levels = codebook(layer, kind, count)
    assert levels.dtype == np.int8
    assert (np.diff(levels.astype(int)) > 0).all()
    assert 0 in levels
    assert len(levels) <= count
    found = assign(layer, levels)
    assert found.error == pytest.approx(error_of(layer, levels))
    assert not found.weights[layer.values == 0].any()
    assert found.bits == encode_layer(found.weights).model_bits
    np.testing.assert_array_equal(found.weights, found.codebook[found.indices])


def test_uniform_levels_have_the_best_step(layer: LayerValues) -> None:
    levels = codebook(layer, "uniform", 7).astype(int)
    assert len(set(np.diff(levels))) == 1
    best = min(error_of(layer, step * np.arange(-3, 4)) for step in range(1, 43))
    assert error_of(layer, levels) == pytest.approx(best)


def test_two_sides_have_the_best_gap_and_step(layer: LayerValues) -> None:
    levels = codebook(layer, "two_sided", 7).astype(int)
    above = levels[levels > 0]
    assert len(set(np.diff(above))) == 1
    sides = [(a, a + d, a + 2 * d) for a in range(1, 127) for d in range(1, 64) if a + 2 * d <= 127]
    only = LayerValues(layer.values.clip(0), layer.importance, -127, 127)
    best = min(error_of(only, np.array([0, *side])) for side in sides)
    assert error_of(only, np.array([0, *above])) == pytest.approx(best)


def test_powers_of_two(layer: LayerValues) -> None:
    levels = codebook(layer, "power_of_two", 7).astype(int)
    sizes = np.abs(levels[levels != 0])
    assert all(size & (size - 1) == 0 for size in sizes)
    runs = [[1 << k for k in range(i, i + 3)] for i in range(5)]
    best = min(
        error_of(layer, np.array([*(-p for p in below), 0, *above]))
        for below, above in itertools.product(runs, runs)
    )
    assert error_of(layer, levels) == pytest.approx(best)


def test_the_optimal_levels_lose_least(layer: LayerValues) -> None:
    for count in (4, 8):
        errors = {kind: error_of(layer, codebook(layer, kind, count)) for kind in KINDS}
        assert min(errors, key=lambda kind: errors[kind]) == "optimal"
        assert errors["two_sided"] < errors["uniform"]  # there is a gap


def test_very_many_weights_go_through_a_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(0, 30, (300, 300)).clip(-127, 127)
    layer = LayerValues(values, np.ones(()), -127, 127)
    found = {kind: error_of(layer, codebook(layer, kind, 8)) for kind in KINDS}
    monkeypatch.setattr("qevo.compress.levels._MANY", values.size)
    for kind in KINDS:
        assert found[kind] == pytest.approx(error_of(layer, codebook(layer, kind, 8)), rel=1e-4)


def test_a_price_trades_error_for_bits(layer: LayerValues) -> None:
    levels = codebook(layer, "uniform", 16)
    tried = [assign(layer, levels, price=price) for price in (0.0, 10.0, 100.0, 1000.0)]
    assert [f.error for f in tried] == sorted(f.error for f in tried)
    assert [f.bits for f in tried] == sorted((f.bits for f in tried), reverse=True)
    for nearest, found, price in zip(tried[:1] * 3, tried[1:], (10.0, 100.0, 1000.0), strict=True):
        assert found.error + price * found.bits < nearest.error + price * nearest.bits
    small = np.abs(layer.values[(tried[2].weights == 0) & (layer.values != 0)])
    assert len(small)  # the dead zone is at the small ones
    assert small.mean() < np.abs(layer.values[tried[2].weights != 0]).mean()


@pytest.mark.parametrize("kind", ["uniform", "optimal"])
def test_budgets_are_kept_and_used(layer: LayerValues, kind: Kind) -> None:
    free = choose_levels(layer, kind, 16)
    budget = 0.7 * free.bits
    found = choose_levels(layer, kind, 16, max_bits=budget)
    assert 0.97 * budget < found.bits <= budget
    again = choose_levels(layer, kind, 16, max_error=found.error)
    assert again.error <= found.error
    assert again.bits <= 1.02 * found.bits
    assert choose_levels(layer, kind, 16, max_bits=2 * free.bits).error == free.error
    everything = float((layer.importance * layer.values**2).sum())
    assert not choose_levels(layer, kind, 16, max_error=1.01 * everything).weights.any()


def test_budgets_that_cannot_be_kept(layer: LayerValues) -> None:
    with pytest.raises(QevoError, match="even zeros take"):
        choose_levels(layer, "uniform", 4, max_bits=0.1)
    with pytest.raises(QevoError, match="the least error of 4 levels"):
        choose_levels(layer, "uniform", 4, max_error=1.0)
    with pytest.raises(QevoError, match="not both"):
        choose_levels(layer, "uniform", 4, max_error=1.0, max_bits=1.0)


def test_an_integer_layer_keeps_what_it_can() -> None:
    draw = np.random.default_rng(2)
    kernel = draw.choice(np.array([-5, 0, 0, 0, 2, 3], np.int8), (3, 3, 4, 6))
    layer = LayerValues.of_integers(kernel, low=-8, high=7)
    found = choose_levels(layer, "optimal", 4)
    assert found.error == 0
    assert found.codebook.tolist() == [-5, 0, 2, 3]
    np.testing.assert_array_equal(found.weights.reshape(kernel.shape), kernel)
    worth = np.where(kernel.reshape(36, 6) == 2, 100.0, 0.01)
    rough = choose_levels(LayerValues.of_integers(kernel, worth, low=-8, high=7), "optimal", 2)
    assert rough.codebook.tolist() == [0, 2]


@pytest.mark.parametrize("values", [np.zeros((4, 3)), np.ones((1, 1)), -np.ones((2, 2))])
def test_layers_with_little_in_them(values: np.ndarray) -> None:
    layer = LayerValues(values, np.ones(()), -4, 3)
    for kind in KINDS:
        found = choose_levels(layer, kind, 3, max_bits=50.0)
        assert found.error == 0
        np.testing.assert_array_equal(found.weights, values)


def test_what_makes_no_sense() -> None:
    good = np.ones((2, 2))
    values_wrong, importance_wrong = "values must be finite", "importance must be finite"
    levels_wrong = "must be int8 with zero among them"
    for values, importance, low, message in (
        (np.ones(3), np.ones(()), -4, values_wrong),
        (np.full((2, 2), np.nan), np.ones(()), -4, values_wrong),
        (good, -np.ones(()), -4, importance_wrong),
        (good, np.ones(3), -4, importance_wrong),
        (good, np.ones(()), 1, levels_wrong),
        (good, np.ones(()), -129, levels_wrong),
    ):
        with pytest.raises(QevoError, match=message):
            LayerValues(values, importance, low, 7)
    layer = LayerValues(good, np.ones(()), -4, 3)
    for kind, count, message in (
        ("uniform", 1, "2 to 256 levels"),
        ("uniform", 257, "2 to 256 levels"),
        ("other", 4, "kind must be one of"),
    ):
        with pytest.raises(QevoError, match=message):
            codebook(layer, kind, count)  # type: ignore[arg-type]
    for levels in ([1, 2], [2, 0], [0, 0, 1]):
        with pytest.raises(QevoError, match="ascend and hold zero"):
            assign(layer, np.array(levels, np.int8))

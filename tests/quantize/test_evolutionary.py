"""Evolutionary rounding: never worse than the fit it starts from, and better where it counts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest
from layers import random_layer

from qevo.algorithms import ColumnSearch, evolve_columns, integer_columns
from qevo.quantize import (
    EvolutionaryRounding,
    FloatTeacher,
    LayerwiseFit,
    evolutionary,
    quantize_network,
)
from qevo.quantize.evolutionary import search_columns
from qevo.quantize.layerwise import regression
from qevo.quantize.rounding import Rounded

if TYPE_CHECKING:
    Trained = Any

FEW = EvolutionaryRounding(search=ColumnSearch(generations=150))


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-8, 7)])
def test_no_channel_is_worse_than_the_fit(low: int, high: int) -> None:
    layer = random_layer(50, 12, low=low, high=high)
    problem = regression(layer, FEW.fit.ridge)
    fit, found = LayerwiseFit()(layer), FEW(layer)
    before, after = problem.error(*fit), problem.error(*found)
    assert np.all(after <= before)
    assert after.sum() < 0.97 * before.sum()
    assert np.sum(after < before) > 6

    assert found.levels.dtype == np.int8
    assert found.levels.shape == layer.kernel.shape
    assert low <= found.levels.min() < found.levels.max() <= high
    np.testing.assert_array_equal(layer.grid.nearest(found.scale), found.scale)

    again = FEW(layer)
    np.testing.assert_array_equal(again.levels, found.levels)
    np.testing.assert_array_equal(again.scale, found.scale)


def test_its_error_is_that_of_the_outputs() -> None:
    """Without the ridge, the layer's error on its inputs falls as the quadratic form says."""
    layer = random_layer(50, 12)
    few = dataclasses.replace(FEW, fit=LayerwiseFit(ridge=1e-9))
    inputs = layer.rows.inputs * layer.rows.scale

    def squares(rounded: Rounded) -> np.ndarray:
        wrong = inputs @ (rounded.levels * rounded.scale) - layer.outputs
        return wrong.var(0)  # the bias makes up for the mean

    problem = regression(layer, 1e-9)
    fit, found = few.fit(layer), few(layer)
    fell = squares(fit) - squares(found)
    expected = problem.error(*fit) - problem.error(*found)
    np.testing.assert_allclose(fell, expected, rtol=1e-3, atol=1e-4 * squares(fit).max())
    assert squares(found).sum() < squares(fit).sum()


def test_more_rounds_go_on_from_fewer() -> None:
    layer = random_layer(50, 12)
    problem = regression(layer, FEW.fit.ridge)
    errors = [
        problem.error(*dataclasses.replace(FEW, rounds=rounds)(layer)) for rounds in (0, 1, 2)
    ]
    fit = LayerwiseFit()(layer)
    np.testing.assert_array_equal(errors[0], problem.error(*fit))
    assert np.all(errors[1] <= errors[0])
    assert np.all(errors[2] <= errors[1])
    moved = dataclasses.replace(FEW, rounds=1, radius=1)(layer).levels.astype(int) - fit.levels
    assert np.abs(moved).max() == 1


def test_layers_and_seeds_draw_from_streams_of_their_own() -> None:
    layer = random_layer(50, 12)
    config = dataclasses.replace(FEW, rounds=1, search=ColumnSearch(generations=4))
    found = [
        rounding(dataclasses.replace(layer, name=name)).levels.tobytes()
        for rounding, name in (
            (config, "conv_0"),
            (config, "logits"),
            (dataclasses.replace(config, seed=1), "conv_0"),
        )
    ]
    assert len(set(found)) == 3


def test_a_trained_network_stays_closer_to_its_teacher(trained: Trained) -> None:
    images = trained.search.images[:200]
    teacher = FloatTeacher(trained.module, trained.variables, images)
    quick = EvolutionaryRounding(
        LayerwiseFit(starts=(1.0,), rounds=1, sweeps=1),
        ColumnSearch(generations=50, candidates=2, depth=2),
        rounds=1,
    )

    def divergence(method: Any) -> float:
        network = quantize_network(
            trained.module, trained.variables, images, bits="ternary", method=method
        )
        return teacher.divergence(network)

    assert divergence(quick) < 0.5 * divergence("nearest")


def test_a_large_layer_goes_on_from_its_best_start_alone() -> None:
    layer = random_layer(60, 24)
    problem = regression(layer, 1e-2)
    undescended = LayerwiseFit(rounds=0, sweeps=0)(layer)
    early = LayerwiseFit(large=0)(layer)
    late = LayerwiseFit()(layer)
    errors = [problem.error(*found) for found in (undescended, early, late)]
    assert np.all(errors[1] <= errors[0])
    assert errors[2].sum() <= errors[1].sum() < 1.2 * errors[2].sum()
    assert np.any(early.scale != late.scale)  # not the same choice


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_the_cores_share_the_columns_and_change_nothing(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of unequal length too, and fewer columns than cores."""
    draw = np.random.RandomState(0)
    inputs, target = draw.normal(size=(40, 12)), draw.normal(size=(12, 3))
    start = np.clip(np.rint(target), -1, 1).astype(np.int64)
    bounds = {"low": np.full(start.shape, -1), "high": np.full(start.shape, 1)}
    columns = integer_columns(start, target, inputs.T @ inputs, **bounds)
    key, search = jax.random.key(1), ColumnSearch(generations=50)
    expected = np.asarray(evolve_columns(key, columns, search)).T
    monkeypatch.setattr(evolutionary, "cores", lambda: cores)
    np.testing.assert_array_equal(search_columns(key, columns, search), expected)
    assert np.any(expected != start)

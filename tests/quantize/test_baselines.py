"""The baselines on one layer: against textbook updates, nearest rounding and their own words."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from layers import random_layer

from qevo.quantize import GPTQ, AdaRound
from qevo.quantize.baselines import adaround
from qevo.quantize.rounding import FloatLayer, Rounded, round_max_abs, round_squared_error

SHORT = AdaRound(iterations=400, batch=64)


def damped(layer: FloatLayer) -> np.ndarray:
    gram = layer.moments().gram
    return gram + 0.01 * np.diag(gram).mean() * np.eye(len(gram))


def quadratic(rounded: Rounded, layer: FloatLayer) -> np.ndarray:
    """The error of a layer's output up to its mean, as far as the weights make it."""
    wrong = rounded.levels * rounded.scale - layer.kernel
    return np.einsum("kc,kl,lc->c", wrong, layer.moments().gram, wrong)


def reconstruction(rounded: Rounded, layer: FloatLayer) -> float:
    """Mean squared error of the layer's activated output, with the mean made up for."""
    mean_input, mean_output = layer.means()
    inputs = layer.rows.inputs * layer.rows.scale - mean_input
    found = inputs @ (rounded.levels * rounded.scale) + mean_output
    wanted = layer.outputs.astype(np.float64)
    if layer.rows.layer.activation == "relu":
        found, wanted = np.maximum(found, 0), np.maximum(wanted, 0)
    return float(np.square(found - wanted).sum(-1).mean())


def with_relu(layer: FloatLayer) -> FloatLayer:
    product = dataclasses.replace(layer.rows.layer, activation="relu")
    return dataclasses.replace(layer, rows=dataclasses.replace(layer.rows, layer=product))


def obq(weights: np.ndarray, gram: np.ndarray, low: int, high: int) -> np.ndarray:
    """One column of Optimal Brain Quantization in a fixed order, as its paper writes it.

    After each weight, the others move by ``-(w - q) / [H^-1]_ii * [H^-1]_i`` and the inverse loses
    row and column i by Gaussian elimination (Frantar and Alistarh 2022, equations 2 to 4).
    """
    weights, inverse = weights.copy(), np.linalg.inv(gram)
    levels = np.zeros(len(weights))
    for i in np.argsort(-np.diag(gram), kind="stable"):
        levels[i] = np.clip(np.round(weights[i]), low, high)
        weights -= (weights[i] - levels[i]) / inverse[i, i] * inverse[i]
        inverse -= np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, i] = 1.0  # never asked for again; the rest of its row and column is 0
    return levels


class TestGPTQ:
    @pytest.mark.parametrize(("low", "high"), [(-1, 1), (-4, 3)])
    @pytest.mark.parametrize("fan_in", [12, 75])  # within one block of rows, and over several
    def test_it_is_obq_in_a_fixed_order(self, fan_in: int, low: int, high: int) -> None:
        layer = random_layer(fan_in, 5, low=low, high=high)
        found, gram = GPTQ()(layer), damped(layer)
        for channel in range(5):
            exact = layer.kernel[:, channel] / found.scale[channel]
            np.testing.assert_array_equal(found.levels[:, channel], obq(exact, gram, low, high))

    def test_uncorrelated_inputs_leave_the_nearest_levels(self) -> None:
        layer = random_layer(30, 9, low=-2, high=1, correlated=False)
        gram = layer.moments().gram
        assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-9
        assert len(set(np.diag(gram))) > 10
        found, nearest = GPTQ()(layer), round_squared_error(layer)
        np.testing.assert_array_equal(found.levels, nearest.levels)
        np.testing.assert_array_equal(found.scale, nearest.scale)

    def test_it_lowers_the_error_on_correlated_inputs(self) -> None:
        layer = random_layer(60, 16, low=-4, high=3)
        found, nearest = GPTQ()(layer), round_squared_error(layer)
        assert found.levels.dtype == np.int8
        assert -4 <= found.levels.min() < found.levels.max() <= 3
        np.testing.assert_array_equal(found.scale, nearest.scale)
        before, after = quadratic(nearest, layer), quadratic(found, layer)
        assert after.sum() < 0.6 * before.sum()
        assert np.mean(after < before) > 0.8

    def test_much_damping_leaves_the_nearest_levels(self) -> None:
        layer = random_layer(20, 6)
        found, nearest = GPTQ(damping=1e9)(layer), round_squared_error(layer)
        np.testing.assert_array_equal(found.levels, nearest.levels)


class TestAdaRound:
    @pytest.mark.parametrize(("low", "high"), [(-1, 1), (-8, 7)])
    @pytest.mark.parametrize("relu", [False, True])
    def test_it_rounds_up_or_down_and_lowers_the_error(
        self, low: int, high: int, relu: bool
    ) -> None:
        layer = random_layer(40, 8, low=low, high=high)
        layer = with_relu(layer) if relu else layer
        found, nearest = SHORT(layer), round_squared_error(layer)
        np.testing.assert_array_equal(found.scale, nearest.scale)
        assert found.levels.dtype == np.int8
        exact = layer.kernel / found.scale
        np.testing.assert_array_equal(
            found.levels, np.clip(found.levels, np.floor(exact), np.ceil(exact)).clip(low, high)
        )
        inside = (exact > low) & (exact < high)
        assert inside.mean() > 0.5
        assert np.abs(found.levels - exact)[inside].max() < 1
        assert np.any(found.levels != nearest.levels)
        assert reconstruction(found, layer) < 0.8 * reconstruction(nearest, layer)

    def test_what_the_activation_cuts_off_does_not_count(self) -> None:
        layer = random_layer(40, 8, low=-8, high=7)
        off = dataclasses.replace(layer, outputs=layer.outputs - np.float32(1000))
        nearest = round_squared_error(layer)
        assert np.any(SHORT(off).levels != nearest.levels)
        np.testing.assert_array_equal(SHORT(with_relu(off)).levels, nearest.levels)

    def test_uncorrelated_inputs_leave_the_nearest_levels(self) -> None:
        """There, whatever weights a batch may favour, no level far from a tie moves."""
        layer = random_layer(15, 6, low=-8, high=7, correlated=False)
        found, nearest = SHORT(layer), round_squared_error(layer)
        exact = layer.kernel / nearest.scale
        clear = np.abs(exact - np.floor(exact) - 0.5) > 0.05
        assert clear.mean() > 0.8
        np.testing.assert_array_equal(found.levels[clear], nearest.levels[clear])

    def test_it_begins_at_the_float_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first step sees the float layer's outputs; without a step the nearest level wins."""
        layer = random_layer(15, 6, low=-8, high=7)
        nearest = round_max_abs(layer)  # a scale that cuts off nothing
        monkeypatch.setattr(adaround, "squared_error_scale", lambda *_: nearest.scale)
        seen: list[np.ndarray] = []

        def watched(x: jax.Array, activation: Any) -> jax.Array:
            jax.debug.callback(lambda value: seen.append(np.asarray(value)), x, ordered=True)
            return x

        monkeypatch.setattr(adaround, "activate", watched)
        one = AdaRound(iterations=1, batch=64, seed=123)  # a configuration of its own: compiled now
        one(layer)
        jax.effects_barrier()
        found, wanted = seen
        assert found.shape == (64, 6)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
        np.testing.assert_array_equal(AdaRound(iterations=0)(layer).levels, nearest.levels)

    def test_a_weight_a_hair_below_a_level_keeps_it(self) -> None:
        """Its float32 is the level itself, and so is its floor, wherever that is taken."""
        scale = random_layer(4, 1, low=-8, high=7).grid.nearest(np.array([0.02]))
        kernel = np.array([[-8.0], [-3.0], [5.0], [7.0]]) * scale
        layer = random_layer(4, 1, low=-8, high=7, kernel=kernel)
        hair = dataclasses.replace(layer, kernel=kernel - 1e-10)
        found = AdaRound(iterations=0)(hair)
        np.testing.assert_array_equal(found.scale, scale)
        np.testing.assert_array_equal(found.levels, [[-8], [-3], [5], [7]])

    def test_it_is_deterministic(self) -> None:
        layer = random_layer(20, 4)
        few = dataclasses.replace(SHORT, iterations=20)
        first, again = few(layer), few(layer)
        np.testing.assert_array_equal(first.levels, again.levels)

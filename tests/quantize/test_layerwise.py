"""The quadratic form of one layer: its solvers against brute force, its moments against numpy."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax

from qevo.nets import Product
from qevo.quantize import calibration, gram
from qevo.quantize.batches import over_batches
from qevo.quantize.gram import InputRows
from qevo.quantize.layerwise import best_scale, descend, round_with_feedback
from qevo.quantize.scales import (
    ScaleGrid,
    max_abs_scale,
    round_to_levels,
    squared_error_scale,
)


def problem(fan_in: int, channels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A correlated Gram matrix and targets in units of levels."""
    draw = np.random.RandomState(seed)
    inputs = draw.normal(size=(4 * fan_in, fan_in)) + 2 * draw.normal(size=(4 * fan_in, 1))
    return inputs.T @ inputs / len(inputs), draw.normal(0, 0.8, (fan_in, channels))


def error(levels: np.ndarray, target: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    residual = levels - target
    return (residual * (matrix @ residual)).sum(0)


@pytest.mark.parametrize("fan_in", [5, 70])
def test_feedback_and_descent_lower_the_error(fan_in: int) -> None:
    matrix, target = problem(fan_in, 40)
    nearest = round_to_levels(target, -1, 1)
    fed = round_with_feedback(target, matrix, -1, 1)
    for levels in (nearest, fed):
        descended = descend(levels, np.ones(40), target, matrix, -1, 1, 5)
        assert np.abs(descended).max() <= 1
        np.testing.assert_array_equal(descended, np.rint(descended))
        assert np.all(error(descended, target, matrix) <= error(levels, target, matrix) + 1e-9)
    assert error(fed, target, matrix).sum() < 0.8 * error(nearest, target, matrix).sum()


def test_descent_ends_where_no_single_step_helps() -> None:
    matrix, target = problem(40, 7)
    levels = descend(round_to_levels(target, -2, 1), np.ones(7), target, matrix, -2, 1, 50)
    final = error(levels, target, matrix)
    for row, step in itertools.product(range(40), (-1, 1)):
        moved = levels.copy()
        moved[row] = np.clip(moved[row] + step, -2, 1)
        assert np.all(error(moved, target, matrix) >= final - 1e-9)


def test_near_the_optimum_of_brute_force() -> None:
    matrix, target = problem(6, 30)
    everything = np.array(list(itertools.product((-1, 0, 1), repeat=6)), float)
    best = np.array(
        [error(everything.T, target[:, [c]], matrix).min() for c in range(target.shape[1])]
    )
    levels = round_with_feedback(target, matrix, -1, 1)
    levels = descend(levels, np.ones(30), target, matrix, -1, 1, 9)
    found = error(levels, target, matrix)
    assert np.all(found >= best - 1e-9)
    assert found.sum() < 1.3 * best.sum()


@pytest.mark.parametrize("fan_in", [9, 70])  # within a block of rows, and several
def test_feedback_is_the_greedy_rounding_of_brute_force(fan_in: int) -> None:
    """Row after row in order of curvature; the rows still free move to the optimum each time."""
    matrix, target = problem(fan_in, 6)
    order = np.argsort(-np.diag(matrix), kind="stable")
    expected = np.empty_like(target)
    for channel in range(target.shape[1]):
        exact = target[:, channel].copy()
        for place, row in enumerate(order):
            expected[row, channel] = np.clip(np.rint(exact[row]), -1, 1)
            fixed, free = order[: place + 1], order[place + 1 :]
            off = expected[fixed, channel] - target[fixed, channel]
            inner = matrix[np.ix_(free, free)]
            shift = np.linalg.solve(inner, matrix[np.ix_(free, fixed)] @ off) if len(free) else 0
            exact[free] = target[free, channel] - shift
    np.testing.assert_array_equal(round_with_feedback(target, matrix, -1, 1), expected)


def test_best_scale() -> None:
    matrix, target = problem(12, 5)
    levels = round_to_levels(target * 2, -3, 3)
    levels[:, 4] = 0
    old = np.full(5, 0.9)
    scale = best_scale(levels, matrix, matrix @ target, old)
    assert scale[4] == 0.9
    at_best = error(levels * scale, target, matrix)[:4]
    for factor in (0.98, 1.02):
        assert np.all(error(levels * scale * factor, target, matrix)[:4] > at_best)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 1))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_rows_of_a_convolution(padding: Any, strides: Any) -> None:
    """The moments predict means and covariances of the convolution's own output."""
    draw = np.random.RandomState(0)
    x = draw.randint(-127, 128, (70, 7, 6, 3)).astype(np.int8)
    kernel = draw.normal(size=(3, 2, 3, 4)).astype(np.float32)
    layer = Product("conv", 4, (3, 2), strides, padding)
    z = lax.conv_general_dilated(
        x.astype(np.float32) * 0.5,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    rows = InputRows(x, layer, kernel.shape, 0.5)
    moments = rows.moments(np.asarray(z))
    matrix, outputs = kernel.reshape(-1, 4), np.asarray(z, np.float64).reshape(-1, 4)
    np.testing.assert_allclose(rows.mean() @ matrix, outputs.mean(0), atol=1e-3)
    np.testing.assert_allclose(moments.mean_input, rows.mean(), atol=1e-6)
    covariance = np.cov(outputs.T, bias=True)
    np.testing.assert_allclose(matrix.T @ moments.gram @ matrix, covariance, rtol=1e-3, atol=1)
    np.testing.assert_allclose(moments.gram @ matrix, moments.cross, rtol=1e-3, atol=1)


def test_samples_of_many_rows_are_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subset of positions has the same moments, whatever divides the image's size."""
    draw = np.random.RandomState(0)
    x = draw.randint(0, 20, (64, 16, 16, 2)).astype(np.int8)
    x[:, ::2] += 60
    x[:, :, ::4] += 40
    rows = InputRows(x, Product("conv", 1, (1, 1)), (1, 1, 2, 1), 1.0)
    outputs = x[..., :1].astype(np.float32)
    whole = rows.moments(outputs)
    monkeypatch.setattr(gram, "MAX_ROWS", 1 << 12)
    monkeypatch.setattr(gram, "ROWS", 1 << 10)
    some = rows.moments(outputs)
    np.testing.assert_allclose(some.mean_input, whole.mean_input, rtol=0.02)
    np.testing.assert_allclose(some.gram, whole.gram, rtol=0.05)
    np.testing.assert_allclose(some.gram[:, 0], some.cross[:, 0], rtol=1e-6)


@pytest.mark.parametrize("images", [1000, 1040, 1200, 2100])
def test_samples_are_no_smaller_than_they_need_be(images: int) -> None:
    x = np.zeros((images, 8, 8, 1), np.int8)
    rows = InputRows(x, Product("conv", 1, (1, 1)), (1, 1, 1, 1), 1.0)
    limit = 1 << 15
    taken = sum(len(part) for part, _ in rows.pairs(x.astype(np.float32), limit))
    assert limit / 2 <= taken <= limit


def test_scale_grid_is_dyadic_and_fine() -> None:
    grid = ScaleGrid(unit=0.013, limit=64, max_shift=17, floor=np.array([0.0, 0.0, 0.5]))
    wanted = np.array([0.1, 3.7, 0.2])
    multiplier, shift = grid.snap(wanted)
    assert multiplier.max() <= 64
    assert shift.max() <= 17
    exact = grid.scale(multiplier, shift)
    np.testing.assert_allclose(exact[:2], wanted[:2], rtol=1 / 64)
    np.testing.assert_allclose(exact[2], 0.5, rtol=1 / 64)
    again = grid.snap(exact)
    np.testing.assert_array_equal(grid.scale(*again), exact)


@pytest.mark.parametrize(
    ("low", "high", "within"), [(-1, 1, 1.001), (-2, 1, 1.001), (-8, 7, 1.001), (-127, 127, 1.05)]
)
def test_no_scale_has_a_smaller_squared_error(low: int, high: int, within: float) -> None:
    kernel = np.random.RandomState(0).laplace(0, 0.1, (300, 20))
    grid = ScaleGrid(0.5, 1000, 17, np.zeros(20))

    def loss(scale: np.ndarray) -> np.ndarray:
        return np.square(np.clip(np.rint(kernel / scale), low, high) * scale - kernel).sum(0)

    widest = max_abs_scale(kernel, low, high)
    for scale, cut in ((1.001 * widest, False), (0.999 * widest, True)):  # the least that cuts none
        outside = (kernel / scale > high) | (kernel / scale < low)
        np.testing.assert_array_equal(outside.any(0), cut)
    found = squared_error_scale(kernel, low, high, grid)
    np.testing.assert_array_equal(grid.nearest(found), found)
    every = [loss(grid.nearest(widest * share)) for share in np.linspace(0.02, 1.3, 1000)]
    assert np.all(loss(found) <= within * np.min(every, axis=0))
    assert loss(found).sum() < loss(grid.nearest(widest)).sum()


@pytest.mark.parametrize("count", [1, 2])
def test_no_activation_scale_has_a_smaller_error(count: int) -> None:
    """Of one site with an outlier, and of two that share a scale: the mean errors add up."""
    draw = np.random.RandomState(0)
    signed, positive = np.append(draw.laplace(0, 1, 40_000), 40), draw.exponential(4, 500)
    sites = [(signed, -7, 7), (positive, 0, 15)][:count]
    ranges = [calibration._Range(x, float(np.abs(x).max()), *ends) for x, *ends in sites]

    def error(scale: float) -> float:
        wrong = [np.clip(np.rint(x / scale), *ends) * scale - x for x, *ends in sites]
        return sum(np.square(part).mean() for part in wrong)

    found = calibration._best_scale(ranges, power_of_two=False)
    assert error(found) <= 1.01 * min(map(error, np.geomspace(0.01, 10, 1000)))
    assert calibration._best_scale(ranges, power_of_two=True) == min(
        2.0 ** np.arange(-20, 20), key=error
    )


def test_a_site_of_zeros_has_a_scale() -> None:
    zeros = calibration._Range(np.zeros(5), 0.0, 0, 127)
    assert calibration._best_scale([zeros], power_of_two=False) > 0


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_batches_cover_every_image_once(count: int) -> None:
    x = np.arange(count * 2).reshape(count, 2)
    shapes = []

    def double(a: Any) -> Any:
        shapes.append(a.shape)
        return 2 * jax.numpy.asarray(a)

    np.testing.assert_array_equal(over_batches(double, x, size=3), 2 * x)
    assert len(set(shapes)) == 1

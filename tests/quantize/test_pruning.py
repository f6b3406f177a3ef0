"""Pruned layers: refits and costs against brute force, nested masks, and bounds that hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from layers import random_layer

from qevo.algorithms import ColumnSearch
from qevo.errors import QevoError
from qevo.quantize import FloatTeacher
from qevo.quantize.layerwise import LeastSquares, descend, round_with_feedback
from qevo.quantize.pruning import (
    largest_in_groups,
    layer_problem,
    pruned,
    pruned_groups,
    refit,
    removal_costs,
)
from qevo.quantize.rounding import Rounded
from qevo.quantize.sparse import Order, SparseFit, sparsity_costs

ONE = np.ones(1)


def problem(fan_in: int, channels: int) -> LeastSquares:
    """A correlated Gram matrix and real targets."""
    draw = np.random.RandomState(fan_in)
    inputs = draw.normal(size=(4 * fan_in, fan_in)) + 1.5 * draw.normal(size=(4 * fan_in, 1))
    return LeastSquares(inputs.T @ inputs / len(inputs), draw.normal(size=(fan_in, channels)))


def least(form: LeastSquares, mask: np.ndarray) -> float:
    """The least error of one channel with a mask bool ``[K]``, by numpy's least squares."""
    root = np.linalg.cholesky(form.gram).T
    wanted = root @ form.target[:, 0]
    found = np.linalg.lstsq(root[:, mask], wanted, rcond=None)[0]
    return float(np.square(root[:, mask] @ found - wanted).sum())


@pytest.mark.parametrize("gone", [[], [4], [8, 2, 4], [0, 1, 3, 6, 7], [0, 1, 2, 3, 4, 6, 7, 8]])
def test_refits_and_costs_are_those_of_least_squares(gone: list[int]) -> None:
    form = problem(9, 1)
    mask = np.ones(9, bool)
    mask[gone] = False
    values, costs = refit(form, mask[:, None])
    assert not values[~mask].any()
    assert np.isinf(costs[~mask]).all()
    now = least(form, mask)
    assert form.error(values, ONE)[0] == pytest.approx(now)
    for row in np.flatnonzero(mask):
        without = mask.copy()
        without[row] = False
        assert costs[row, 0] == pytest.approx(least(form, without) - now)


def test_masks_are_nested_exact_and_better_than_by_magnitude() -> None:
    form, shares = problem(30, 8), [0.0, 0.4, 0.75, 0.9]
    alive = np.ones(30, bool)
    alive[[3, 17]] = False
    kept = np.broadcast_to(alive[:, None], (30, 8))
    order = np.argsort(-np.abs(form.target * alive[:, None]), axis=None)
    errors = []
    for share, (mask, values) in zip(shares, pruned(form, alive, shares), strict=True):
        assert np.count_nonzero(mask) == min(round((1 - share) * 240), 28 * 8)
        assert not (mask & ~kept).any()
        kept = mask
        largest = np.zeros(240, bool)
        largest[order[: np.count_nonzero(mask)]] = True
        other = refit(form, largest.reshape(30, 8))[0]
        errors.append([form.error(found, ONE).sum() for found in (values, other)])
    assert all(ours <= plain + 1e-9 for ours, plain in errors)
    assert errors[-1][0] < 0.9 * errors[-1][1]


@pytest.mark.parametrize("shares", [[0.5, 0.4], [-0.1], [1.0], []])
def test_shares_that_cannot_be(shares: list[float]) -> None:
    with pytest.raises(QevoError, match="zeros must ascend"):
        next(pruned(problem(4, 2), np.ones(4, bool), shares))


def test_a_layer_of_few_weights_can_lose_all() -> None:
    for shape in ((3, 4), (9, 3), (8, 8)):
        *_, (mask, values) = pruned(problem(*shape), np.ones(shape[0], bool), [0.9, 0.98, 0.995])
        assert np.count_nonzero(mask) == round(0.005 * mask.size)
        assert np.array_equal(values != 0, mask)


def test_bounds_of_their_own_for_every_level() -> None:
    form = problem(40, 6)
    form = form._replace(target=2 * form.target)
    target = form.target
    low, high = np.full((40, 6), -2), np.full((40, 6), 1)
    plain = round_with_feedback(target, form.gram, -2, 1)
    assert np.array_equal(round_with_feedback(target, form.gram, low, high), plain)
    unit = np.ones(6)
    descended = descend(plain, unit, target, form.gram, -2, 1, 3)
    assert np.array_equal(descend(plain, unit, target, form.gram, low, high, 3), descended)
    mask = np.random.RandomState(0).rand(40, 6) < 0.3
    fed = round_with_feedback(target, form.gram, low * mask, high * mask)
    after = descend(fed, unit, target, form.gram, low * mask, high * mask, 3)
    for levels in (fed, after):
        assert not levels[~mask].any()
        assert (levels >= low).all()
        assert (levels <= high).all()
    assert (form.error(after, unit) <= form.error(fed, unit) + 1e-9).all()
    assert np.count_nonzero(after) > 20


@pytest.mark.parametrize("order", ["second_order", "magnitude", "random"])
def test_a_fit_has_its_zeros_and_the_scale_of_the_grid(order: Order) -> None:
    layer = random_layer(40, 12, low=-4, high=3)
    fit = SparseFit(zeros={"layer": 0.7}, order=order)
    found = fit(layer)
    assert found.levels.dtype == np.int8
    assert np.count_nonzero(found.levels) <= round(0.3 * 480)
    assert found.levels.min() >= -4
    assert found.levels.max() <= 3
    assert np.array_equal(layer.grid.nearest(found.scale), found.scale)
    form, _ = layer_problem(layer, fit.fit.ridge)
    # Less lost than with all the weights rounded down to nothing, and than with plain rounding.
    error = form.error(found.levels, found.scale).sum()
    assert error < form.error(np.zeros((40, 12)), np.ones(12)).sum()
    mask = found.levels != 0
    scale = layer.grid.nearest(np.abs(layer.kernel).max(0) / 3.5)
    plain = np.clip(np.rint(layer.kernel / scale), -4, 3) * mask
    assert error < form.error(plain, scale).sum()
    given = SparseFit(masks={"layer": mask}, search=ColumnSearch(generations=30))(layer)
    assert not given.levels[~mask].any()
    if order == "random":
        other = dataclasses.replace(fit, seed=1)(layer)
        assert not np.array_equal(other.levels != 0, mask)


def test_second_order_loses_less_than_magnitude_and_that_less_than_random() -> None:
    layer = random_layer(60, 16, low=-4, high=3)
    form, _ = layer_problem(layer, 1e-3)
    errors = []
    orders: tuple[Order, ...] = ("second_order", "magnitude", "random")
    for order in orders:
        found = SparseFit(zeros={"layer": 0.7}, order=order)(layer)
        errors.append(form.error(found.levels, found.scale).sum())
    assert errors == sorted(errors)


def test_an_input_that_never_varies_is_pruned() -> None:
    layer = random_layer(20, 5, low=-4, high=3)
    layer.rows.inputs[:, 7] = 127
    _, alive = layer_problem(layer, 1e-3)
    assert np.flatnonzero(~alive).tolist() == [7]
    orders: tuple[Order, ...] = ("second_order", "magnitude", "random")
    for order in orders:
        levels = SparseFit(zeros={"layer": 0.2}, order=order)(layer).levels
        assert not levels[7].any()


def test_what_cannot_be_fitted() -> None:
    layer = random_layer(8, 3)
    with pytest.raises(QevoError, match="layer: no share of zeros and no mask; there are of a"):
        SparseFit(zeros={"a": 0.5})(layer)
    for share in (1.5, 1.0, -0.1):
        with pytest.raises(QevoError, match="layer: a share of zeros of 0 to 1, below 1"):
            SparseFit(zeros={"layer": share}, order="magnitude")(layer)
    wrong: Order = "best"  # pyright: ignore[reportAssignmentType]
    with pytest.raises(QevoError, match="order must be one of second_order"):
        SparseFit(order=wrong)


@pytest.mark.slow
def test_a_network_sparse_layer_by_layer(trained: Any) -> None:
    teacher = FloatTeacher(trained.module, trained.variables, trained.search.images)
    shares = [0.0, 0.6, 0.95]
    costs = sparsity_costs(teacher, shares, bits=4)
    for layer in costs.values():
        assert [cost.zeros for cost in layer] == shares
        divergences, sizes = [c.divergence for c in layer], [c.bytes for c in layer]
        assert sizes == sorted(sizes, reverse=True)
        assert divergences[0] < 0.01 < divergences[2]
    zeros = {"dense_0": 0.8, "dense_1": 0.6, "logits": 0.3}
    network = teacher.convert(bits=4, rounding=SparseFit(zeros=zeros))
    for name, share in zeros.items():
        assert np.mean(np.asarray(network.weights[name]) == 0) >= share - 0.01
    float_accuracy = trained.accuracy(
        teacher.module.apply(trained.variables, trained.validation.images)
    )
    assert trained.accuracy(network(trained.validation.images)) > float_accuracy - 0.03


def test_zeros_seem_free_on_the_few_images_that_layers_are_refitted_to(trained: Any) -> None:
    images = trained.search.images
    teacher = FloatTeacher(trained.module, trained.variables, images[:20])
    seen = sparsity_costs(teacher, [0.9], bits=4)
    unseen = sparsity_costs(teacher, [0.9], bits=4, images=images[500:700])
    for name in teacher.layer_names:
        assert seen[name][0].divergence < unseen[name][0].divergence
        assert seen[name][0].bytes == unseen[name][0].bytes
    assert seen["dense_0"][0].divergence < 1e-4
    assert unseen["dense_0"][0].divergence > 0.05
    with pytest.raises(QevoError, match="measured on images, but there are none"):
        sparsity_costs(teacher, [0.9], bits=4, images=images[:0])


def test_costs_of_removal_are_those_of_a_refit_or_of_each_weight_alone() -> None:
    layer = random_layer(24, 6, low=-7, high=7)
    form, alive = layer_problem(layer, 1e-3)
    mask, values = next(pruned(form, alive, [0.5]))
    levels = np.where(mask, np.where(values < 0, -3, 2), 0).astype(np.int8)
    rounded = Rounded(levels, layer.grid.nearest(np.linspace(0.01, 0.02, 6)))
    _, costs = refit(form, mask)
    found = removal_costs(layer, rounded, ridge=1e-3)
    assert not found[~mask].any()
    weights = rounded.scale * levels
    np.testing.assert_allclose(
        found[mask] * levels[mask] ** 2.0, costs[mask] * (weights[mask] / values[mask]) ** 2
    )
    alone = removal_costs(layer, rounded, made_up=False, ridge=1e-3)
    for row, channel in np.argwhere(mask)[::7]:
        error = np.zeros_like(weights)
        error[row, channel] = weights[row, channel]
        rise = form.error(form.target + error, ONE).sum() - form.error(form.target, ONE).sum()
        assert (alone * levels**2.0)[row, channel] == pytest.approx(rise)
    assert (alone >= found)[mask].all()


def test_groups_keep_the_largest() -> None:
    score = np.array([[3, 1], [5, 9], [1, 2], [4, 3], [7, 0], [6, 6], [2, 8]], float)
    mask = np.ones(score.shape, bool)
    mask[1, 0] = False
    found = largest_in_groups(score, mask, 2, 4)
    expected = [[1, 0], [0, 1], [0, 0], [1, 1], [1, 0], [1, 1], [0, 1]]  # the last run has three
    np.testing.assert_array_equal(found, np.array(expected, bool))


def test_two_of_four_by_second_order_beats_magnitude() -> None:
    errors = []
    for rows in (24, 32, 48):
        form, alive = problem(rows, 6), np.ones(rows, bool)
        alive[5] = False
        mask, values = pruned_groups(form, alive, 2, 4)
        assert mask.reshape(rows // 4, 4, 6).sum(1).max() == 2
        assert not mask[5].any()
        all_alive = alive[:, None] & np.ones(mask.shape, bool)
        plain = refit(form, largest_in_groups(np.abs(form.target), all_alive, 2, 4))[0]
        errors.append([form.error(found, ONE).sum() for found in (values, plain)])
    ours, theirs = np.sum(errors, axis=0)
    assert ours < 0.98 * theirs


@pytest.mark.parametrize("order", ["second_order", "magnitude", "random"])
def test_patterns_of_a_layer(order: Order) -> None:
    layer = random_layer(16, 10, low=-7, high=7)
    two = SparseFit(order=order, pattern=(2, 4))(layer).levels
    assert (two != 0).reshape(4, 4, 10).sum(1).max() == 2
    filters = SparseFit(zeros={"layer": 0.7}, order=order, pattern="filters")(layer).levels
    assert np.count_nonzero((filters != 0).any(0)) == 3
    assert np.count_nonzero(filters) > 0.8 * 3 * 16
    one = SparseFit(zeros={"layer": 0.99}, order=order, pattern="filters")(layer).levels
    assert np.count_nonzero((one != 0).any(0)) == 1
    last = dataclasses.replace(layer, grid=dataclasses.replace(layer.grid, last=True))
    kept = SparseFit(zeros={"layer": 0.7}, order=order, pattern="filters")(last).levels
    assert (kept != 0).any(0).all()


def test_a_search_beside_filters_that_are_gone_finds_as_much_as_alone() -> None:
    layer = random_layer(48, 8, low=-2, high=1)
    form, _ = layer_problem(layer, 1e-3)
    mask = np.ones((48, 8), bool)
    mask[:, 1:] = False
    fit = SparseFit(masks={"layer": mask})
    search = dataclasses.replace(fit, search=ColumnSearch(generations=200))
    plain, found = (form.error(*way(layer))[0] for way in (fit, search))
    assert found < plain


def test_the_strongest_filters_are_those_whose_output_varies_most() -> None:
    layer = random_layer(16, 10, low=-7, high=7)
    filters = SparseFit(zeros={"layer": 0.7}, pattern="filters")(layer).levels
    variance = layer.outputs.var(0)
    stay = (filters != 0).any(0)
    assert variance[stay].min() > variance[~stay].max()


@pytest.mark.parametrize("pattern", ["rows", (4, 4), (0, 4), (1, 2, 3), None])
def test_patterns_that_cannot_be(pattern: Any) -> None:
    with pytest.raises(QevoError, match="a pattern is"):
        SparseFit(pattern=pattern)


def test_inputs_that_lost_their_filter_are_zeroed(trained: Any) -> None:
    """A channel that is gone is a constant, which the next layer's bias takes over."""
    teacher = FloatTeacher(trained.module, trained.variables, trained.search.images[:64])
    names = teacher.layer_names
    fit = SparseFit(zeros=dict.fromkeys(names, 0.5), pattern="filters")
    network = teacher.convert(bits=4, rounding=fit)
    first, second = (np.asarray(network.weights[name]) for name in names[:2])
    gone = ~(first != 0).any(0)
    assert np.mean(gone) == pytest.approx(0.5, abs=0.1)
    assert not second[gone].any()

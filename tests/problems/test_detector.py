"""Searching a detector: its maps in fixed point against a teacher's, exact and in integers."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import detector
from networks import random_images, random_variables

from qevo import NetworkProblem, evolve
from qevo.algorithms import ShiftConfig, ShiftES
from qevo.errors import QevoError
from qevo.integer import audit
from qevo.nets import QuantizedNetwork
from qevo.nets.fixed_maps import REACH, FixedMaps
from qevo.quantize import FloatTeacher, round_network

SHAPES = ((4, 4, 14), (8, 8, 7))
ANCHORS, NUMBERS = 4 * 4 * 2 + 8 * 8, 7


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> FloatTeacher:
    made = detector(tmp_path_factory.mktemp("darknet"))
    shape = (16, 16, 3)
    return FloatTeacher(made.module, random_variables(made.module, shape), random_images(shape))


@pytest.fixture(scope="module")
def network(teacher: FloatTeacher) -> QuantizedNetwork:
    return round_network(teacher, bits=3, method="layerwise")


@pytest.fixture(scope="module")
def fixed(network: QuantizedNetwork) -> FixedMaps:
    return FixedMaps.of(network, SHAPES, NUMBERS, surest=10)


def slow_loss(fixed: FixedMaps, output: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Squared error of each image, in units of `FixedMaps.loss`, anchor by anchor."""
    losses = []
    for mine, other in zip(output, real, strict=True):
        said = np.rint(mine / 2.0 ** (fixed.output_bits - fixed.bits))
        said = np.clip(said, -REACH << fixed.bits, REACH << fixed.bits).reshape(ANCHORS, NUMBERS)
        wanted = np.rint(np.clip(other, -REACH, REACH) * 2**fixed.bits).reshape(ANCHORS, NUMBERS)
        surest = sorted(range(ANCHORS), key=lambda a: -wanted[a, 4])[: fixed.surest]
        losses.append(
            sum((said[a, 4] - wanted[a, 4]) ** 2 for a in range(ANCHORS))
            + sum(((said[a] - wanted[a]) ** 2).sum() for a in surest)
        )
    return np.array(losses)


def problem_of(
    network: QuantizedNetwork, teacher: FloatTeacher, fixed: FixedMaps, **options: Any
) -> NetworkProblem:
    targets = fixed.targets(teacher.outputs)
    parts = teacher.images[:16], targets[:16], teacher.images[16:], targets[16:]
    return NetworkProblem.of(network, *parts, loss="squared_error", maps=fixed, **options)


def test_loss_is_the_squared_error_where_objects_are(
    network: QuantizedNetwork, teacher: FloatTeacher, fixed: FixedMaps
) -> None:
    output = network(teacher.images)
    found = fixed.from_output(jnp.asarray(output))
    targets = jnp.asarray(fixed.targets(teacher.outputs))
    loss = jax.jit(functools.partial(fixed.loss, summed=24))(found, targets)
    expected = slow_loss(fixed, output, teacher.outputs)
    unit = fixed.loss_unit(24) * 4.0**fixed.bits
    assert loss.dtype == jnp.int32
    assert expected.min() > 20 * unit
    np.testing.assert_allclose(loss, expected / unit, atol=0.5)
    own = fixed.targets(output * network.output_scale)
    np.testing.assert_array_equal(fixed.loss(found, jnp.asarray(own), summed=24), 0)


def test_the_largest_error_fits(fixed: FixedMaps) -> None:
    """Everything wrong by as much as can be, for as many images as are summed."""
    high = REACH << fixed.bits
    maps = jnp.full((3, ANCHORS * NUMBERS), high, jnp.int16)
    places = np.arange(fixed.surest)
    row = np.concatenate([np.full(ANCHORS, -high), places, np.full(fixed.surest * NUMBERS, -high)])
    targets = jnp.asarray(np.tile(row, (3, 1)), jnp.int16)
    loss = np.asarray(fixed.loss(maps, targets, summed=1000), np.int64)
    exact = fixed.values * fixed.largest**2 / (fixed.loss_unit(1000) * 4.0**fixed.bits)
    np.testing.assert_allclose(loss, exact, rtol=1e-3)
    assert 1000 * loss.max() < 2**31


@pytest.mark.slow
def test_a_search_lowers_the_error(
    network: QuantizedNetwork, teacher: FloatTeacher, fixed: FixedMaps
) -> None:
    genes: Any = ("multipliers", "biases")
    problem = problem_of(network, teacher, fixed, batch_size=16, genes=genes, batch_chunk=8)
    start = problem.space.start
    result = evolve(
        ShiftES(problem.space, ShiftConfig(population=8)),
        problem,
        0,
        generations=25,
        progress=False,
    )
    before, _ = problem.validation(problem.space.decode(start))
    better = problem.network(network, result.solution)
    after, log = problem.validation(result.solution)
    assert int(after) < int(before)
    assert int(log["validation_squared_error"]) == int(after)
    output = better(teacher.images[16:])
    expected = slow_loss(fixed, output, teacher.outputs[16:]).sum()
    found = problem.loss_per_image(int(after), 8) * fixed.values * 8 * 4.0**fixed.bits
    assert found == pytest.approx(expected, rel=0.01)


def test_holds_no_float_and_the_same_bits_in_chunks(
    network: QuantizedNetwork, teacher: FloatTeacher, fixed: FixedMaps
) -> None:
    problems = [
        problem_of(network, teacher, fixed, batch_size=12, batch_chunk=rows, arithmetic=how)
        for rows, how in ((12, "int"), (5, "fast"))
    ]
    batch = problems[0].batch(jax.random.key(0))
    solution = problems[0].space.decode(problems[0].space.start)
    assert audit(problems[0].fitness, solution, batch).integer_only
    found = [int(jax.jit(problem.fitness)(solution, batch)) for problem in problems]
    assert found[0] == found[1] > 0


def test_refusals(network: QuantizedNetwork, teacher: FloatTeacher, fixed: FixedMaps) -> None:
    targets = fixed.targets(teacher.outputs)
    images = teacher.images

    def problem(targets: np.ndarray, **options: Any) -> NetworkProblem:
        options = {"loss": "squared_error", "maps": fixed} | options
        return NetworkProblem.of(network, images, targets, images, targets, **options)

    bad = targets.copy()
    bad[2, ANCHORS] = ANCHORS
    for call, said in (
        (lambda: problem(targets, loss="errors"), "returns maps has loss='squared_error'"),
        (lambda: problem(targets, maps=None), "maps= says how"),
        (lambda: problem(targets[:, 1:]), f"must be int16 [24, {ANCHORS + 10 * 8}]"),
        (lambda: problem(targets.astype(np.int32)), "as FixedMaps.targets makes them"),
        (lambda: problem(bad), f"name anchors 0..{ANCHORS}"),
        (lambda: FixedMaps.of(network, SHAPES[:1], NUMBERS), "expected a network that returns"),
        (lambda: FixedMaps.of(network, SHAPES, 4), "4 numbers for each anchor"),
    ):
        with pytest.raises(QevoError, match=re.escape(said)):
            call()
    assert dataclasses.replace(fixed, surest=3).values == ANCHORS + 3 * NUMBERS

"""The squared error of reconstructed images as a fitness."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import mixed_paths, quantized, with_paths

from qevo.algorithms import Coevolution, CoevolutionConfig, ShiftConfig, ShiftES
from qevo.core import evolve
from qevo.core.proposal import Proposal
from qevo.errors import QevoError
from qevo.nets import Autoencoder, FixedImages, LeNet300, QuantizedNetwork, reconstruction_errors
from qevo.problems import NetworkProblem
from qevo.run.auditing import audit_generation

SHAPE = (16, 16, 1)


def smooth(count: int, seed: int) -> np.ndarray:
    """Images that a narrow code can hold: uint8 ``[n, 16, 16, 1]``."""
    coarse = np.random.RandomState(seed).randint(0, 256, (count, 4, 4, 1)).astype(np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


IMAGES, HELD_OUT = smooth(48, 0), smooth(21, 1)


@pytest.fixture(scope="module")
def network() -> QuantizedNetwork:
    return quantized(Autoencoder(widths=(3, 4), code=2), IMAGES, bits=4)


def problem_of(network: QuantizedNetwork, **options: Any) -> NetworkProblem:
    settings: dict[str, Any] = {"loss": "squared_error", "batch_size": len(IMAGES), **options}
    return NetworkProblem.of(network, IMAGES, IMAGES, HELD_OUT, HELD_OUT, **settings)


def teachers(network: QuantizedNetwork, images: np.ndarray) -> np.ndarray:
    """Some reconstruction that is not the network's."""
    return FixedImages.of(network).from_real(images / 400 + 0.1)


@pytest.mark.parametrize("targets", ["input", "teacher"])
@pytest.mark.parametrize("arithmetic", ["int", "fast"])
def test_scores_are_those_of_the_networks_one_by_one(
    network: QuantizedNetwork, targets: str, arithmetic: Any
) -> None:
    problem = problem_of(network, arithmetic=arithmetic, batch_chunk=13)
    if targets == "teacher":
        fixed_images = jnp.asarray(teachers(network, IMAGES))
        problem = NetworkProblem.of(
            network,
            IMAGES,
            np.asarray(fixed_images),
            HELD_OUT,
            HELD_OUT,
            validation_targets=teachers(network, HELD_OUT),
            loss="squared_error",
            batch_size=len(IMAGES),
            arithmetic=arithmetic,
        )
    if arithmetic == "fast":
        problem = with_paths(problem, mixed_paths(network))
    space, draw = problem.space, np.random.RandomState(2)
    positions = np.stack([draw.choice(space.size, 30, replace=False) for _ in range(4)])
    low, high = np.asarray(space.low, np.int32), np.asarray(space.high, np.int32)
    values = draw.randint(low[positions], high[positions] + 1).astype(np.int8)
    share = Proposal(jnp.asarray(positions, jnp.int32), jnp.asarray(values)).share
    batch = problem.images, problem.targets
    run = jax.jit(problem.scores, static_argnames="chunk")
    scores = run(space.start, share, batch, chunk=2)

    fixed = FixedImages.of(network)
    unit = fixed.loss_unit(len(IMAGES)) * 4**fixed.bits
    found = None if targets == "input" else teachers(network, IMAGES)
    expected = []
    for row, value in zip(positions, values, strict=True):
        genes = np.array(space.start)
        genes[row] = value
        edited = problem.network(network, space.decode(jnp.asarray(genes)))
        if found is None:
            errors = reconstruction_errors(edited, IMAGES)
        else:
            output = np.rint(edited(IMAGES) / 2.0 ** (edited.fraction_bits - fixed.bits))
            output = output.clip(0, 127 << fixed.bits).astype(np.int64)
            errors = np.square(output - found).sum((1, 2, 3))
        expected.append(np.floor(errors / unit + 0.5).sum())
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(scores, expected)


def test_validation_sums_over_every_image(network: QuantizedNetwork) -> None:
    fixed = FixedImages.of(network)
    goals = teachers(network, HELD_OUT)
    problem = problem_of(network, validation_targets=goals, batch_size=9, batch_chunk=5)
    assert problem.summed == len(HELD_OUT)
    start = problem.space.decode(problem.space.start)
    loss, metrics = jax.jit(problem.validation)(start)
    errors = reconstruction_errors(network, HELD_OUT)
    scale = 4.0**-fixed.bits / fixed.values  # to mean squared levels
    own = problem.loss_per_image(int(metrics["validation_squared_error"]), len(HELD_OUT))
    assert own == pytest.approx(errors.mean() * scale, rel=1e-3)
    output = np.rint(network(HELD_OUT) / 2.0 ** (network.fraction_bits - fixed.bits))
    differences = output.clip(0, 127 << fixed.bits) - goals
    to_teacher = problem.loss_per_image(int(loss), len(HELD_OUT))
    assert to_teacher == pytest.approx(np.square(differences).mean() / 4**fixed.bits, rel=1e-3)
    assert abs(to_teacher - own) > 0.1 * own


def test_the_worst_images_fill_int32_and_no_more(network: QuantizedNetwork) -> None:
    """A black network on as many white images as are summed."""
    constants = {name: dict(part) for name, part in network.constants.items()}
    constants["image"]["bias"] = -network.layers["image"].bias_limit * jnp.ones(1, jnp.int32)
    weights = {**network.weights, "image": jnp.zeros_like(network.weights["image"])}
    black = dataclasses.replace(network, weights=weights, constants=constants)
    white = np.full((60, *SHAPE), 255, np.uint8)
    problem = NetworkProblem.of(
        black, white, white, white, white, loss="squared_error", batch_size=60
    )
    start = problem.space.decode(problem.space.start)
    loss, _ = jax.jit(problem.validation)(start)
    assert 2**29 < int(loss) < 2**31
    assert problem.loss_per_image(int(loss), 60) == pytest.approx(127**2, rel=1e-4)


@pytest.mark.parametrize("grouping", ["entropy", "block"])
def test_a_generation_holds_no_float(network: QuantizedNetwork, grouping: Any) -> None:
    config = CoevolutionConfig(population=4, group=16, grouping=grouping)
    for arithmetic in ("int", "fast"):
        problem = problem_of(network, arithmetic=arithmetic)
        if arithmetic == "fast":
            problem = with_paths(problem, mixed_paths(network))
        report = audit_generation(Coevolution(problem.space, config), problem)
        assert report.integer_only if arithmetic == "int" else report.ok, str(report)


@pytest.mark.slow
def test_a_search_lowers_the_error_of_images_it_has_not_seen(network: QuantizedNetwork) -> None:
    problem = problem_of(network)
    search = ShiftES(problem.space, ShiftConfig(population=8, slots=16))
    result = evolve(search, problem, 0, generations=25, progress=False, devices=1)
    before = reconstruction_errors(network, HELD_OUT).mean()
    found = problem.network(network, result.solution)
    assert reconstruction_errors(found, HELD_OUT).mean() < 0.9 * before


def test_one_step_of_a_bias_is_a_quarter_level(network: QuantizedNetwork) -> None:
    space = problem_of(network, genes=("biases",)).space
    moved = space.decode(jnp.ones_like(space.start))["biases"]["image"]
    step = np.asarray(moved) - np.asarray(network.constants["image"]["bias"])
    np.testing.assert_array_equal(4 * step, 1 << network.fraction_bits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "errors"}, "returns images has loss='squared_error', not 'errors'"),
        ({"targets": np.zeros(48, np.int32)}, r"targets must be uint8 \[48, 16, 16, 1\]"),
        ({"targets": IMAGES[:9]}, r"targets must be uint8 \[48, 16, 16, 1\], got uint8 \[9"),
        ({"targets": IMAGES.astype(np.int16)[:, :4]}, r"targets must be int16 \[48, 16, 16, 1\]"),
        ({"targets": np.full(IMAGES.shape, 32_000, np.int16)}, r"int16 .* got .* in 32000\.\."),
        ({"validation_labels": HELD_OUT.astype(np.int16)}, "validation_labels must be uint8"),
        ({"validation_images": HELD_OUT[:0]}, "validation images must be uint8"),
    ],
)
def test_is_refused(network: QuantizedNetwork, change: Any, message: str) -> None:
    arguments = {
        "images": IMAGES,
        "targets": IMAGES,
        "validation_images": HELD_OUT,
        "validation_labels": HELD_OUT,
        "validation_targets": HELD_OUT,
        "loss": "squared_error",
    }
    with pytest.raises(QevoError, match=message):
        NetworkProblem.of(network, **(arguments | change))


def test_a_classifier_has_no_squared_error() -> None:
    classifier = quantized(LeNet300(hidden=(4,), classes=3), IMAGES, bits=4)
    with pytest.raises(QevoError, match="its last layer gives logits"):
        problem_of(classifier)

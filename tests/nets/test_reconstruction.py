"""Images in fixed point: rounding, exact errors, and the bounds that keep them in int32."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import random_images

from qevo.errors import QevoError
from qevo.nets import FixedImages, QuantizedNetwork, reconstruct, reconstruction_errors

NORMAL = (0, 127)
SIGNED = (-127, 127)


def stand_in(shape: tuple[int, ...], limits: tuple[int, int], fraction_bits: int = 14) -> Any:
    """As much of a network as says what its images are like."""
    return SimpleNamespace(
        head="image",
        image_shape=shape,
        output_shape=shape,
        ranges={"input": limits},
        fraction_bits=fraction_bits,
        scales={"input": 1 / 127},
    )


def half_even(x: np.ndarray, shift: int) -> np.ndarray:
    return np.rint(x / 2.0**shift).astype(np.int64)


@pytest.mark.parametrize("limits", [NORMAL, SIGNED])
@pytest.mark.parametrize("shape", [(4, 4, 1), (28, 28, 1), (32, 32, 3), (96, 96, 3), (181, 182, 1)])
@pytest.mark.parametrize("fraction_bits", [1, 14])
def test_as_many_bits_as_int32_allows(
    shape: tuple[int, ...], limits: tuple[int, int], fraction_bits: int
) -> None:
    fixed = FixedImages.of(stand_in(shape, limits, fraction_bits))
    span, values = limits[1] - limits[0], math.prod(shape)
    assert fixed.largest == span << fixed.bits
    assert values * fixed.largest**2 + (1 << 16) < 2**31
    more = values * (2 * fixed.largest) ** 2 + (1 << 16) >= 2**31
    assert more or fixed.bits == min(8, fraction_bits)
    assert max(map(abs, limits)) << fixed.bits < 2**15  # int16


@settings(max_examples=20)
@given(
    limits=st.sampled_from([NORMAL, SIGNED]),
    shape=st.sampled_from([(4, 4, 1), (12, 16, 3)]),
    summed=st.integers(3, 65_535),
    kind=st.sampled_from(["random", "extreme", "near"]),
    seed=st.integers(0, 99),
)
def test_a_loss_is_the_squared_error_and_a_sum_of_losses_fits_int32(
    limits: tuple[int, int], shape: Any, summed: int, kind: str, seed: int
) -> None:
    fixed = FixedImages.of(stand_in(shape, limits))
    low, high = (end << fixed.bits for end in limits)
    draw = np.random.RandomState(seed)
    a = draw.randint(low, high + 1, (3, *shape)).astype(np.int16)
    b = draw.randint(low, high + 1, (3, *shape)).astype(np.int16)
    if kind == "extreme":
        a, b = np.full_like(a, low), np.full_like(b, high)
    elif kind == "near":
        b = np.clip(a.astype(int) + draw.randint(-2, 3, a.shape), low, high).astype(np.int16)
    losses = np.asarray(fixed.loss(jnp.asarray(a), jnp.asarray(b), summed=summed))
    exact = ((a.astype(object) - b.astype(object)) ** 2).sum((1, 2, 3))
    unit = fixed.loss_unit(summed) * 4**fixed.bits  # in squares of what the images count in
    assert losses.dtype == np.int32
    assert np.abs(losses - exact / unit).max() <= (1 if kind == "extreme" else 0.5)
    assert int(losses.max()) * summed < 2**31
    finer = fixed.values * fixed.largest**2 / (unit / 2) * summed
    assert unit == 1 or finer >= 2**30  # no unit is coarser than it must be, up to a factor of 2


@pytest.fixture(scope="module")
def pictures(autoencoder: QuantizedNetwork) -> np.ndarray:
    return random_images(autoencoder.image_shape, 9, seed=3)


def test_an_output_is_rounded_and_cut_to_the_range_of_images(
    autoencoder: QuantizedNetwork, pictures: np.ndarray
) -> None:
    fixed = FixedImages.of(autoencoder)
    outputs = autoencoder(pictures).astype(np.int64)
    expected = half_even(outputs, autoencoder.fraction_bits - fixed.bits)
    assert expected.min() < 0
    found = reconstruct(autoencoder, pictures)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, expected.clip(0, 127 << fixed.bits))
    np.testing.assert_array_equal(found, reconstruct(autoencoder, pictures, arithmetic="int"))
    np.testing.assert_array_equal(found, fixed.from_real(outputs * autoencoder.output_scale))


def test_scores_are_exact_and_do_not_depend_on_batches(
    autoencoder: QuantizedNetwork, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = FixedImages.of(autoencoder)
    levels = np.asarray(autoencoder.prepare(jnp.asarray(pictures))).astype(np.int64)
    found = reconstruct(autoencoder, pictures).astype(np.int64)
    expected = np.square((levels << fixed.bits) - found).sum((1, 2, 3))
    scores = reconstruction_errors(autoencoder, pictures)
    np.testing.assert_array_equal(scores, expected)
    monkeypatch.setattr("qevo.nets.reconstruction.BATCH", 4)
    np.testing.assert_array_equal(reconstruction_errors(autoencoder, pictures), expected)

    perfect = fixed.from_real(pictures / 255)
    rest = reconstruction_errors(autoencoder, pictures, perfect)
    assert rest.max() <= fixed.values * 4**fixed.bits / 4  # half a level, from the int8 input
    real = found * fixed.scale / 2**fixed.bits - levels * fixed.scale
    assert fixed.mean(scores) == pytest.approx(np.square(real).mean())


def test_refuses(lenet: QuantizedNetwork) -> None:
    with pytest.raises(QevoError, match=r"images \[16, 16, 2\].*gives logits \[6\]"):
        FixedImages.of(lenet)
    other = stand_in((16, 16, 1), NORMAL)
    other.output_shape = (16, 16, 3)
    with pytest.raises(QevoError, match=r"gives image \[16, 16, 3\]"):
        FixedImages.of(other)
    with pytest.raises(QevoError, match="smaller images"):
        FixedImages.of(stand_in((400, 400, 1), NORMAL))

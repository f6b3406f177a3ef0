"""Fixed-point losses against float64, their bounds, and that they hold no float."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qevo.integer import (
    BATCH_LIMIT,
    CLASS_LIMIT,
    LOSS_LIMIT,
    TARGET_TOTAL,
    UNIT,
    audit,
    cross_entropy,
    error_count,
    soft_cross_entropy,
    softmax,
    squared_error,
    squared_error_shift,
)

BATCH = 200
CLASSES = [2, 10, 100, 1000]


@functools.cache
def jitted(loss, **static):
    return jax.jit(functools.partial(loss, **static))


def draw(seed, classes, fraction_bits, spread):
    """Random logits, int32 and as reals, and labels."""
    rng = np.random.default_rng(seed)
    reals = rng.normal(0, spread, (BATCH, classes)) + rng.normal(0, 3 * spread, (BATCH, 1))
    logits = np.clip(np.round(reals * 2.0**fraction_bits), -(2**31), 2**31 - 1)
    return logits.astype(np.int32), logits / 2.0**fraction_bits, rng.integers(0, classes, BATCH)


def log_softmax(reals):
    reals = reals - reals.max(axis=1, keepdims=True)
    return reals - np.log(np.exp(reals).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("fraction_bits", [0, 4, 9, 14, 20, 26])
def test_cross_entropy_is_within_two_units(classes, fraction_bits):
    for seed, spread in enumerate([0.01, 0.3, 1, 3, 12]):
        logits, reals, labels = draw(seed, classes, fraction_bits, spread)
        loss = jitted(cross_entropy, fraction_bits=fraction_bits)(logits, labels)
        exact = -UNIT * log_softmax(reals)[np.arange(BATCH), labels]
        assert loss.dtype == jnp.int32
        np.testing.assert_allclose(loss, np.minimum(exact, LOSS_LIMIT), rtol=0, atol=2)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("fraction_bits", [4, 10, 20])
def test_soft_labels_sum_exactly_and_their_loss_is_close(classes, fraction_bits):
    for seed, spread in enumerate([0.3, 2, 9]):
        logits, reals, _ = draw(seed, classes, fraction_bits, spread)
        targets = np.asarray(jitted(softmax, fraction_bits=fraction_bits)(logits))
        assert targets.min() >= 0
        np.testing.assert_array_equal(targets.sum(axis=1), TARGET_TOTAL)
        share = TARGET_TOTAL * np.exp(log_softmax(reals))
        np.testing.assert_allclose(targets, share, rtol=0, atol=2)

        other, reals, _ = draw(seed + 100, classes, fraction_bits, spread)
        loss = jitted(soft_cross_entropy, fraction_bits=fraction_bits)(other, targets)
        gaps = np.minimum(reals.max(axis=1, keepdims=True) - reals, 32)
        exact = (targets / TARGET_TOTAL * gaps).sum(axis=1) - log_softmax(reals).max(axis=1)
        np.testing.assert_allclose(loss, np.minimum(UNIT * exact, LOSS_LIMIT), rtol=0, atol=2)


def test_soft_labels_of_one_class_are_hard_labels():
    logits, _, labels = draw(0, 10, 8, 3)
    one_hot = jnp.asarray(TARGET_TOTAL * np.eye(10, dtype=np.int32)[labels])
    np.testing.assert_array_equal(
        jitted(soft_cross_entropy, fraction_bits=8)(logits, one_hot),
        jitted(cross_entropy, fraction_bits=8)(logits, labels),
    )


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(
        st.lists(st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=4), min_size=8, max_size=8
    ),
    fraction_bits=st.sampled_from([0, 12, 26]),
)
def test_any_int32_logits_give_a_loss_in_range(rows, fraction_bits):
    logits = np.array(rows, np.int32)
    labels = np.arange(8, dtype=np.int32) % 4
    reals = logits / 2.0**fraction_bits
    loss = jitted(cross_entropy, fraction_bits=fraction_bits)(logits, labels)
    exact = -UNIT * log_softmax(reals)[np.arange(8), labels]
    np.testing.assert_allclose(loss, np.minimum(exact, LOSS_LIMIT), rtol=0, atol=2)
    assert np.all((np.asarray(loss) >= 0) & (np.asarray(loss) <= LOSS_LIMIT))
    targets = jitted(softmax, fraction_bits=fraction_bits)(logits)
    np.testing.assert_array_equal(targets.sum(axis=1), TARGET_TOTAL)


def test_a_sure_answer_costs_nothing_and_the_largest_batch_fits():
    logits = jnp.array([[0, 2**30]], jnp.int32)
    loss = jitted(cross_entropy, fraction_bits=10)
    assert loss(logits, jnp.array([1]))[0] == 0
    assert loss(logits, jnp.array([0]))[0] == LOSS_LIMIT
    assert BATCH_LIMIT * LOSS_LIMIT < 2**31


def test_adding_a_constant_to_the_logits_changes_nothing():
    logits, _, labels = draw(1, 10, 12, 2)
    loss = jitted(cross_entropy, fraction_bits=12)
    losses = [loss(logits + np.int32(c), labels) for c in (0, 1, -999, 10**6)]
    for loss in losses[1:]:
        np.testing.assert_array_equal(loss, losses[0])


def test_error_count_gives_ties_to_the_first():
    logits = jnp.array([[5, 5, 1], [5, 5, 1], [0, 2, 9]], jnp.int32)
    assert error_count(logits, jnp.array([0, 1, 2])) == 1
    logits, _, labels = draw(2, 10, 4, 1)
    wrong = np.sum(logits.argmax(axis=1) != labels)
    assert error_count(jnp.asarray(logits), jnp.asarray(labels)) == wrong


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    largest=st.sampled_from([1, 100, 255]),
    dtype=st.sampled_from([np.int8, np.uint8, np.int32]),
)
def test_squared_error_equals_python_integers(seed, largest, dtype):
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    a, b = (rng.integers(info.min, info.max, (3, 4, 5), dtype, endpoint=True) for _ in range(2))
    error = squared_error(jnp.asarray(a), jnp.asarray(b), largest=largest)
    difference = np.minimum(np.abs(a.astype(np.int64) - b), largest)
    total = np.sum(difference**2, axis=(1, 2))
    shift = max((20 * largest**2).bit_length() - 15, 0)
    assert ((20 * largest**2 + (1 << shift >> 1)) >> shift) <= LOSS_LIMIT + 1
    np.testing.assert_array_equal(
        error, np.minimum((total + (1 << shift >> 1)) >> shift, LOSS_LIMIT)
    )


@pytest.mark.parametrize("summed", [1, 2, 1000, 5000, BATCH_LIMIT])
def test_squared_errors_of_fewer_images_resolve_finer(summed):
    limit = (2**31 - 1) // summed - 1
    shift = squared_error_shift(20, 255, limit)
    assert shift <= squared_error_shift(20, 255)
    a, b = jnp.zeros((1, 20), jnp.uint8), jnp.full((1, 20), 255, jnp.uint8)
    total = 20 * 255**2
    error = int(squared_error(a, b, limit=limit)[0])
    assert error == min((total + (1 << shift >> 1)) >> shift, limit)
    assert error * summed < 2**31
    assert shift == 0 or (total >> (shift - 1)) * summed > 2**30


def test_losses_hold_no_float():
    logits, _, labels = draw(4, 10, 8, 1)
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    targets = softmax(logits, fraction_bits=8)
    assert audit(functools.partial(cross_entropy, fraction_bits=8), logits, labels).integer_only
    soft = functools.partial(soft_cross_entropy, fraction_bits=8)
    assert audit(soft, logits, targets).integer_only
    assert audit(functools.partial(softmax, fraction_bits=8), logits).integer_only
    assert audit(error_count, logits, labels).integer_only
    assert audit(squared_error, logits, targets).integer_only


def test_refuses_what_would_overflow():
    zeros = functools.partial(jnp.zeros, dtype=jnp.int32)
    with pytest.raises(ValueError, match="65536 images may overflow int32: at most 65535"):
        cross_entropy(zeros((BATCH_LIMIT + 1, 2)), zeros(BATCH_LIMIT + 1), fraction_bits=4)
    assert softmax(zeros((BATCH_LIMIT + 1, 2)), fraction_bits=4).shape == (BATCH_LIMIT + 1, 2)
    with pytest.raises(ValueError, match="1 to 2048 classes, not 2049"):
        softmax(zeros((2, CLASS_LIMIT + 1)), fraction_bits=4)
    with pytest.raises(ValueError, match="fraction_bits of 0 to 26, not 27"):
        softmax(zeros((2, 2)), fraction_bits=27)
    with pytest.raises(TypeError, match="int32 logits, not float32"):
        cross_entropy(jnp.zeros((2, 2)), zeros(2), fraction_bits=4)
    with pytest.raises(ValueError, match="101 images may overflow int32: at most 100"):
        squared_error(zeros((101, 2)), zeros((101, 2)), limit=(2**31 - 1) // 100 - 1)
    with pytest.raises(ValueError, match=r"overflow int32: lower largest=255"):
        squared_error(zeros((1, 40_000)), zeros((1, 40_000)))

"""Rounding and scaling against Python's exact integers."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qevo.integer import requantize, shift_round
from qevo.integer.requantize import leaky_parts

INT32 = st.integers(-(2**31), 2**31 - 1)


def int32(values):
    return jnp.asarray(np.array(values, np.int32))


def rounded(product: int, shift: int) -> int:
    return round(Fraction(product, 1 << shift))


@st.composite
def shifted(draw):
    shift = draw(st.integers(0, 30))
    limit = 2**31 - (1 << shift >> 1) - 1
    ties = st.integers(-limit >> shift, (limit >> shift) - 1).map(
        lambda q: (q << shift) + (1 << shift >> 1)
    )
    return draw(st.integers(-limit, limit) | ties), shift


@st.composite
def scaled(draw, *, wide):
    shift = draw(st.integers(0, 22))
    multiplier = draw(st.integers(1, 2**15))
    limit = 2**31 - 1 if wide else (2**31 - (1 << shift >> 1) - 1) // multiplier
    near = min((200 << shift) // multiplier + 1, limit)  # where the result does not saturate
    acc = draw(st.integers(-limit, limit) | st.integers(-near, near))
    return acc, multiplier, shift


@settings(deadline=None, max_examples=40)
@given(st.lists(shifted(), min_size=64, max_size=64))
def test_shift_round_is_half_even(cases):
    x, shift = zip(*cases, strict=True)
    expected = [rounded(*case) for case in cases]
    np.testing.assert_array_equal(shift_round(int32(x), int32(shift)), expected)


def test_shift_round_takes_one_shift_for_all():
    x = np.arange(-40, 41)
    np.testing.assert_array_equal(shift_round(int32(x), 3), np.rint(x / 8))
    np.testing.assert_array_equal(shift_round(int32(x), 0), x)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-127, 127), (-128, 127), (0, 15)])
def test_requantize_equals_python_integers(wide, low, high):
    @settings(deadline=None, max_examples=20)
    @given(st.lists(scaled(wide=wide), min_size=64, max_size=64))
    def check(cases):
        acc, multiplier, shift = map(int32, zip(*cases, strict=True))
        result = requantize(acc, multiplier, shift, low=low, high=high, wide=wide)
        expected = [min(max(rounded(a * m, s), low), high) for a, m, s in cases]
        assert result.dtype == jnp.int8
        np.testing.assert_array_equal(result, expected)

    check()


def test_wide_requantize_at_the_corners():
    cases = [
        (acc, multiplier, shift)
        for acc in (-(2**31), -(2**31) + 1, -65536, -1, 0, 1, 65535, 65536, 2**31 - 1)
        for multiplier in (1, 2, 2**15 - 1, 2**15)
        for shift in range(23)
    ]
    acc, multiplier, shift = map(int32, zip(*cases, strict=True))
    expected = np.clip([rounded(a * m, s) for a, m, s in cases], -127, 127)
    np.testing.assert_array_equal(requantize(acc, multiplier, shift, wide=True), expected)


def test_channels_have_scales_of_their_own():
    acc = int32([[100, 100], [-7, -7]])
    result = requantize(acc, int32([1, 3]), int32([1, 2]))
    np.testing.assert_array_equal(result, [[50, 75], [-4, -5]])


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"low\.\.high cannot be 0\.\.255"):
        requantize(int32([1]), 1, 1, low=0, high=255)
    with pytest.raises(TypeError, match="int32 accumulator, not int8"):
        requantize(jnp.int8([1]), 1, 1)


@pytest.mark.parametrize("wide", [False, True])
def test_a_leak_is_a_tenth(wide):
    draw = np.random.RandomState(0)
    multiplier = draw.randint(1, 2**15, 400)
    shift = draw.randint(0, 17, 400)
    limit = 2**31 - 1 if wide else (2**31 - 1 - 2**16) // multiplier
    acc = (draw.uniform(-1, 1, 400) * np.minimum(limit, (200 << shift) // multiplier * 8)).astype(
        int
    )
    parts = leaky_parts(int32(acc), int32(multiplier), int32(shift))
    found = np.asarray(requantize(int32(acc), *parts, wide=wide))
    for value, x, m, s in zip(
        found.tolist(), acc.tolist(), multiplier.tolist(), shift.tolist(), strict=True
    ):
        exact = rounded(x * m, s) if x >= 0 else rounded(x * round(Fraction(4 * m, 5)), s + 3)
        assert value == max(-127, min(127, exact))
        if x < 0 and m > 100:
            assert abs(exact - x * m / 2**s / 10) <= 0.5 + abs(exact) / 100

"""Limits of layers: what is proved holds for every value within them, in Python integers."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from qevo.errors import QevoError
from qevo.integer.requantize import requantize
from qevo.nets.arithmetic import (
    LEVELS,
    MAX_SHIFT,
    MIN_MULTIPLIER_LIMIT,
    OUTPUT_LIMIT,
    WIDE_MULTIPLIER,
    activation_range,
    last_arithmetic,
    layer_arithmetic,
    levels,
)

BITS = st.sampled_from(list(LEVELS))
RANGES = st.sampled_from([(0, 127), (-127, 127), (0, 15), (-7, 7)])


@given(BITS, RANGES, st.integers(1, 60_000), st.integers(1, MAX_SHIFT), st.booleans())
def test_layer_limits_are_proved_and_generous(
    bits: Any, inputs: Any, fan_in: int, shift: int, negative: bool
) -> None:
    facts = layer_arithmetic(
        "layer", fan_in, weights=levels(bits), inputs=inputs, outputs=(-127, 127)
    )
    facts.prove("layer", fan_in, last=False)
    low, high = levels(bits)
    assert facts.accumulator_bound == fan_in * max(-low, high) * max(map(abs, inputs))
    assert facts.multiplier_limit >= MIN_MULTIPLIER_LIMIT
    assert facts.bias_limit >= facts.accumulator_bound // 2
    acc = facts.accumulator_bound + facts.bias_limit
    assert acc < 2**31
    if not facts.wide:
        assert acc * facts.multiplier_limit < 2**31 - 2 ** (MAX_SHIFT - 1)
    acc = -acc if negative else acc
    shift = min(shift, 16) if facts.wide else shift
    found = requantize(jnp.array([acc], jnp.int32), facts.multiplier_limit, shift, wide=facts.wide)
    quotient, rest = divmod(acc * facts.multiplier_limit, 2**shift)
    up = 2 * rest > 2**shift or (2 * rest == 2**shift and quotient % 2 == 1)
    assert int(found[0]) == min(max(quotient + up, -127), 127)


@given(BITS, RANGES, st.integers(1, 8_192), st.floats(1e-6, 3e-3), st.floats(0, 20))
def test_limits_of_the_last_layer_are_proved_and_generous(
    bits: Any, inputs: Any, fan_in: int, multiplier: float, bias: float
) -> None:
    bound = fan_in * max(map(abs, levels(bits))) * max(map(abs, inputs))
    if 3 * bound * multiplier + 3 * bias > 2**28:
        return
    facts, fraction_bits = last_arithmetic(
        "logits",
        fan_in,
        weights=levels(bits),
        inputs=inputs,
        multiplier=multiplier,
        bias=bias,
    )
    facts.prove("logits", fan_in, last=True)
    assert facts.output_high == -facts.output_low <= OUTPUT_LIMIT
    assert facts.multiplier_limit >= 2 * multiplier * 2**fraction_bits
    assert facts.bias_limit >= 2 * bias * 2**fraction_bits


def test_two_limbs_only_where_one_cannot_be_proved() -> None:
    def wide(fan_in: int, bits: Any) -> bool:
        ranges = {"inputs": (0, 127), "outputs": (0, 127)}
        return layer_arithmetic("x", fan_in, weights=levels(bits), **ranges).wide

    assert not wide(784, 8)
    assert wide(4_608, 8)
    assert wide(25_088, 8)
    assert not wide(25_088, "ternary")


def test_a_bound_that_leaves_int32_names_the_layer_and_the_numbers() -> None:
    ranges = {"inputs": (0, 127), "outputs": (0, 127)}
    with pytest.raises(QevoError, match=r"head/big.*100000 products of 127 \* 127.*1612900000"):
        layer_arithmetic("head/big", 100_000, weights=levels(8), **ranges)
    with pytest.raises(QevoError, match=r"last.*fit int32"):
        last_arithmetic(
            "last", 60_000, weights=levels(8), inputs=(0, 127), multiplier=9.0, bias=0.0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulator_bound": 5}, "above the stated 5"),
        ({"multiplier_limit": 1 << 20}, "multiplier up to 1048576"),
        ({"bias_limit": (1 << 31) - 1}, "exceed"),
        ({"wide": True, "multiplier_limit": WIDE_MULTIPLIER + 1}, "limit 32767"),
    ],
)
def test_prove_refuses(change: dict[str, Any], message: str) -> None:
    facts = layer_arithmetic("x", 100, weights=(-1, 1), inputs=(0, 127), outputs=(0, 127))
    with pytest.raises(QevoError, match=f"^layer_x: .*{message}"):
        dataclasses.replace(facts, **change).prove("layer_x", 100, last=False)


def test_prove_refuses_outputs_outside_their_range() -> None:
    facts, _ = last_arithmetic(
        "x", 100, weights=(-1, 1), inputs=(0, 127), multiplier=1e-3, bias=1.0
    )
    for change in ({"output_high": 10}, {"multiplier_limit": 1 << 30}):
        with pytest.raises(QevoError, match=r"^x: outputs can reach"):
            dataclasses.replace(facts, **change).prove("x", 100, last=True)


@pytest.mark.parametrize("bits", [0, 1, 9, 16, -1, 4.5, "binary", None, True, "8"])
def test_levels_refuse_other_bits(bits: Any) -> None:
    with pytest.raises(QevoError, match="'ternary' or 2 to 8"):
        levels(bits)


def test_ranges_of_activations() -> None:
    assert activation_range(8, signed=False) == (0, 127)
    assert activation_range(8, signed=True) == (-127, 127)
    assert activation_range(4, signed=False) == (0, 15)
    assert activation_range(4, signed=True) == (-7, 7)
    for bits in (2, 3, 16, True):
        with pytest.raises(QevoError, match="4 or 8"):
            activation_range(bits, signed=False)


def test_levels_are_int8() -> None:
    for low, high in LEVELS.values():
        assert np.iinfo(np.int8).min < low < 0 < high <= np.iinfo(np.int8).max

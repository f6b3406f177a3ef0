"""Packed levels: the bits that the description says, and back; everything else is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qevo.errors import QevoError
from qevo.nets.packing import field_bits, pack, unpack


@st.composite
def packable(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Levels of every number of bits, none at all and the extremes among them."""
    bits = draw(st.integers(1, 8))
    reach = 1 << (bits - 1)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    elements = st.integers(-reach, reach - 1)
    return draw(hnp.arrays(np.int8, shape, elements=elements)), bits


@given(packable())
def test_is_one_long_integer(pair: tuple[np.ndarray, int]) -> None:
    """Against Python's: fields from the least significant on, and the bytes little-endian."""
    levels, bits = pair
    size = math.ceil(levels.size * bits / 8)
    fields = [int(level) % (1 << bits) << i * bits for i, level in enumerate(levels.ravel())]
    packed = pack(levels, bits)
    assert packed.tobytes() == sum(fields).to_bytes(size, "little")
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(unpack(packed, bits, levels.shape), levels, strict=True)


@given(packable())
def test_the_least_bits_are_enough(pair: tuple[np.ndarray, int]) -> None:
    levels, bits = pair
    least = field_bits(int(levels.min(initial=0)), int(levels.max(initial=0)))
    assert least <= max(bits, 2)
    np.testing.assert_array_equal(unpack(pack(levels, least), least, levels.shape), levels)


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(-1, 1, 2), (-2, 1, 2), (0, 2, 3), (-8, 7, 4), (-127, 127, 8)]
)
def test_field_bits(low: int, high: int, bits: int) -> None:
    assert field_bits(low, high) == bits


def test_memory_that_is_not_in_order() -> None:
    levels = np.arange(-4, 4, dtype=np.int8).reshape(2, 4)
    packed = pack(levels.T, 3)
    assert packed.tobytes() == pack(np.ascontiguousarray(levels.T), 3).tobytes()


@pytest.mark.parametrize(
    ("data", "bits", "shape", "message"),
    [
        (
            np.zeros(2, np.uint8),
            2,
            (3,),
            r"2 bits for each of \[3\] are uint8 \[1\], not uint8 \[2",
        ),
        (np.zeros(1, np.uint8), 2, (5,), r"are uint8 \[2\], not uint8 \[1\]"),
        (np.zeros(1, np.int8), 2, (3,), r"not int8 \[1\]"),
        (np.zeros((1, 1), np.uint8), 2, (3,), r"not uint8 \[1, 1\]"),
        (np.zeros(1, np.uint8), 2, (-1, -3), "not uint8"),
        (np.full(1, 64, np.uint8), 2, (3,), r"something behind the last of \[3\] levels"),
        (np.zeros(1, np.uint8), 0, (3,), "1 to 8 bits, not 0"),
        (np.zeros(4, np.uint8), 9, (3,), "1 to 8 bits, not 9"),
    ],
)
def test_refuses_other_bytes(data: np.ndarray, bits: int, shape: Any, message: str) -> None:
    with pytest.raises(QevoError, match=message):
        unpack(data, bits, shape)


def test_refuses_levels_that_do_not_fit() -> None:
    with pytest.raises(QevoError, match="levels from -2 to 2 do not fit 2 bits"):
        pack(np.array([-2, 2], np.int8), 2)
    with pytest.raises(QevoError, match="1 to 8 bits, not 9"):
        pack(np.zeros(2, np.int8), 9)
    with pytest.raises(QevoError, match="levels from -129 to 0 do not fit 8 bits"):
        field_bits(-129, 0)

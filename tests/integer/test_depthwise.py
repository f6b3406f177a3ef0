"""Depthwise convolutions against XLA's grouped ones."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qevo.integer.depthwise import depthwise


@pytest.mark.parametrize(
    ("size", "strides", "pads"),
    [(3, (1, 1), ((1, 1), (1, 1))), (5, (2, 1), ((2, 0), (0, 3))), (1, (2, 2), ((0, 0), (0, 0)))],
)
def test_equals_a_grouped_convolution(size: int, strides: tuple, pads: tuple) -> None:
    draw = np.random.RandomState(0)
    x = draw.randint(-127, 128, (2, 8, 9, 4)).astype(np.int8)
    w = draw.randint(-127, 128, (size, size, 1, 4)).astype(np.int8)
    found = depthwise(jnp.asarray(x), jnp.asarray(w), strides=strides, pads=pads, dtype=jnp.int32)
    expected = lax.conv_general_dilated(
        jnp.asarray(x, jnp.float32),
        jnp.asarray(w, jnp.float32),
        strides,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
        precision=lax.Precision.HIGHEST,
    )
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)

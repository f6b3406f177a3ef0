"""Counting bits against numpy, also where all of them are set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.core.counting import count_ones


@pytest.mark.parametrize("size", [1, 120, 7_679, 7_680, 7_799, 50_001])
@pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32, jnp.bool_])
def test_ones_are_counted(size: int, dtype: jnp.dtype) -> None:
    bits = np.random.RandomState(size).randint(0, 2, (3, size))
    bits[2] = 1
    count = jax.jit(jax.vmap(count_ones))(jnp.asarray(bits, dtype))
    assert count.dtype == jnp.int32
    np.testing.assert_array_equal(count, bits.sum(axis=1))


def test_a_matrix_of_bits_is_counted_too() -> None:
    assert int(count_ones(jnp.ones((100, 200), jnp.int8))) == 20_000

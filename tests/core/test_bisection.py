"""Limits by bisection against a look at all of them."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qevo.core.bisection import largest_limit

BITS = 7
search = jax.jit(lambda last: largest_limit(lambda limit: limit <= last, BITS, jnp.int16))


@given(st.integers(-3, 200))
def test_the_largest_limit_that_holds(last: int) -> None:
    found = search(jnp.int16(last))
    assert found.dtype == jnp.int16
    assert int(found) == max([n for n in range(1 << BITS) if n <= last], default=0)


def test_all_bits_of_a_type() -> None:
    most = np.iinfo(np.int32).max
    assert int(largest_limit(lambda limit: limit <= most, 31, jnp.int32)) == most

"""Frequency tables settle to their sum within their margins."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qevo.core.random import TABLE_TOTAL
from qevo.core.tables import settle

settled = jax.jit(settle, static_argnums=3)

ROW = st.lists(st.integers(-TABLE_TOTAL, 2 * TABLE_TOTAL), min_size=4, max_size=4)


@given(ROW, st.integers(0, 3), st.integers(0, 1000), st.sampled_from([None, (2, 0), (2, 1 << 20)]))
def test_rows_keep_their_sum_and_margins(
    row: list[int], spare: int, margin: int, turn: tuple[int, int] | None
) -> None:
    row[2] = max(row[2], TABLE_TOTAL // 2)  # somebody has to pay
    allowed = np.arange(4) != spare if spare != 2 else np.ones(4, bool)
    table = settled(jnp.asarray([row], jnp.int32), jnp.asarray([allowed]), margin, turn)
    found = np.asarray(table)[0]
    assert found.sum() == TABLE_TOTAL
    assert np.all(found[allowed] >= margin)
    assert np.all(found[~allowed] == 0)


def test_the_turn_says_who_pays() -> None:
    tables = jnp.asarray([[9000, 8000, 1000]], jnp.int32)
    excess = 18_000 - TABLE_TOTAL
    allowed = jnp.ones((1, 3), bool)
    for turn, expected in (
        (None, [9000 - excess, 8000, 1000]),
        ((1, 1 << 20), [9000, 8000 - excess, 1000]),
        ((0, 0), [9000, 8000 - excess, 1000]),
    ):
        assert np.asarray(settle(tables, allowed, 10, turn))[0].tolist() == expected
    short = jnp.asarray([[9000, 2000, 1000]], jnp.int32)
    assert np.asarray(settle(short, allowed, 10))[0].tolist() == [TABLE_TOTAL - 3000, 2000, 1000]

"""Sparse mutation: the law of how many, distinct places, and neighbouring levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qevo.core.mutation import (
    level_shifts,
    mutable_positions,
    power_law,
    power_law_shares,
    used_slots,
)
from qevo.core.random import bulk_bits16
from qevo.errors import QevoError

KEY = jax.random.key(0)


def lots(*shape: int) -> jax.Array:
    return bulk_bits16(KEY, shape)


@pytest.mark.parametrize("exponent", [1.5, 2.0])
def test_strengths_follow_the_power_law(exponent: float) -> None:
    law = power_law(40, exponent)
    share = np.asarray(power_law_shares(lots(200_000), law, 64))
    strength = share * 64 / 2**16
    np.testing.assert_array_equal(strength, np.round(strength))
    count = np.bincount(strength.astype(int), minlength=41)[1:]
    assert len(count) == 40
    odds = np.arange(1, 41) ** -exponent
    np.testing.assert_allclose(count / 200_000, odds / odds.sum(), atol=0.005)
    np.testing.assert_allclose(count[9:].sum() / 200_000, odds[9:].sum() / odds.sum(), rtol=0.05)


def test_one_gene_leaves_no_choice() -> None:
    assert power_law(1, 1.5).tolist() == [1 << 16]
    assert np.asarray(power_law_shares(lots(9), power_law(1, 1.5), 1)).tolist() == [1 << 16] * 9


@pytest.mark.parametrize("exponent", [1.0, 4.5])
def test_a_law_that_is_none(exponent: float) -> None:
    with pytest.raises(QevoError, match="the exponent of a power law must lie in"):
        power_law(4, exponent)


def test_shares_of_many_slots_do_not_wrap() -> None:
    slots = 1 << 16
    draws = jnp.arange(1 << 16, dtype=jnp.uint16)
    shares = np.asarray(power_law_shares(draws, power_law(slots, 1.5), slots))
    assert shares.min() == 1
    assert shares.max() > 1 << 15
    assert (np.diff(shares) >= 0).all()


def test_slots_are_used_as_often_as_their_share() -> None:
    share = jnp.asarray([0, 1 << 14, 1 << 15, 1 << 16], jnp.int32)
    used = np.asarray(used_slots(lots(4, 20_000), share))
    np.testing.assert_allclose(used.mean(axis=1), [0, 0.25, 0.5, 1], atol=0.02)
    assert used[3].all()


@pytest.mark.parametrize("fixed", [0, 5])
def test_positions_are_distinct_movable_and_spread_evenly(fixed: int) -> None:
    movable = jnp.ones(30, jnp.int32).at[:fixed].set(0)
    drawn = mutable_positions(KEY, movable if fixed else None, 30, 4000, 8)
    drawn = np.asarray(drawn)
    used = [row[row < 30] for row in drawn]
    assert all(len(set(row.tolist())) == len(row) for row in used)
    count = np.bincount(np.concatenate(used), minlength=30)
    assert not count[:fixed].any()
    np.testing.assert_allclose(count[fixed:] / count.sum(), 1 / (30 - fixed), rtol=0.15)


def test_shifts_stay_within_bounds_and_halve_with_their_length() -> None:
    old, low, high = (jnp.full(60_000, v, jnp.int8) for v in (0, -20, 20))
    shift = np.asarray(level_shifts(lots(60_000), old, low, high, 3), int)
    odds = np.bincount(np.abs(shift), minlength=4) / len(shift)
    np.testing.assert_allclose(odds, [0, 0.5, 0.25, 0.25], atol=0.01)
    assert abs(np.mean(shift > 0) - 0.5) < 0.01
    at_bound = np.asarray(level_shifts(lots(60_000), high, low, high, 3), int)
    assert set(at_bound.tolist()) == {17, 18, 19}
    bit = np.asarray(level_shifts(lots(60_000), old, old, old + 1, 3), int)
    assert set(bit.tolist()) == {1}

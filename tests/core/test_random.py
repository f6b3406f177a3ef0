"""Integer draws: positions distinct and in proportion, levels exact over every quantile."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32

from qevo.core import random
from qevo.core.random import (
    TABLE_TOTAL,
    below,
    bits16,
    bulk_bits16,
    coin_flips,
    table_levels,
    uniform_levels,
    uniform_positions,
    weighted_positions,
)
from qevo.integer import audit

GENES = 24
SIZES = [(1, 1), (1, 24), (3, 8), (6, 1)]  # groups, genes of each
PARTLY = [(1, 7), (2, 5), (3, 8)]  # of which as many are used as is said
draw_positions = jax.jit(weighted_positions, static_argnums=(2, 3))


@given(
    st.one_of(
        st.lists(st.integers(0, 2), min_size=GENES, max_size=GENES),
        st.lists(st.integers(0, (2**31 - 1) // GENES), min_size=GENES, max_size=GENES),
        st.lists(st.sampled_from([0, 0, 0, 1, 1000]), min_size=GENES, max_size=GENES),
    ),
    st.sampled_from(SIZES).map(lambda shape: (*shape, None))
    | st.sampled_from(PARTLY).flatmap(lambda s: st.tuples(*map(st.just, s), st.integers(1, s[1]))),
    st.integers(0, 2**31 - 1),
)
def test_positions_are_distinct_and_weighted(
    weights: list[int], shape: tuple[int, int, int | None], seed: int
) -> None:
    groups, size, used = shape
    count, key = used or size, jax.random.key(seed)
    weighed = np.array(weights, np.int32)
    rows = np.asarray(draw_positions(key, weighed, groups, size, used=used))
    assert rows.shape == (groups, size)
    assert rows.dtype == np.int32
    assert np.all(rows[:, count:] == GENES)
    drawn = [position for position in np.ravel(rows).tolist() if position != GENES]
    weighted = {gene for gene, weight in enumerate(weights) if weight}
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= weighted
    assert bool(drawn) == bool(weighted)
    if sum(weights) <= groups * count:
        assert set(drawn) == weighted


@pytest.mark.parametrize("seed", range(5))
def test_a_gene_with_two_shares_is_always_drawn(seed: int) -> None:
    weights = jnp.ones(GENES, jnp.int32).at[5].set(2 * 40).at[17].set(2 * 40)
    rows = draw_positions(jax.random.key(seed), weights, 1, 7)
    assert {5, 17} <= set(np.ravel(rows).tolist())


@pytest.mark.parametrize(("large", "columns"), [(1, 3), (2_000_003, 5)])
def test_positions_come_in_proportion_to_their_weights(large: int, columns: int) -> None:
    """Also where three of five places in a row are used."""
    groups, size, draws = 2, 3, 40_000
    weights = np.arange(GENES) % 8 * large  # 3 * 28 in all
    keys = jax.random.split(jax.random.key(large), draws)
    used = None if columns == size else jnp.int32(size)
    draw = partial(weighted_positions, groups=groups, size=columns, used=used)
    rows = jax.vmap(draw, (0, None))(keys, jnp.asarray(weights, jnp.int32))
    for group in range(groups):
        share = size * weights / weights.sum()  # one gene spans at most half of a stratum
        twice = (share * groups) ** 3 / 6 / groups  # two neighbouring strata may pick one gene
        counts = np.bincount(np.ravel(rows[:, group]), minlength=GENES + 1)[:GENES]
        slack = 5 * np.sqrt(share * (1 - share) / draws)
        frequency = counts / draws
        assert np.all(frequency <= share + slack)
        assert np.all(frequency >= share - twice - slack)


def test_position_draws_depend_on_the_key() -> None:
    weights = jnp.full(GENES, 1000, jnp.int32)
    first, second = (draw_positions(jax.random.key(k), weights, 2, 5) for k in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, draw_positions(jax.random.key(0), weights, 2, 5))


@pytest.mark.parametrize("shape", [(4, 8), (3, 7), (1, 1), (5,)])
def test_bits16_fill_every_bit(shape: tuple[int, ...]) -> None:
    drawn = jax.vmap(lambda key: bits16(key, shape))(jax.random.split(jax.random.key(0), 4096))
    assert drawn.shape == (4096, *shape)
    assert drawn.dtype == jnp.uint16
    bits = (np.asarray(drawn)[..., None] >> np.arange(16)) & 1
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 5 * 0.5 / 64)


@st.composite
def frequency_tables(draw: st.DrawFn) -> np.ndarray:
    """Int32 ``[4, L]``; every row sums to TABLE_TOTAL."""
    levels = draw(st.sampled_from([2, 3, 5, 31]))
    cut = st.lists(st.integers(0, TABLE_TOTAL), min_size=levels - 1, max_size=levels - 1)
    return np.array([np.diff([0, *sorted(draw(cut)), TABLE_TOTAL]) for _ in range(4)])


@given(tables=frequency_tables(), antithetic=st.booleans())
def test_levels_are_exact_over_all_quantiles(tables: np.ndarray, antithetic: bool) -> None:
    quantiles = jnp.arange(TABLE_TOTAL, dtype=jnp.uint16)[:, None]
    every = jnp.broadcast_to(quantiles, (TABLE_TOTAL, len(tables)))
    count = TABLE_TOTAL * (2 if antithetic else 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "bits16", lambda key, shape: every.reshape(shape))
        levels = table_levels(
            jax.random.key(0), jnp.asarray(tables, jnp.int32), count, antithetic=antithetic
        )
    assert levels.shape == (count, len(tables))
    assert levels.dtype == jnp.int8
    for gene, table in enumerate(tables):
        expected = np.repeat(np.arange(len(table)), table)  # the level of each quantile
        drawn = np.asarray(levels[:, gene])
        if antithetic:
            np.testing.assert_array_equal(drawn[0::2], expected)
            np.testing.assert_array_equal(drawn[1::2], expected[::-1])
        else:
            np.testing.assert_array_equal(drawn, expected)


def test_levels_follow_their_tables() -> None:
    tables = np.array([[0, TABLE_TOTAL, 0], [164, 16056, 164], [8192, 0, 8192], [5, 16000, 379]])
    draws = 50_000
    levels = table_levels(
        jax.random.key(3), jnp.asarray(tables, jnp.int32), draws, antithetic=False
    )
    for gene, table in enumerate(tables):
        share = table / TABLE_TOTAL
        frequency = np.bincount(np.asarray(levels[:, gene]), minlength=3) / draws
        assert np.all(np.abs(frequency - share) <= 5 * np.sqrt(share * (1 - share) / draws))


def test_draws_hold_no_floats() -> None:
    key, weights = jax.random.key(0), jnp.ones(GENES, jnp.int32)
    tables = jnp.full((GENES, 2), TABLE_TOTAL // 2, jnp.int32)
    assert audit(lambda k, w: weighted_positions(k, w, 2, 5), key, weights).integer_only
    assert audit(lambda k, t: table_levels(k, t, 8, antithetic=True), key, tables).integer_only


@pytest.mark.parametrize(("count", "size"), [(24, 1), (24, 7), (24, 24), (1, 1), (1 << 17, 3)])
def test_uniform_positions_are_distinct_and_even(count: int, size: int) -> None:
    rows = uniform_positions(jax.random.key(size), count, 20_000, size)
    assert (rows.shape, rows.dtype) == ((20_000, size), jnp.int32)
    rows = np.asarray(rows)
    assert rows.min() >= 0
    assert rows.max() < count
    ordered = np.sort(rows, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    if count <= 24:
        hits = np.bincount(rows.ravel(), minlength=count)
        np.testing.assert_allclose(hits / len(rows), size / count, atol=0.02)
        if 1 < size < count:  # rows are drawn by themselves
            assert abs(np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1]) < 0.03


def test_fewer_positions_than_asked_for_all_come_once() -> None:
    rows = np.asarray(uniform_positions(jax.random.key(0), 10, 50, 16))
    assert all(sorted(row) == [*range(10), *[10] * 6] for row in rows.tolist())


@pytest.mark.parametrize("count", [1, 3, 1000, 40_000, 65_535])
def test_numbers_below_a_count_are_even(count: int) -> None:
    numbers = np.asarray(below(bulk_bits16(jax.random.key(count), (400_000, 2)), count))
    assert numbers.dtype == np.int32
    assert numbers.min() == 0 or count > 1000
    assert 0 <= numbers.min() <= numbers.max() < count
    parts = np.bincount(numbers * 3 // count, minlength=3) * (3 if count > 2 else 1)
    assert abs(numbers.mean() - (count - 1) / 2) < 6 * count / np.sqrt(12 * len(numbers))
    if count > 2:
        np.testing.assert_allclose(parts / len(numbers), 1, atol=0.02)
    ends = np.asarray(below(jnp.asarray([[0, 0], [65535, 65535]], jnp.uint16), count))
    assert ends.tolist() == [0, count - 1]


def test_uniform_levels_are_uniform_within_their_bounds() -> None:
    low = jnp.asarray([-128, 0, 5, -3], jnp.int8)
    high = jnp.asarray([127, 1, 5, 3], jnp.int8)
    drawn = np.asarray(uniform_levels(jax.random.key(0), low, high, 60_000))
    for gene, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        count = np.bincount(drawn[:, gene].astype(int) - least, minlength=most - least + 1)
        assert len(count) == most - least + 1
        np.testing.assert_allclose(
            count, 60_000 / len(count), atol=5 * np.sqrt(60_000 / len(count))
        )
    moving = drawn[:, [0, 1, 3]].T.astype(float)
    off = np.corrcoef(moving)[~np.eye(3, dtype=bool)]
    assert np.abs(off).max() < 5 / np.sqrt(60_000)
    assert abs(np.corrcoef(moving[0, :-1], moving[0, 1:])[0, 1]) < 5 / np.sqrt(60_000)


@pytest.mark.parametrize("columns", [1, 31, 32, 70])
def test_coins_are_fair_and_independent(columns: int) -> None:
    flips = np.asarray(coin_flips(jax.random.key(0), 5000, columns))
    assert flips.shape == (5000, columns)
    np.testing.assert_allclose(flips.mean(axis=0), 0.5, atol=0.04)
    if columns > 1:
        off = np.corrcoef(flips.T)[~np.eye(columns, dtype=bool)]
        assert np.abs(off).max() < 0.08


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_bulk_bits_are_those_of_jaxs_cipher(size: int) -> None:
    key = jax.random.key(size)
    counters = jnp.arange(-(-size // 4) * 2, dtype=jnp.uint32)
    words = threefry_2x32(jax.random.bits(key, (2,), jnp.uint32), counters)
    words = np.asarray(words)[: -(-size // 2)]
    expected = np.concatenate([words & 0xFFFF, words >> 16])[:size]
    np.testing.assert_array_equal(bulk_bits16(key, (size,)), expected)


def test_bulk_bits_are_uniform_and_independent() -> None:
    key = jax.random.key(1)
    for shape in ((1,), (3, 5), (4,), (7, 1)):
        drawn = bulk_bits16(key, shape)
        assert (drawn.shape, drawn.dtype) == (shape, jnp.uint16)
    drawn = np.asarray(bulk_bits16(key, (50, 4000)))
    count = np.bincount(drawn.ravel() >> 8, minlength=256)
    np.testing.assert_allclose(count, drawn.size / 256, atol=6 * np.sqrt(drawn.size / 256))
    bit = (drawn.ravel()[:, None] >> np.arange(16)) & 1
    off = np.corrcoef(bit.T)[~np.eye(16, dtype=bool)]
    assert np.abs(off).max() < 0.012
    for lag in (1, 2, 3, 4, 4000, drawn.size // 2):
        near = np.corrcoef(drawn.ravel()[:-lag], drawn.ravel()[lag:])[0, 1]
        assert abs(near) < 5 / np.sqrt(drawn.size - lag)
    other = np.asarray(bulk_bits16(jax.random.key(2), (50, 4000)))
    assert np.mean(drawn == other) < 1e-3
    rbg = bulk_bits16(jax.random.key(1, impl="rbg"), (9,))  # keys of any kind will do
    assert rbg.shape == (9,)

"""Integer random draws: sparse positions in proportion to weights, levels from frequency tables.

Nothing here holds a floating-point value, so that one key gives one draw on every backend.
"""

from __future__ import annotations

import math
import operator

import jax
import jax.numpy as jnp

from qevo.errors import QevoError

TABLE_BITS = 14
TABLE_TOTAL = 1 << TABLE_BITS  # every frequency table sums to this
SEEDS = 1 << 32  # a larger seed's key, or a negative one's, would be that of one of these
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # of Threefry-2x32


def key_of(seed: int | jax.Array) -> jax.Array:
    """The key of a seed; a key stays as it is.

    Raises:
      QevoError: no integer, or a seed whose key is that of another one.
    """
    if isinstance(seed, jax.Array) and (seed.ndim or not jnp.issubdtype(seed.dtype, jnp.integer)):
        return seed
    try:
        seed = operator.index(seed)
    except TypeError:
        raise QevoError(f"seed must be an integer or a key, got {seed!r}") from None
    check_seeds("seed", seed)
    return jax.random.key(seed)


def check_seeds(name: str, *seeds: int) -> None:
    """Refuse seeds outside 0 to 2³² - 1.

    Raises:
      QevoError: with the name of the argument that holds them.
    """
    outside = [seed for seed in seeds if not 0 <= seed < SEEDS]
    if outside:
        raise QevoError(f"{name} must be 0 to {SEEDS - 1}, got {', '.join(map(str, outside))}")


def bits16(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform uint16 of the given shape, two from each 32-bit word (several times the speed)."""
    *rows, columns = shape
    words = jax.random.bits(key, (*rows, -(-columns // 2)), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16)
    return halves.reshape(*rows, -1)[..., :columns]


def bulk_bits16(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform uint16 of the given shape, from a stream of its own: faster than `bits16`.

    No word of the cipher is lost, and all lower halves come before the upper ones: interleaved, as
    a bitcast has them, they take a CPU ten times as long.
    """
    count = math.prod(shape)
    words = _bulk_words(key, -(-count // 2))
    halves = jnp.concatenate([words.astype(jnp.uint16), (words >> 16).astype(jnp.uint16)])
    return halves[:count].reshape(shape)


def _bulk_words(key: jax.Array, count: int) -> jax.Array:
    """Uniform uint32 ``[count]``.

    `jax.random.bits` runs Threefry-2x32 once for each word, and keeps one of the two that it gives.
    """
    pairs = -(-count // 2)
    halves = jnp.arange(2 * pairs, dtype=jnp.uint32).reshape(2, pairs)
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    return jnp.concatenate(_threefry(first, second, *halves))[:count]


def _threefry(
    first: jax.Array, second: jax.Array, left: jax.Array, right: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds, of keys uint32 ``[]`` and counters uint32 ``[n]``.

    Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011. The bits
    are those of `jax.extend.random.threefry_2x32`, which loops over the rounds on a CPU: unrolled,
    they are one kernel, two to three times as fast.
    """
    keys = (first, second, first ^ second ^ jnp.uint32(0x1BD11BDA))
    left, right = left + first, right + second
    for turn in range(5):
        for rotation in _ROTATIONS[turn % 2]:
            left += right
            right = left ^ (right << rotation | right >> (32 - rotation))
        left += keys[(turn + 1) % 3]
        right += keys[(turn + 2) % 3] + jnp.uint32(turn + 1)
    return left, right


def weighted_positions(
    key: jax.Array,
    weights: jax.Array,
    groups: int,
    size: int,
    *,
    used: jax.Array | None = None,
) -> jax.Array:
    """Draw ``groups`` disjoint rows of ``size`` distinct positions in proportion to weights.

    Stratified sampling on the running sum of the weights, from a random rotation: one position
    from each of ``groups * size`` equal shares of the total weight. A gene that more than one share
    falls on is drawn once and its further draws become padding, so that a gene of w <= 1 shares
    comes with probability w - w**3 / 6. No sort; one pass over the N weights.

    Args:
      key: PRNG key.
      weights: int32 ``[N]``, non-negative, with a sum below 2**31.
      groups: S.
      size: G.
      used: int32 ``[]``, 1 to G: positions that are drawn for each row, first ones; all by default.

    Returns:
      int32 ``[S, G]``, distinct over the whole array apart from the padding value N.

    Sampling by equal shares of a running sum: Madow 1949; Särndal et al., *Model Assisted Survey
    Sampling*, 1992, section 3.4 (systematic sampling) and 3.7 (stratified).
    """
    ends = jnp.cumsum(weights.astype(jnp.uint32))
    draws, padding = groups * size, weights.shape[0]
    strata = draws if used is None else (groups * used).astype(jnp.uint32)
    key_rotation, key_jitter, key_rows = jax.random.split(key, 3)
    total = jnp.maximum(ends[-1], 1)
    share = jnp.maximum(total // strata, 1)
    rotation = jax.random.bits(key_rotation, (), jnp.uint32) % total
    jitter = jax.random.bits(key_jitter, (draws,), jnp.uint32) % share
    targets = (rotation + jnp.arange(draws, dtype=jnp.uint32) * share + jitter) % total
    positions = jnp.searchsorted(ends, targets, side="right").astype(jnp.int32)
    # Strata follow each other around the circle: a position comes again right after itself, or
    # where the circle closes on the first one.
    repeated = (positions == jnp.roll(positions, 1)) | (positions == positions[0])
    repeated = repeated.at[0].set(False)
    # More strata than units of weight wrap around the circle and meet what was drawn already.
    wrapped = jnp.arange(draws, dtype=jnp.uint32) >= total
    unused = wrapped | (ends[-1] == 0)
    if used is not None:
        unused |= jnp.arange(draws, dtype=jnp.uint32) >= strata
    positions = jnp.where(repeated | unused, padding, positions)
    # Deal each run of S neighbouring strata to the S groups in a random rotation.
    deal = jax.random.bits(key_rows, (size, 1), jnp.uint32) % jnp.uint32(groups)
    column = (jnp.arange(groups, dtype=jnp.uint32)[None, :] + deal) % jnp.uint32(groups)
    dealt = jnp.take_along_axis(positions.reshape(size, groups), column.astype(jnp.int32), axis=1)
    return dealt.T


def uniform_positions(key: jax.Array, count: int, rows: int, size: int) -> jax.Array:
    """Distinct positions int32 ``[rows, size]`` in ``0..count-1``, rows drawn by themselves.

    As `weighted_positions` of equal weights for each row, without a pass over them. Where there are
    fewer positions than ``size``, all of them come, and ``count`` as padding.
    """
    drawn = min(size, count)
    words = _bulk_words(key, rows * (drawn + 1)).reshape(rows, drawn + 1)
    share = count // drawn
    rotation, jitter = words[:, :1] % count, words[:, 1:] % share
    targets = rotation + jnp.arange(drawn, dtype=jnp.uint32) * share + jitter
    positions = jnp.where(targets < count, targets, targets - count).astype(jnp.int32)
    return jnp.pad(positions, ((0, 0), (0, size - drawn)), constant_values=count)


def below(bits: jax.Array, count: int) -> jax.Array:
    """Integers int32 ``[...]`` in ``0..count-1`` of random uint16 ``[..., 2]``.

    ``count`` is below 2**16; numbers differ in probability by at most 2**-32.
    """
    high, low = bits[..., 0].astype(jnp.uint32), bits[..., 1].astype(jnp.uint32)
    return (high * count + (low * count >> 16) >> 16).astype(jnp.int32)


def uniform_levels(key: jax.Array, low: jax.Array, high: jax.Array, count: int) -> jax.Array:
    """``count`` solutions int8 ``[count, N]``, uniform within bounds int8 ``[N]``.

    Levels of a gene differ in probability by at most 2**-16.
    """
    levels = high.astype(jnp.int32) - low + 1
    draws = bulk_bits16(key, (count, low.shape[0])).astype(jnp.int32)
    return (low + (draws * levels >> 16)).astype(jnp.int8)


def coin_flips(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """Fair bits, bool ``[rows, columns]``, 32 from each word."""
    words = jax.random.bits(key, (rows, -(-columns // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return bits.reshape(rows, -1)[:, :columns] == 1


def table_levels(key: jax.Array, tables: jax.Array, count: int, *, antithetic: bool) -> jax.Array:
    """Draw levels from frequency tables by inverting their running sums.

    Args:
      key: PRNG key.
      tables: int32 ``[G, L]``, non-negative, each row summing to `TABLE_TOTAL`.
      count: candidates; even when ``antithetic``.
      antithetic: draw pairs (2i, 2i+1) that mirror each other's quantile.

    Returns:
      int8 ``[count, G]``, each in ``0..L-1``.
    """
    genes, levels = tables.shape
    draws = bits16(key, (count // 2 if antithetic else count, genes)) & jnp.uint16(TABLE_TOTAL - 1)
    if antithetic:
        draws = jnp.stack([draws, jnp.uint16(TABLE_TOTAL - 1) - draws], axis=1)
        draws = draws.reshape(count, genes)
    ends = jnp.cumsum(tables, axis=1).astype(jnp.uint16)
    level = jnp.zeros((count, genes), jnp.int8)
    for boundary in range(levels - 1):
        level += (draws >= ends[:, boundary]).astype(jnp.int8)
    return level

"""Fixed-point losses: int32 in, int32 out, nothing else in between.

Logits are fixed point: the real logit in nats is ``logits / 2**fraction_bits``. Losses count in
``1 / UNIT`` nats. A loss per image stays within 0 to `LOSS_LIMIT`, so that the sum over a batch of
up to `BATCH_LIMIT` images fits int32.

Exponential and logarithm are polynomials in 15-bit fixed point, which need neither tables nor
gathers; their errors are below 1.5e-4 (relative) and 1.4e-4 (of log2). `cross_entropy` is within
2 / UNIT of the exact value for up to `CLASS_LIMIT` classes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

UNIT = 1024  # loss units per nat
LOSS_LIMIT = (1 << 15) - 1  # just below 32 nats
BATCH_LIMIT = (1 << 16) - 1
CLASS_LIMIT = 1 << 11
TARGET_TOTAL = 1 << 12  # soft labels of one image sum to this

_INT32 = (1 << 31) - 1
_ROUNDING = 1 << 16  # room for half of the largest shift of a summed error
_GAP_BITS = 13  # fraction bits of a gap, the distance of a logit from the largest in nats
_GAP_LIMIT = 32  # nats; what is further behind adds nothing, and a loss ends there
_FRACTION_LIMIT = 26  # of fraction_bits, so that the largest gap fits uint32
_LOG2_E = 5909  # in 1 / 2**12
_LN_2 = 22713  # in 1 / 2**15
_EXP2 = (-1297, 7574, -22661, 32768)  # 2**-f for 0 <= f < 1, highest power first, in 1 / 2**15
_LOG2 = (-2693, 10528, -22214, 47148, 0)  # log2(1 + f); both minimax, searched in integers


def cross_entropy(logits: jax.Array, labels: jax.Array, *, fraction_bits: int) -> jax.Array:
    """``-log softmax(logits)[label]`` per image.

    Args:
      logits: int32 ``[B, C]``, any values; B up to `BATCH_LIMIT`, C up to `CLASS_LIMIT`.
      labels: int32 ``[B]``, 0 to C - 1.
      fraction_bits: of the logits, 0 to 26.

    Returns:
      int32 ``[B]`` in 1/`UNIT` nats, 0 to `LOSS_LIMIT`; within 2 units of the exact value below
      that limit.

    Raises:
      ValueError: if a bound on B, C or ``fraction_bits`` does not hold.
      TypeError: if the logits are not int32.
    """
    _check_batch(len(logits))
    gaps = _gaps(logits, fraction_bits)
    gap = jnp.sum(jnp.where(_is_label(logits, labels), gaps, 0), axis=-1, dtype=jnp.int32)
    return _loss((gap << (15 - _GAP_BITS)) + _log_sum(gaps))


def soft_cross_entropy(logits: jax.Array, targets: jax.Array, *, fraction_bits: int) -> jax.Array:
    """``-sum(targets * log softmax(logits)) / TARGET_TOTAL`` per image.

    Args:
      logits: int32 ``[B, C]``, as for `cross_entropy`.
      targets: int32 ``[B, C]``, non-negative, each row summing to `TARGET_TOTAL`; `softmax` makes
        them from a teacher's logits.
      fraction_bits: of the logits, 0 to 26.

    Returns:
      int32 ``[B]`` in 1/`UNIT` nats, 0 to `LOSS_LIMIT`; a class more than 32 nats behind the best
      counts as 32.

    Raises:
      ValueError, TypeError: as `cross_entropy`.
    """
    _check_batch(len(logits))
    gaps = _gaps(logits, fraction_bits)
    # At most TARGET_TOTAL * 2**18 = 2**30.
    gap = jnp.sum(targets * gaps, axis=-1, dtype=jnp.int32)
    return _loss(_round_shift(gap, _GAP_BITS + 12 - 15) + _log_sum(gaps))


def softmax(logits: jax.Array, *, fraction_bits: int) -> jax.Array:
    """A teacher's soft labels: the softmax of its logits as exact frequencies.

    Args:
      logits: int32 ``[B, C]``, as for `cross_entropy`, but any B.
      fraction_bits: of the logits, 0 to 26; one more is a temperature twice as high.

    Returns:
      int32 ``[B, C]``, each row summing to `TARGET_TOTAL` exactly. The running sum over classes is
      what is rounded, so that each entry is within 1 of its share, apart from the exponential's
      error.

    Raises:
      ValueError, TypeError: as `cross_entropy`.
    """
    powers = _powers(_gaps(logits, fraction_bits))
    rest = jnp.cumsum(powers, axis=-1, dtype=jnp.int32)
    total = rest[..., -1:]
    share = jnp.zeros_like(rest)
    # Long division, one bit at a time: rest * TARGET_TOTAL would overflow. The last bit rounds.
    for _ in range(TARGET_TOTAL.bit_length()):
        bit = rest >= total - rest  # twice the rest holds the total
        rest = rest - jnp.where(bit, total - rest, -rest)
        share = (share << 1) | bit.astype(jnp.int32)
    return jnp.diff((share + 1) >> 1, axis=-1, prepend=0)


def error_count(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many images have their largest logit elsewhere than at the label, int32 ``[]``.

    Of equal logits the first counts. ``logits`` int32 ``[B, C]``, ``labels`` int32 ``[B]``.
    """
    return jnp.sum(jnp.argmax(logits, axis=-1) != labels, axis=-1, dtype=jnp.int32)


def squared_error(
    a: jax.Array, b: jax.Array, *, largest: int = 255, limit: int = LOSS_LIMIT
) -> jax.Array:
    """``sum(min(|a - b|, largest)**2) / 2**shift`` per image, rounded half up.

    The shift is that of `squared_error_shift`.

    Args:
      a, b: int8, uint8, int16 or int32 ``[B, ...]`` with K values per image.
      largest: the difference that counts; 255 is any difference of int8 or uint8.
      limit: the largest result; more than `LOSS_LIMIT` where fewer images than `BATCH_LIMIT` are
        summed.

    Returns:
      int32 ``[B]``, 0 to ``limit``.

    Raises:
      ValueError: if K·largest² or the sum over B images may leave int32.
    """
    _check_batch(a.shape[0], limit)
    values = a.size // max(a.shape[0], 1)
    bound = values * largest**2
    shift = squared_error_shift(values, largest, limit)
    if bound + (1 << shift >> 1) > _INT32:
        raise ValueError(
            f"squared errors up to {bound} per image overflow int32: lower largest={largest} or "
            "sum fewer values"
        )
    a, b = jnp.asarray(a, jnp.int32), jnp.asarray(b, jnp.int32)
    difference = jnp.maximum(a, b).astype(jnp.uint32) - jnp.minimum(a, b).astype(jnp.uint32)
    difference = jnp.minimum(difference, jnp.uint32(largest)).astype(jnp.int32)
    axes = tuple(range(1, a.ndim))
    total = jnp.sum(difference * difference, axis=axes, dtype=jnp.int32)
    return jnp.minimum(_round_shift(total, shift), limit)


def squared_error_bits(values: int, span: int, most: int) -> int:
    """Fraction bits, up to ``most``, at which a squared error of whole images is exact in int32.

    Args:
      values: K of an image.
      span: the largest difference of two values, without fraction.

    Returns:
      Negative where there are none.
    """
    room = math.isqrt((_INT32 - _ROUNDING) // values) // span
    return min(room.bit_length() - 1, most)


def summed_limit(images: int) -> int:
    """The largest loss of an image of which so many fit int32 together."""
    return _INT32 // images - 1


def squared_error_shift(values: int, largest: int, limit: int = LOSS_LIMIT) -> int:
    """The smallest shift that brings ``values * largest**2`` within ``limit``, up to rounding."""
    return max((values * largest**2).bit_length() - (limit + 1).bit_length() + 1, 0)


def _check_batch(batch: int, limit: int = LOSS_LIMIT) -> None:
    most = ((1 << 31) - 1) // (limit + 1)
    if batch > most:
        raise ValueError(f"the sum over {batch} images may overflow int32: at most {most}")


def _is_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]


def _round_shift(x: jax.Array, shift: int | jax.Array) -> jax.Array:
    return (x + ((1 << shift) >> 1)) >> shift


def _loss(nats: jax.Array) -> jax.Array:
    """15 fraction bits to 1/`UNIT`."""
    return jnp.clip(_round_shift(nats, 15 - 10), 0, LOSS_LIMIT)


def _gaps(logits: jax.Array, fraction_bits: int) -> jax.Array:
    """``max(logits) - logits`` with 13 fraction bits, up to 32 nats, int32 ``[B, C]``."""
    if logits.dtype != jnp.int32:
        raise TypeError(f"losses take int32 logits, not {logits.dtype}")
    _, classes = logits.shape
    if not 1 <= classes <= CLASS_LIMIT:
        raise ValueError(f"1 to {CLASS_LIMIT} classes, not {classes}")
    if not 0 <= fraction_bits <= _FRACTION_LIMIT:
        raise ValueError(f"fraction_bits of 0 to {_FRACTION_LIMIT}, not {fraction_bits}")
    # Unsigned, for the gap between any two int32 fits.
    top = jnp.max(logits, axis=-1, keepdims=True).astype(jnp.uint32)
    gaps = top - logits.astype(jnp.uint32)
    gaps = jnp.minimum(gaps, jnp.uint32(_GAP_LIMIT << fraction_bits))
    surplus = fraction_bits - _GAP_BITS
    gaps = _round_shift(gaps, surplus) if surplus > 0 else gaps << -surplus
    return gaps.astype(jnp.int32)


def _horner(coefficients: tuple[int, ...], x: jax.Array) -> jax.Array:
    """A polynomial, all in 15-bit fixed point."""
    value = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = ((value * x) >> 15) + coefficient
    return value


def _scale(classes: int) -> int:
    """Fraction bits of a term such that the sum of ``classes`` terms is at most 2**30."""
    return 30 - (classes - 1).bit_length()


def _powers(gaps: jax.Array) -> jax.Array:
    """``exp(-gap)`` with `_scale` fraction bits, exactly 1 where the gap is 0."""
    exponent = (gaps * _LOG2_E) >> (_GAP_BITS + 12 - 15)
    fraction = _horner(_EXP2, exponent & 0x7FFF) << (_scale(gaps.shape[-1]) - 15)
    return _round_shift(fraction, jnp.minimum(exponent >> 15, 30))


def _log_sum(gaps: jax.Array) -> jax.Array:
    """``log(sum(exp(-gaps)))`` in nats with 15 fraction bits, int32 ``[B]``."""
    total = jnp.sum(_powers(gaps), axis=-1, dtype=jnp.int32)
    leading = lax.clz(total)
    exponent = 31 - leading - _scale(gaps.shape[-1])
    fraction = _horner(_LOG2, ((total << leading) >> 16) & 0x7FFF)
    return exponent * _LN_2 + ((fraction * _LN_2) >> 15)

"""From int32 accumulators back to int8: dyadic scaling, rounded half to even."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def shift_round(x: jax.Array, shift: jax.Array | int) -> jax.Array:
    """``round_half_even(x / 2**shift)`` without a float.

    Args:
      x: int32; ``|x| < 2**31 - 2**(shift - 1)``.
      shift: int32 0 to 30, broadcast against ``x``.

    Returns:
      int32, the broadcast shape.
    """
    shift = jnp.asarray(shift, jnp.int32)
    below_half = ((1 << shift) - 1) >> 1  # 2**(shift - 1) - 1, and 0 where nothing is shifted out
    odd = (x >> shift) & jnp.minimum(shift, 1)
    return (x + below_half + odd) >> shift


def requantize(
    acc: jax.Array,
    multiplier: jax.Array | int,
    shift: jax.Array | int,
    *,
    low: int = -127,
    high: int = 127,
    wide: bool = False,
) -> jax.Array:
    """Scale an accumulator to int8: ``clip(round_half_even(acc * multiplier / 2**shift))``.

    Args:
      acc: int32 ``[..., C]``; ``|acc * multiplier| < 2**31 - 2**(shift - 1)``, which the network
        proves per layer, unless ``wide``.
      multiplier: int32 ``[C]``, one per output channel; 1 to 2**15 if ``wide``.
      shift: int32 ``[C]``, right shift, 0 to 22; up to 17 the result is onnxruntime's bit for bit.
      low, high: range of the result; ``low=0`` is a fused ReLU.
      wide: form the product in two limbs, for any int32 accumulator.

    Returns:
      int8 ``[..., C]``.

    Raises:
      ValueError: if ``low..high`` is no range of int8.
      TypeError: if ``acc`` is not int32.

    Rounds half to even, as onnxruntime's QLinearConv does. Jacob et al. 2018, section 2.2, with the
    dyadic multiplier of HAWQ-V3 (Yao et al. 2021).
    """
    if not -128 <= low <= high <= 127:
        raise ValueError(f"requantize gives int8, so low..high cannot be {low}..{high}")
    if acc.dtype != jnp.int32:
        raise TypeError(f"requantize takes an int32 accumulator, not {acc.dtype}")
    multiplier = jnp.asarray(multiplier, jnp.int32)
    product = _saturated_product(acc, multiplier) if wide else acc * multiplier
    return jnp.clip(shift_round(product, shift), low, high).astype(jnp.int8)


def leaky_parts(
    acc: jax.Array, multiplier: jax.Array, shift: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Multiplier and shift of each accumulator, for a tenth of what is negative.

    A tenth is 4/5 of an eighth: the multiplier there is the nearest integer to 4/5 of the other
    one, and the shift 3 more. What `requantize` asks of ``acc`` holds if it does without a leak;
    for multipliers below 3, if it does for 3. With ``wide`` shifts are at most 19.

    Args:
      acc: int32 ``[..., C]``.
      multiplier, shift: int32 ``[C]``.

    Returns:
      Two int32 ``[..., C]``.
    """
    negative = acc < 0
    leak = (4 * multiplier + 2) // 5
    return jnp.where(negative, leak, multiplier), jnp.where(negative, shift + 3, shift)


def _saturated_product(acc: jax.Array, multiplier: jax.Array) -> jax.Array:
    """``acc * multiplier`` from two 16-bit limbs, saturated near ±2**30.

    What saturates is at least 2**8 after a shift of 22, hence outside int8 either way.
    """
    lower = (acc & 0xFFFF) * multiplier  # below 2**31 for multipliers up to 2**15
    upper = (acc >> 16) * multiplier + (lower >> 16)
    return (jnp.clip(upper, -(1 << 14), (1 << 14) - 1) << 16) | (lower & 0xFFFF)

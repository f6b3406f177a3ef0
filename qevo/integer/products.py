"""Exact dot products and convolutions of int8 values: several paths, the same int32 bits.

A product of int8 values is exact in float32 arithmetic (from float32 or bfloat16 inputs) as long as
the sum of its terms' magnitudes stays below 2**24. The float paths ask for that bound, and each
puts its floats into one small jitted function, convert - product - convert back, whose name carries
the bound, so that `audit` can check the structure and list it apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from qevo.integer.patches import (
    Padding,
    Pads,
    explicit_padding,
    image_lines,
    image_patches,
    kernel_band,
)

Path = Literal[
    "int8",
    "float32",
    "bfloat16",
    "int8_im2col",
    "float32_im2col",
    "bfloat16_im2col",
    "int8_banded",
    "float32_banded",
    "bfloat16_banded",
]

FLOAT_LIMIT = 1 << 24  # integers up to here are exact in float32
INT_LIMIT = 1 << 31
EXACT_NAME = r"exact_(?P<dtype>float32|bfloat16)_product_bound_(?P<bound>\d+)"


def dot(x: jax.Array, w: jax.Array, *, path: Path = "int8", bound: int) -> jax.Array:
    """``x @ w``, exact.

    Args:
      x: int8 ``[..., K]``.
      w: int8 ``[K, C]``.
      path: ``"int8"`` (int32 accumulation), ``"float32"`` or ``"bfloat16"`` (float32 accumulation);
        the same bits from each.
      bound: proved limit on ``sum |x w|`` over K; at most K·max|x|·max|w|.

    Returns:
      int32 ``[..., C]``.

    Raises:
      ValueError: if ``bound`` is too large for the path, or the path is unknown or only for `conv`.
      TypeError: if an operand is not int8.
    """
    dtype, layout = _parse(path, bound)
    if layout:
        raise ValueError(f"path {path!r} is for conv; dot takes {dtype!r}")
    return _exact_dot(x, w, dtype, bound)


def conv(
    x: jax.Array,
    w: jax.Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding,
    path: Path = "int8",
    bound: int,
) -> jax.Array:
    """Convolution of a batch of images, exact.

    A path is a number format as in `dot`, and a way to get there:

    - as it is (``"int8"``): XLA's convolution. A float one runs on a CPU only and is im2col
      elsewhere, since a GPU library may choose a transform algorithm, which is not exact.
    - ``"..._im2col"``: image patches ``[B·H'·W', h·w·K]`` times the kernel ``[h·w·K, C]``.
    - ``"..._banded"``: image lines ``[B·H', h·W·K]`` times a band matrix ``[h·W·K, W'·C]`` that
      holds the kernel once per output column. W/w times the work, hardly any copying: for few
      channels.

    Args:
      x: int8 ``[B, H, W, K]``; padded with zeros.
      w: int8 ``[h, w, K, C]``.
      strides: vertical, horizontal.
      padding: ``"SAME"``, ``"VALID"`` or (before, after) for height and width.
      path: how to compute it; the same bits from each.
      bound: proved limit on ``sum |x w|`` over h·w·K.

    Returns:
      int32 ``[B, H', W', C]``.

    Raises:
      ValueError: if ``bound`` is too large for the path, or the path is unknown.
      TypeError: if an operand is not int8.
    """
    dtype, layout = _parse(path, bound)
    height, width, _, outputs = w.shape
    kernel = (height, width)
    pads = explicit_padding(padding, x.shape[1:3], kernel, strides)

    def patches_product(x: jax.Array, w: jax.Array) -> jax.Array:
        patches = image_patches(x, kernel, strides=strides, pads=pads)
        return _exact_dot(patches, w.reshape(-1, outputs), dtype, bound)

    if layout == "im2col":
        return patches_product(x, w)
    if layout == "banded":
        lines = image_lines(x, kernel, strides=strides, pads=pads)
        columns = (x.shape[2] + sum(pads[1]) - width) // strides[1] + 1
        band = kernel_band(w, columns=columns, stride=strides[1])
        return _exact_dot(lines, band, dtype, bound).reshape(*lines.shape[:2], columns, outputs)
    _check_operands(x, w)
    if dtype == "int8":
        return _conv(*_widen(x, w), strides, pads)[..., :outputs]
    direct = _in_float(_conv, dtype, bound, strides, pads)
    return lax.platform_dependent(x, w, cpu=direct, default=patches_product)


def choose_path(
    kind: Literal["dot", "conv"],
    *,
    bound: int,
    arithmetic: Literal["int", "fast"],
    backend: str,
    kernel: tuple[int, int, int, int] | None = None,
    width: int | None = None,
) -> Path:
    """An exact path that is fast on most machines (``benchmarks/paths.py``).

    Args:
      kind: which product.
      bound: proved limit on the sum of the terms' magnitudes.
      arithmetic: ``"int"`` never takes a float path; ``"fast"`` may where ``bound`` allows.
      backend: as `jax.default_backend` names it.
      kernel: h, w, K, C of a convolution; without it and ``width`` a path good for most shapes.
      width: of the images that come in, padded.

    Returns:
      A path for `dot` or `conv`.

    This is the rule where nothing was measured; a plan (`qevo.nets.planning`) measures on the
    machine at hand and does better, since CPUs differ: time relative to int8, two cores, batch 256,
    candidates through `lax.map`, on CPUs with AVX-512 (VNNI and bfloat16) | with AVX2 only:

    ===================  ===========  ===========  ===========  ===========  ===============
    layer                float32      bfloat16     int8_im2col  int8_banded  bfloat16_banded
    ===================  ===========  ===========  ===========  ===========  ===============
    784 to 300           1.3 | 0.9    0.7 | 1.8
    28x28, 1 to 6, 5x5   1.3 | 1.0    1.3 | 1.0    0.4 | 0.3    0.3 | 0.3    0.2 | 0.4
    14x14, 6 to 16, 5x5  1.1 | 0.5    1.1 | 0.5    1.1 | 0.4    0.9 | 0.5    0.8 | 1.0
    32x32, 3 to 16       2.4 | 1.1    2.5 | 1.3    1.6 | 0.6    2.1 | 1.8    1.8 | 2.6
    32x32, 16 to 16      1.3 | 0.7    1.4 | 0.8    2.5 | 0.8    4.9 | 3.2    4.5 | 5.5
    8x8, 64 to 64        1.6 | 1.4    1.5 | 1.4    1.8 | 1.2    3.4 | 1.8    3.0 | 3.3
    ===================  ===========  ===========  ===========  ===========  ===============

    On a CPU the rule stays within 1.5 times the best of both. GPU and TPU are unmeasured:
    conservative, always through a matrix product.
    """
    if backend != "cpu":
        fast = arithmetic == "fast" and bound < FLOAT_LIMIT
        if kind == "dot":
            return "bfloat16" if fast else "int8"
        return "bfloat16_im2col" if fast else "int8_im2col"
    if kind == "conv" and kernel is not None and width is not None:
        _, columns, _, outputs = kernel
        # A banded product spends (width - columns) / columns products on zeros for each useful
        # one: little where outputs are few, and no copying.
        if (width - columns) * outputs < 80 * columns:
            return "int8_banded"
    return "int8"


def _parse(path: str, bound: int) -> tuple[str, str]:
    """The path's number format and layout, once they and the bound are checked."""
    dtype, _, layout = path.partition("_")
    if dtype not in ("int8", "float32", "bfloat16") or layout not in ("", "im2col", "banded"):
        raise ValueError(f"unknown path {path!r}")
    limit = INT_LIMIT if dtype == "int8" else FLOAT_LIMIT
    if not 0 <= bound < limit:
        raise ValueError(f"path {path!r} is exact below {limit}, but the proved bound is {bound}")
    return dtype, layout


def _check_operands(x: jax.Array, w: jax.Array) -> None:
    if x.dtype != jnp.int8 or w.dtype != jnp.int8:
        raise TypeError(f"exact products take int8 operands, not {x.dtype} and {w.dtype}")


def _exact_dot(x: jax.Array, w: jax.Array, dtype: str, bound: int) -> jax.Array:
    _check_operands(x, w)
    return _dot(x, w) if dtype == "int8" else _in_float(_dot, dtype, bound)(x, w)


@functools.cache
def _in_float(product: Callable, dtype: str, bound: int, *static: tuple) -> Callable:
    """``product`` on float copies of its int8 operands, under the name that `audit` looks for."""

    def exact(x: jax.Array, w: jax.Array) -> jax.Array:
        return product(x.astype(dtype), w.astype(dtype), *static).astype(jnp.int32)

    exact.__name__ = exact.__qualname__ = f"exact_{dtype}_product_bound_{bound}"
    return jax.jit(exact)


def _accumulator(dtype: jnp.dtype) -> type:
    return jnp.int32 if dtype == jnp.int8 else jnp.float32


def _dot(x: jax.Array, w: jax.Array) -> jax.Array:
    return lax.dot_general(
        x,
        w,
        (((x.ndim - 1,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=_accumulator(x.dtype),
    )


def _widen(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Zero channels, so that XLA on a CPU does not fall back to a loop of int32 products.

    It has a vectorised kernel for more than 16 input or output channels, fast for input channels in
    fours.
    """
    inputs, outputs = w.shape[2:]
    more_inputs = -inputs % 4
    more_outputs = max(17 - outputs, 0) if inputs + more_inputs <= 16 else 0
    zero = jnp.zeros((), jnp.int8)
    none = (0, 0, 0)
    return (
        lax.pad(x, zero, (none, none, none, (0, more_inputs, 0))),
        lax.pad(w, zero, (none, none, (0, more_inputs, 0), (0, more_outputs, 0))),
    )


def _conv(x: jax.Array, w: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        w,
        strides,
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=_accumulator(x.dtype),
    )

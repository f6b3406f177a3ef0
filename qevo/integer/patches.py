"""A convolution as one matrix product: image patches, or image lines against a banded kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from qevo.errors import QevoError

Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = Literal["SAME", "VALID"] | Sequence[tuple[int, int]]


def explicit_padding(
    padding: Padding, image: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> Pads:
    """``padding`` as (before, after) for height and width."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image, kernel, strides, padding)
    (top, bottom), (left, right) = padding
    return (int(top), int(bottom)), (int(left), int(right))


def check_fits(
    name: str,
    window: tuple[int, ...],
    size: tuple[int, ...],
    pads: Sequence[tuple[int, int]],
) -> None:
    """Refuse a window larger than the map that it slides over: the output would be empty.

    Args:
      name: of the operation.
      window: height and width.
      size: height and width of the map.
      pads: (before, after) for both.

    Raises:
      QevoError: with both sizes.
    """
    padded = [s + sum(pad) for s, pad in zip(size, pads, strict=True)]
    if any(w > s for w, s in zip(window, padded, strict=True)):
        raise QevoError(
            f"{name}: a window of {window[0]}x{window[1]} on a map of {padded[0]}x{padded[1]}: the "
            "images are too small for the strides and pools before it"
        )


def image_patches(
    x: jax.Array, kernel: tuple[int, int], *, strides: tuple[int, int], pads: Pads
) -> jax.Array:
    """For each output pixel the inputs that its kernel sees.

    Args:
      x: ``[B, H, W, K]``, padded with zeros.
      kernel: height and width h, w.
      strides: vertical, horizontal.
      pads: (before, after) for height and width.

    Returns:
      ``[B, H', W', h·w·K]``, to be multiplied with the kernel as ``[h·w·K, C]``.
    """
    x = _cover(x, kernel, strides, pads)
    rows, columns = (x.shape[1] - kernel[0] + 1, x.shape[2] - kernel[1] + 1)
    views = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return jnp.concatenate(views, axis=-1)


def image_lines(
    x: jax.Array, kernel: tuple[int, int], *, strides: tuple[int, int], pads: Pads
) -> jax.Array:
    """For each line of the output the lines of the input that it depends on.

    Returns:
      ``[B, H', h·W·K]`` with the padded width W, to be multiplied with `kernel_band`.
    """
    x = _cover(x, kernel, strides, pads)
    lines = x.reshape(*x.shape[:2], -1)
    rows = x.shape[1] - kernel[0] + 1
    return jnp.concatenate([lines[:, i : i + rows : strides[0]] for i in range(kernel[0])], axis=-1)


def kernel_band(w: jax.Array, *, columns: int, stride: int) -> jax.Array:
    """The kernel beside shifted copies of itself: whole image lines in, whole lines out.

    Args:
      w: ``[h, w, K, C]``.
      columns: W', the width of the output.
      stride: horizontal.

    Returns:
      ``[h·W·K, W'·C]``, W = (W' - 1)·stride + w the width of the padded input.
    """
    height, width, inputs, outputs = w.shape
    line = ((columns - 1) * stride + width) * inputs
    # Rows that are one stride too long, read at the right length, slip by one stride each.
    padded = lax.pad(
        w.reshape(height, width * inputs, outputs),
        jnp.zeros((), w.dtype),
        ((0, 0, 0), (0, line + (stride - width) * inputs, 0), (0, 0, 0)),
    )
    copies = jnp.broadcast_to(padded[:, None], (height, columns, *padded.shape[1:]))
    band = copies.reshape(height, -1, outputs)[:, : columns * line]
    band = band.reshape(height, columns, line, outputs).transpose(0, 2, 1, 3)
    return band.reshape(height * line, columns * outputs)


def _cover(
    x: jax.Array, kernel: tuple[int, int], strides: tuple[int, int], pads: Pads
) -> jax.Array:
    """``x`` padded, and cut to what the kernels cover."""
    (top, bottom), (left, right) = pads
    edges = ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    height, width = (
        (size - k) // s * s + k for size, k, s in zip(x.shape[1:3], kernel, strides, strict=True)
    )
    return x[:, :height, :width]

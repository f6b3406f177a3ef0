"""Depthwise convolution of any element type."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
from jax import lax

from qevo.integer.patches import Pads


def depthwise(x: jax.Array, w: Any, *, strides: tuple[int, int], pads: Pads, dtype: Any) -> Any:
    """Each channel of a batch of images convolved with a filter of its own.

    The sum of shifted images: XLA's grouped convolutions are slow on a CPU and no faster elsewhere.

    Args:
      x: ``[B, H, W, C]``; padded with zeros.
      w: ``[h, w, 1, C]``.
      strides: vertical, horizontal.
      pads: (before, after) for height and width.
      dtype: in which products are formed and added.

    Returns:
      ``[B, H', W', C]`` of ``dtype``.
    """
    height, width = w.shape[:2]
    x = lax.pad(x, x.dtype.type(0), ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    terms = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]].astype(dtype)
        * w[i, j, 0].astype(dtype)
        for i in range(height)
        for j in range(width)
    ]
    return functools.reduce(operator.add, terms)

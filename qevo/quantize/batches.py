"""Functions over all images, one fixed-size batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BATCH = 256  # images per compiled call
VALUES = 1 << 24  # of them, where images are large


def batches(*arrays: np.ndarray, size: int | None = None) -> Iterator[tuple[np.ndarray, ...]]:
    """Consecutive batches of equal length, so that a jitted function compiles once.

    The last one is filled up with images from the start. By default at most `BATCH` of them, and
    `VALUES` in an array.
    """
    count = len(arrays[0])
    if size is None:
        largest = max(math.prod(array.shape[1:]) for array in arrays)
        size = max(1, min(BATCH, VALUES // max(largest, 1)))
    size = min(size, count)
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        stop = start + size
        yield tuple(a[start:stop] if stop <= count else a[rows] for a in arrays)


def over_batches(
    fn: Callable[..., Any], *arrays: np.ndarray, size: int | None = None, **options: Any
) -> np.ndarray:
    """``fn(*batch, **options)`` over all images of the arrays, concatenated on the host."""
    count = len(arrays[0])
    if not count:  # what one would give says the shape
        arrays = tuple(np.zeros((1, *array.shape[1:]), array.dtype) for array in arrays)
    parts = [np.asarray(fn(*batch, **options)) for batch in batches(*arrays, size=size)]
    return np.concatenate(parts)[:count]

"""Optimal levels in one dimension, by dynamic programming: no starts, no local optima."""

from __future__ import annotations

import numpy as np


def integer_levels(
    points: np.ndarray,
    weights: np.ndarray,
    count: int,
    *,
    low: int,
    high: int,
) -> np.ndarray:
    """The ``count`` integers, zero among them, that represent points with the least squared error.

    Exact, unlike rounded centres: the cheapest path of ``count`` integers between ``low`` and
    ``high``, where a step costs what the points between two levels lose to the nearer one, and none
    passes over zero.

    Args:
      points: float64 ``[n]``.
      weights: nonnegative ``[n]``.
      count: levels, fewer if there are no more integers.
      low, high: their range, with zero in it.

    Returns:
      Ascending integers, fewer where more would not help.
    """
    order = np.argsort(points, kind="stable")
    x, w = points[order], weights[order]
    sums = [np.concatenate([[0.0], np.cumsum(w * x**power)]) for power in range(3)]
    levels = np.arange(low, high + 1)
    size = len(levels)

    def span(level: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        mass, first, second = (s[stop] - s[start] for s in sums)
        return np.maximum(second - 2 * level * first + level * level * mass, 0.0)

    at = np.searchsorted(x, levels)
    half = np.searchsorted(x, (levels[:, None] + levels) / 2)  # [a, b]
    a, b = levels[:, None], levels
    between = span(a, at[:, None], half) + span(b, half, np.broadcast_to(at, half.shape))
    between[np.tril_indices(size)] = np.inf
    zero = -low
    between[:zero, zero + 1 :] = np.inf
    best = span(levels, np.zeros(size, np.int64), at)
    best[zero + 1 :] = np.inf
    tail = span(levels, at, np.full(size, len(x)))
    tail[:zero] = np.inf
    rows, origins = [best], []
    for _ in range(min(count, size) - 1):
        total = rows[-1][:, None] + between
        origins.append(total.argmin(0))
        rows.append(total.min(0))
    ends = [float((row + tail).min()) for row in rows]
    steps = int(np.argmin(ends))  # the fewest levels of the least error
    place = int((rows[steps] + tail).argmin())
    chosen = [place]
    for origin in reversed(origins[:steps]):
        chosen.append(int(origin[chosen[-1]]))
    return levels[chosen[::-1]]

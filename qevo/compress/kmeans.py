"""Optimal levels in one dimension, by dynamic programming: no starts, no local optima."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Cost = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Clusters(NamedTuple):
    """An optimal clustering of sorted points.

    Attributes:
      centres: float64 ``[k]``, ascending.
      starts: the first point of each cluster, int64 ``[k]``.
      error: the sum of weight times squared distance to the centre.
    """

    centres: np.ndarray
    starts: np.ndarray
    error: float


def kmeans(points: np.ndarray, weights: np.ndarray, clusters: int) -> Clusters:
    """Optimal weighted k-means of sorted points in O(k n log n).

    ``D[q, j] = min_i D[q - 1, i - 1] + cost(i, j)`` over clusters ``i..j`` of sorted points. The
    best i does not fall as j grows, so a row is filled from its middle out. Wang and Song 2011
    (Ckmeans.1d.dp); divide and conquer: Grønlund et al. 2017 (arXiv 1701.07204).

    Args:
      points: float64 ``[n]``, ascending; for many values, the bins of a histogram.
      weights: positive ``[n]``.
      clusters: k; where there are fewer different points, those are the centres.
    """
    points, inverse = np.unique(points, return_inverse=True)
    weights = np.bincount(inverse, weights, len(points))
    count, k = len(points), min(clusters, len(points))
    shift = np.average(points, weights=weights)  # for precision: sums of squares are differences
    x = points - shift
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    first = np.concatenate([[0.0], np.cumsum(weights * x)])
    second = np.concatenate([[0.0], np.cumsum(weights * x * x)])

    def cost(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Of one cluster of the points ``i..j - 1``."""
        total = first[j] - first[i]
        return np.maximum(second[j] - second[i] - total * total / (mass[j] - mass[i]), 0.0)

    ends = np.arange(1, count + 1)
    best = cost(np.zeros_like(ends), ends)
    best = np.concatenate([[0.0], best])  # of the first j points
    origins = []
    for q in range(2, k + 1):
        best, origin = _next_row(best, q, cost)
        origins.append(origin)
    starts, end = [], count
    for origin in reversed(origins):
        end = int(origin[end])
        starts.append(end)
    starts = np.array([0, *reversed(starts)])
    stops = np.append(starts[1:], count)
    centres = (first[stops] - first[starts]) / (mass[stops] - mass[starts]) + shift
    return Clusters(centres, np.searchsorted(inverse, starts), float(best[count]))


def _next_row(best: np.ndarray, q: int, cost: Cost) -> tuple[np.ndarray, np.ndarray]:
    """Row q of the recurrence and where its minima are; all middles of a level at once."""
    count = len(best) - 1
    row, origin = np.full(count + 1, np.inf), np.zeros(count + 1, np.int64)
    ranges = [(q, count, q - 1, count - 1)]  # ends low..high, whose last clusters start low..high
    while ranges:
        low, high, left, right = np.array(ranges).T
        middle = (low + high) // 2
        stop = np.minimum(right, middle - 1)
        lengths = stop - left + 1
        owner = np.repeat(np.arange(len(middle)), lengths)
        offset = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        start = np.arange(lengths.sum()) - offset[owner] + left[owner]
        value = best[start] + cost(start, middle[owner])
        row[middle] = np.minimum.reduceat(value, offset)
        places = np.where(value == row[middle][owner], start, count)
        origin[middle] = np.minimum.reduceat(places, offset)
        found = origin[middle]
        ranges = [
            part
            for a, b, m, lo, hi, at in zip(low, high, middle, left, right, found, strict=True)
            for part in ((a, m - 1, lo, at), (m + 1, b, at, hi))
            if part[0] <= part[1]
        ]
    return row, origin


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

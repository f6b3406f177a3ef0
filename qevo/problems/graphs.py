"""Edges of a graph: checked as they are given, and each of them once."""

from __future__ import annotations

from typing import Any

import numpy as np

from qevo.errors import QevoError
from qevo.problems.integers import integers
from qevo.problems.text import Lines


def edge_ends(vertices: int, first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ends int64 ``[edges]`` of edges between vertices 0..N-1.

    Raises:
      QevoError: an edge leaves the graph, joins a vertex to itself, or has one end only.
    """
    first, second = pairs("the ends of edges", first, second)
    odd = (np.minimum(first, second) < 0) | (np.maximum(first, second) >= vertices)
    odd |= first == second
    if odd.any():
        at = int(np.argmax(odd))
        raise QevoError(
            f"edge {at} joins {first[at]} and {second[at]}; the ends of an edge are different "
            f"vertices from 0 to {vertices - 1}"
        )
    return first, second


def pairs(what: str, first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of pairs, int64 ``[pairs]``; ``what`` they are is for errors.

    Raises:
      QevoError: one side is longer than the other, or holds no integers.
    """
    first, second = (integers(what, side).reshape(-1) for side in (first, second))
    if first.size != second.size:
        raise QevoError(f"{what} come in pairs, got {first.size} and {second.size} of them")
    return first, second


def pair_weights(what: str, weight: Any, count: int) -> np.ndarray:
    """A weight for each pair, int64 ``[pairs]``, from as many or from one for all.

    Raises:
      QevoError: there is another number of them, or they are no integers.
    """
    weight = integers(what, weight).reshape(-1)
    if weight.size not in (1, count):
        raise QevoError(f"{what} must be one for all or {count}, one each, got {weight.size}")
    return np.broadcast_to(weight, (count,))


def check_edge(lines: Lines, vertices: int, ends: list[int]) -> None:
    """Fail with the line read last unless it joins two different vertices of 1..N."""
    if not all(1 <= end <= vertices for end in ends) or ends[0] == ends[1]:
        lines.fail(f"an edge joins two different vertices from 1 to {vertices}, got {ends}")


def merged_pairs(
    size: int, first: np.ndarray, second: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each unordered pair once, smaller end first, and the sum of its weights where it is not 0."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs, place = np.unique(low * size + high, return_inverse=True)
    total = np.zeros(pairs.size, np.int64)
    np.add.at(total, place, weight)
    kept = total != 0
    return pairs[kept] // size, pairs[kept] % size, total[kept]

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
      QevoError: an edge leaves the graph or joins a vertex to itself.
    """
    first, second = (integers("the ends of edges", ends).reshape(-1) for ends in (first, second))
    odd = (np.minimum(first, second) < 0) | (np.maximum(first, second) >= vertices)
    odd |= first == second
    if odd.any():
        at = int(np.argmax(odd))
        raise QevoError(
            f"edge {at} joins {first[at]} and {second[at]}; the ends of an edge are different "
            f"vertices from 0 to {vertices - 1}"
        )
    return first, second


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

"""rudy, G. Rinaldi's generator of random graphs.

It draws with ``gb_flip`` of the Stanford GraphBase (Knuth 1993).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qevo.errors import QevoError


def random_graph(vertices: int, edges: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends int64 ``[edges]`` of different edges, as the GraphBase's ``random_graph`` has them.

    Both ends of an edge are uniform; loops and edges that are there already are drawn again.
    """
    if edges > vertices * (vertices - 1) // 2:
        raise QevoError(f"{vertices} vertices have no {edges} different edges")
    draws = gb_flip(seed)
    found: dict[tuple[int, int], None] = {}
    while len(found) < edges:
        one, other = gb_uniform(draws, vertices), gb_uniform(draws, vertices)
        if one != other:
            found[min(one, other), max(one, other)] = None
    first, second = np.asarray(list(found), np.int64).reshape(-1, 2).T
    return first, second


def gb_flip(seed: int) -> Iterator[int]:
    """The random numbers 0..2**31-1 of the Stanford GraphBase's ``gb_flip`` (Knuth 1993).

    A subtractive generator: ``x[n] = x[n - 55] - x[n - 24]`` modulo 2**31, from a scrambled seed.
    """
    mask = 2**31 - 1
    table = [0] * 56  # 1-based
    previous = shifted = table[55] = seed & mask
    following, at = 1, 21
    while at:
        table[at] = following
        following = previous - following & mask
        shifted = (shifted >> 1) | (shifted & 1) << 30
        following = following - shifted & mask
        previous = table[at]
        at = (at + 21) % 55

    def cycle() -> None:
        for i in range(1, 56):
            table[i] = table[i] - table[i + 31 if i < 25 else i - 24] & mask

    for _ in range(5):
        cycle()
    yield from table[54:0:-1]
    while True:
        cycle()
        yield from table[55:0:-1]


def gb_uniform(draws: Iterator[int], below: int) -> int:
    """A uniform number in 0..below-1 from `gb_flip`'s draws."""
    limit = 2**31 - 2**31 % below
    return next(draw for draw in draws if draw < limit) % below

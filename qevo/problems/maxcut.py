"""Max-cut: divide the vertices of a weighted graph so that the edges between the sides weigh most.

The G-set (Helmberg and Rendl, *A spectral bundle method for semidefinite programming*, SIAM J.
Optim. 2000) was made by rudy, G. Rinaldi's generator, which draws with `gb_flip` of the Stanford
GraphBase (Knuth 1993). Its first graphs are regenerated here; the others come from files.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.moves import Changes, MoveProblem
from qevo.core.space import INT32, Space
from qevo.errors import QevoError
from qevo.problems.links import Links
from qevo.problems.text import Lines, naming

# Benlic and Hao, Breakout local search for the max-cut problem, Eng. Appl. Artif. Intell. 2013.
_FIRST_CUTS = (  # of G1 to G21
    *(11624, 11620, 11622, 11646, 11631, 2178, 2006, 2005, 2054, 2000, 564),
    *(556, 582, 3064, 3050, 3052, 3047, 992, 906, 941, 931),
)
_LATER_CUTS = (6660, 6650, 6654, 6649, 6657, 6000, 6000, 5880, 3848, 3851, 3850, 3852)  # from G43
BEST_KNOWN = {f"G{i}": cut for i, cut in enumerate(_FIRST_CUTS, 1)}
BEST_KNOWN |= {f"G{i}": cut for i, cut in enumerate(_LATER_CUTS, 43)}
_RUDY = {"G1": 8001, "G2": 8002, "G3": 8003, "G4": 8004, "G5": 8005}


@struct.dataclass
class MaxCut(MoveProblem):
    """Fitness is the weight of the cut, negated.

    A solution is int8 ``[N]``, the side 0 or 1 of each vertex. Build one with `MaxCut.of`,
    `MaxCut.read` or `MaxCut.rudy`.
    """

    space: Space
    first: jax.Array  # int32 [edges]
    second: jax.Array  # int32 [edges]
    weight: jax.Array  # int32 [edges]
    links: Links
    best_known: int | None = struct.field(pytree_node=False, default=None)  # a cut, not a fitness

    @classmethod
    def of(
        cls,
        vertices: int,
        first: Any,
        second: Any,
        weight: Any = 1,
        *,
        best_known: int | None = None,
    ) -> MaxCut:
        """From edges between vertices 0..N-1; edges between the same vertices add up.

        Raises:
          QevoError: an edge leaves the graph or joins a vertex to itself, or a cut may leave int32.
        """
        first, second = (np.asarray(ends, np.int64).reshape(-1) for ends in (first, second))
        weight = np.broadcast_to(np.asarray(weight, np.int64), first.shape)
        if vertices < 1:
            raise QevoError(f"a graph needs at least one vertex, got {vertices}")
        odd = (np.minimum(first, second) < 0) | (np.maximum(first, second) >= vertices)
        odd |= first == second
        if odd.any():
            at = int(np.argmax(odd))
            raise QevoError(
                f"edge {at} joins {first[at]} and {second[at]}; the ends of an edge are different "
                f"vertices from 0 to {vertices - 1}"
            )
        first, second, weight = merged_pairs(vertices, first, second, weight)
        if 2 * int(np.abs(weight).sum()) > INT32.max:
            raise QevoError(
                f"the weights' absolute values sum to {np.abs(weight).sum()}, changes of a cut may "
                f"leave int32: the sum must be at most {INT32.max // 2}"
            )
        links = Links.of(vertices, first, second, 2 * weight)  # as x + x' - 2 x x' is cut
        return cls(
            Space.integers(vertices, 0, 1, dtype=np.int8),
            jnp.asarray(first, jnp.int32),
            jnp.asarray(second, jnp.int32),
            jnp.asarray(weight, jnp.int32),
            links,
            best_known,
        )

    @classmethod
    def read(cls, path: str | pathlib.Path) -> MaxCut:
        """From a file of the G-set: ``vertices edges``, then ``first second weight`` for each edge.

        Vertices count from 1; a missing weight is 1. A file named after a graph of the G-set gets
        its best known cut.

        Raises:
          QevoError: the file is malformed; names the line.
        """
        lines, header, edges = Lines(path, ("#", "c", "%")), None, []
        for words in lines:
            if header is None:
                header = lines.integers(words[:2], 2, "the numbers of vertices and of edges")
                if header[0] < 1 or header[1] < 0:
                    lines.fail(f"a graph has at least 1 vertex and 0 edges, got {header}")
                continue
            edge = lines.integers(
                words if len(words) != 2 else [*words, "1"], 3, "an edge: two vertices and a weight"
            )
            if not all(1 <= end <= header[0] for end in edge[:2]) or edge[0] == edge[1]:
                lines.fail(
                    f"an edge joins two different vertices from 1 to {header[0]}, got {edge[:2]}"
                )
            if len(edges) == header[1]:
                lines.fail(f"the header promises {header[1]} edges, this is one more")
            edges.append(edge)
        if header is None:
            raise QevoError(f"{path}: expected the numbers of vertices and of edges, got no line")
        lines.ended(len(edges), header[1], "edges")
        table = np.asarray(edges, np.int64).reshape(-1, 3)
        name = pathlib.Path(path).name.split(".")[0].upper()
        known = BEST_KNOWN.get(name)
        first, second, weight = table[:, 0] - 1, table[:, 1] - 1, table[:, 2]
        with naming(path):
            return cls.of(header[0], first, second, weight, best_known=known)

    @classmethod
    def rudy(cls, name: str) -> MaxCut:
        """One of G1 to G5: 800 vertices, 19,176 random edges of weight 1 (``-rnd_graph 800 6``)."""
        if name not in _RUDY:
            raise QevoError(f"{name!r} is not regenerated here, only {', '.join(_RUDY)} are")
        first, second = random_graph(800, 19176, _RUDY[name])
        return cls.of(800, first, second, best_known=BEST_KNOWN[name])

    def cut(self, solution: jax.Array) -> jax.Array:
        """The weight int32 ``[]`` of the edges between the sides."""
        crosses = solution[self.first] != solution[self.second]
        return jnp.sum(jnp.where(crosses, self.weight, 0), dtype=jnp.int32)

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The cut, negated."""
        return -self.cut(solution)

    def moves(self, genes: jax.Array) -> Changes:
        """What a vertex's move to the other side costs: cut edges less uncut ones."""
        crosses = genes[self.first] != genes[self.second]
        loss = jnp.where(crosses, self.weight, -self.weight)
        change = jnp.zeros(self.space.size, jnp.int32)
        return Changes(change.at[self.first].add(loss).at[self.second].add(loss))

    def move(
        self, genes: jax.Array, state: Changes, position: jax.Array, value: jax.Array
    ) -> Changes:
        """An edge of the vertex that was cut is not, and the other way round."""
        return Changes(self.links.flipped(state.change, genes, position, value))


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

"""Max-cut: divide the vertices of a weighted graph so that the edges between the sides weigh most.

The G-set (Helmberg and Rendl, *A spectral bundle method for semidefinite programming*, SIAM J.
Optim. 2000) was made by rudy. Its first graphs are regenerated here; the others come from files.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.moves import Changes, MoveProblem
from qevo.core.space import INT32, Space
from qevo.errors import QevoError
from qevo.problems.graphs import check_edge, edge_ends, merged_pairs, pair_weights
from qevo.problems.integers import integer, integers
from qevo.problems.links import Links
from qevo.problems.rudy import random_graph
from qevo.problems.text import Lines, naming

# Benlic and Hao, Breakout local search for the max-cut problem, Eng. Appl. Artif. Intell. 2013.
_FIRST_CUTS = (  # of G1 to G21
    *(11624, 11620, 11622, 11646, 11631, 2178, 2006, 2005, 2054, 2000, 564),
    *(556, 582, 3064, 3050, 3052, 3047, 992, 906, 941, 931),
)
_LATER_CUTS = (6660, 6650, 6654, 6649, 6657, 6000, 6000, 5880, 3848, 3851, 3850, 3852)  # from G43
BEST_KNOWN = {f"G{i}": cut for i, cut in enumerate(_FIRST_CUTS, 1)}
BEST_KNOWN |= {f"G{i}": cut for i, cut in enumerate(_LATER_CUTS, 43)}
_PLANAR, _LATER_PLANAR = (4694, 4661, 4672, 4667), (5909, 5916, 5914, 5916)  # unions of two
_SIZES = (  # vertices and edges, in the order of BEST_KNOWN
    *[(800, 19176)] * 10,
    *[(800, 1600)] * 3,
    *[(800, edges) for edges in _PLANAR * 2],  # weights 1, then 1 and -1
    *[(1000, 9990)] * 5,
    *[(3000, 6000)] * 3,
    *[(1000, edges) for edges in _LATER_PLANAR],
)
SIZES = dict(zip(BEST_KNOWN, _SIZES, strict=True))
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
          QevoError: an edge leaves the graph or joins a vertex to itself, ends or weights are of
            another number or no integers, or a cut may leave int32.
        """
        vertices = integer("the number of vertices", vertices)
        if vertices < 1:
            raise QevoError(f"a graph needs at least one vertex, got {vertices}")
        first, second = edge_ends(vertices, first, second)
        weight = pair_weights("weights of edges", weight, first.size)
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

        Vertices count from 1; a missing weight is 1. A file named after a graph of the G-set, with
        as many vertices and edges, gets its best known cut.

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
            check_edge(lines, header[0], edge[:2])
            if len(edges) == header[1]:
                lines.fail(f"the header promises {header[1]} edges, this is one more")
            edges.append(edge)
        if header is None:
            raise QevoError(f"{path}: expected the numbers of vertices and of edges, got no line")
        lines.ended(len(edges), header[1], "edges")
        with naming(path):
            table = integers("edges", edges).reshape(-1, 3)
        name = pathlib.Path(path).name.split(".")[0].upper()
        known = BEST_KNOWN[name] if SIZES.get(name) == tuple(header) else None
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

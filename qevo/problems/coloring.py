"""Graph colouring: give vertices one of k colours so that few edges join equal ones."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.moves import Changes, MoveProblem
from qevo.core.space import Space
from qevo.errors import QevoError
from qevo.problems.graphs import check_edge, edge_ends, merged_pairs
from qevo.problems.integers import integer, integers
from qevo.problems.links import Links
from qevo.problems.text import Lines, naming


@struct.dataclass
class Coloring(MoveProblem):
    """Fitness is the number of edges whose ends have one colour; 0 is a proper colouring.

    A solution is int8 ``[N]``, the colour 0..L-1 of each vertex. Build one with `Coloring.of` or
    `Coloring.read`.
    """

    space: Space
    first: jax.Array  # int32 [edges]
    second: jax.Array  # int32 [edges]
    links: Links
    colors: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, vertices: int, first: Any, second: Any, colors: int) -> Coloring:
        """From edges between vertices 0..N-1; an edge counts once, however often it is given.

        Raises:
          QevoError: an edge leaves the graph or joins a vertex to itself, or the number of colours
            is not 2 to 127.
        """
        vertices = integer("the number of vertices", vertices)
        colors = integer("the number of colours", colors)
        if vertices < 1 or not 2 <= colors <= 127:
            raise QevoError(
                f"a colouring has at least 1 vertex and 2 to 127 colours, got {vertices}, {colors}"
            )
        first, second = edge_ends(vertices, first, second)
        first, second, _ = merged_pairs(vertices, first, second, np.ones(first.size, np.int64))
        links = Links.of(vertices, first, second, np.ones(first.size, np.int64))
        return cls(
            Space.integers(vertices, 0, colors - 1, dtype=np.int8),
            jnp.asarray(first, jnp.int32),
            jnp.asarray(second, jnp.int32),
            links,
            colors,
        )

    @classmethod
    def read(cls, path: str | pathlib.Path, colors: int) -> Coloring:
        """From a DIMACS file: ``p edge vertices edges``, then ``e first second`` for each edge.

        Vertices count from 1; lines that begin with c are comments. Many files give every edge in
        both directions, and some a wrong number of them, so that is not compared.

        Raises:
          QevoError: the file is malformed; names the line.
        """
        lines, vertices, edges = Lines(path, ("c",)), None, []
        for words in lines:
            if words[0] == "p" and vertices is None:
                if words[1:2] not in (["edge"], ["edges"], ["col"]):
                    lines.fail("expected 'p edge vertices edges'")
                vertices = lines.integers(words[2:], 2, "the numbers of vertices and of edges")[0]
            elif words[0] == "e" and vertices is not None:
                edge = lines.integers(words[1:], 2, "an edge: two vertices after 'e'")
                check_edge(lines, vertices, edge)
                edges.append(edge)
            elif words[0] not in ("n", "d", "v", "x"):  # what some generators leave behind
                lines.fail(f"expected 'p edge', once, and then 'e' lines, got {words[0]!r}")
        if vertices is None:
            raise QevoError(f"{path}: expected a line 'p edge vertices edges', got none")
        with naming(path):
            table = integers("edges", edges).reshape(-1, 2) - 1
            return cls.of(vertices, table[:, 0], table[:, 1], colors)

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The number of edges within a colour."""
        return jnp.sum(solution[self.first] == solution[self.second], dtype=jnp.int32)

    def moves(self, genes: jax.Array) -> Changes:
        """Neighbours of each colour, less those of the present one."""
        count = jnp.zeros((self.space.size, self.colors), jnp.int32)
        count = count.at[self.first, genes[self.second]].add(1)
        count = count.at[self.second, genes[self.first]].add(1)
        now = jnp.take_along_axis(count, genes[:, None].astype(jnp.int32), axis=1)
        return Changes(count - now)

    def move(
        self, genes: jax.Array, state: Changes, position: jax.Array, value: jax.Array
    ) -> Changes:
        """The neighbours have one more neighbour of the new colour and one less of the old one."""
        old, level = genes[position], jnp.arange(self.colors)
        gained = (level == value).astype(jnp.int32) - (level == old)  # [L]

        def added(colors: jax.Array) -> jax.Array:
            now = (colors == value).astype(jnp.int32) - (colors == old)
            return gained - now[..., None]

        links = self.links
        if links.dense is not None:
            change = state.change + links.dense[position].astype(jnp.int32)[:, None] * added(genes)
        else:
            assert links.neighbours is not None
            near = links.neighbours[position]
            colors = genes.at[near].get(mode="clip")
            change = state.change.at[near].add(added(colors), mode="drop")
        own = state.change[position]
        now = state.change[position, value.astype(jnp.int32)]
        return Changes(change.at[position].set(own - now))

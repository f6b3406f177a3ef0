"""What is searched for: an integer fitness over the solutions of a space."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from evosax.problems.problem import Problem as EvosaxProblem
from evosax.problems.problem import State as EvosaxState
from flax import struct

from qevo.core import blocks
from qevo.core.proposal import Share, edit
from qevo.core.rows import map_each, map_rows, sum_over_rows
from qevo.core.sharing import split
from qevo.core.space import Block, Space

Metrics = dict[str, jax.Array]  # scalars, int32


class Problem(EvosaxProblem):
    """Integer fitness of the solutions of `space`; smaller is better.

    A subclass is a `flax.struct.dataclass`: its arrays travel as arguments of the compiled
    generation, so that data stays on the device and is never baked into the program. It writes
    `fitness`; a problem whose fitness depends on a minibatch writes `batch` and `validation` too.
    """

    space: Space
    candidate_chunk: int | None = None  # candidates in memory at once; None for all of them
    batch_chunk: int | None = None  # rows of the batch at once, where fitness sums over them
    optimum: int | None = None  # smallest possible fitness, where it is known

    def batch(self, key: jax.Array) -> Any:
        """What all candidates of a generation share (a minibatch); drawn once."""
        return ()

    def fitness(self, solution: Any, batch: Any) -> jax.Array:
        """Fitness int32 ``[]`` of one decoded solution."""
        raise missing(self, "fitness(solution, batch)")

    def validation(self, solution: Any) -> tuple[jax.Array, Metrics] | None:
        """Fitness int32 ``[]`` on data that candidates are not picked on, and more for the log.

        ``None`` for a problem whose fitness is the same in every generation: there the best
        candidate ever seen is the answer.
        """
        return None

    def total(self, solution: Any, batch: Any) -> jax.Array:
        """Fitness int32 ``[]`` over a whole batch, `batch_chunk` rows at a time."""
        return sum_over_rows(
            lambda rows: int32_scalar(self.fitness(solution, rows)), batch, self.batch_chunk
        )

    def scores(
        self, context: jax.Array, share: Share, batch: Any, *, chunk: int | None
    ) -> jax.Array:
        """Fitness int32 ``[P]`` of a proposal's candidates.

        What the candidates' block cannot change is computed once for all of them, as far as
        `fitness` names it (see `qevo.core.sharing`).

        Args:
          context: int8 ``[N]``.
          share: the candidates, or a device's share of them.
          batch: what `batch` drew.
          chunk: candidates in memory at once; any number gives the same result.
        """
        if share.place is None:
            return self._scores(context, share, batch, chunk, blocks.everything(self.space))
        branches = [
            functools.partial(self._scores, chunk=chunk, block=block) for block in self.space.blocks
        ]
        return jax.lax.switch(share.place.block, branches, context, share, batch)

    def _scores(
        self, context: jax.Array, share: Share, batch: Any, chunk: int | None, block: Block
    ) -> jax.Array:
        """Fitness int32 ``[P]`` of candidates that differ within ``block``."""
        space = self.space
        channel = jnp.int32(0) if share.place is None else share.place.channel
        genes = blocks.genes_at(space, block, channel, context)
        start = blocks.decode_at(space, block, channel, genes)
        solution = jax.tree.leaves(space.decode(context))

        def fitness(varying: list[jax.Array], fixed: Any) -> jax.Array:
            solution, channel, rows = fixed
            leaves = list(solution)
            for index, part in zip(block.leaves, varying, strict=True):
                whole = block.channels is None
                leaves[index] = part if whole else self.edited(leaves[index], part, channel)
            return int32_scalar(self.fitness(jax.tree.unflatten(space.treedef, leaves), rows))

        def shared(rows: Any) -> list[jax.Array]:
            fixed = (solution, channel, rows)
            return split(fitness, start, fixed)[0](fixed)

        known = map_rows(shared, batch, self.batch_chunk)

        def one(candidate: tuple[jax.Array, jax.Array]) -> jax.Array:
            row, value = candidate
            changed = edit(genes, share.positions[row], value)
            varying = blocks.decode_at(space, block, channel, changed)

            def own(part: tuple[Any, list[jax.Array]]) -> jax.Array:
                rows, known = part
                fixed = (solution, channel, rows)
                return split(fitness, start, fixed)[1](varying, fixed, known)

            return sum_over_rows(own, (batch, known), self.rows_at_once(block))

        return map_each(one, (share.rows, share.values), chunk)

    def edited(self, leaf: jax.Array, part: jax.Array, channel: jax.Array) -> Any:
        """What stands in a solution for a leaf ``[..., C]`` with some channels replaced.

        The leaf itself, unless a subclass has a use for the difference.

        Args:
          leaf: decoded, ``[..., C]``.
          part: ``[..., c]``, what replaces channels ``channel..channel + c - 1``.
          channel: int32 ``[]``.
        """
        return jax.lax.dynamic_update_slice_in_dim(leaf, part, channel, axis=-1)

    def rows_at_once(self, block: Block) -> int | None:
        """Rows of the batch to score at once where only one block varies.

        As `batch_chunk`, unless a subclass knows that other lengths are faster.
        """
        return self.batch_chunk

    def describe(self) -> dict[str, Any]:
        """What a resumed run must share with the run that it continues (plain JSON values).

        The default holds the problem's name and a digest of every array in it.
        """
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self):
            array = np.asarray(leaf)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        return {"type": type(self).__name__, "sha256": digest.hexdigest()}

    # evosax: https://github.com/RobertTLange/evosax, version 0.3
    def init(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array
    ) -> EvosaxState:
        """State for an evosax loop."""
        return EvosaxState(counter=0)

    def eval(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array, solutions: Any, state: EvosaxState
    ) -> tuple[jax.Array, EvosaxState, dict[str, jax.Array]]:
        """Fitness int32 ``[P]`` of decoded solutions with a leading axis P."""
        batch = self.batch(key)

        def one(solution: Any) -> jax.Array:
            return self.total(solution, batch)

        fitness = map_each(one, solutions, self.candidate_chunk)
        return fitness, EvosaxState(counter=state.counter + 1), {}

    def sample(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array
    ) -> Any:
        """A decoded solution, uniform within the bounds."""
        low, high = self.space.low.astype(jnp.int32), self.space.high.astype(jnp.int32)
        genes = jax.random.randint(key, low.shape, low, high + 1, jnp.int32)
        return self.space.decode(genes.astype(jnp.int8))


def missing(subclass: Any, method: str) -> NotImplementedError:
    """The error of a subclass that leaves out a method it must write."""
    return NotImplementedError(f"{type(subclass).__name__} does not define {method}")


def int32_scalar(fitness: Any) -> jax.Array:
    """A fitness as int32 ``[]``, of an int or an int32; raises TypeError for anything else."""
    value = fitness
    if fitness is None:
        raise TypeError(
            "fitness must be one integer (and is minimised), got None: is there a return?"
        )
    if not hasattr(fitness, "dtype"):
        value = jnp.asarray(fitness, jnp.int32 if type(fitness) is int else None)
    if not jnp.issubdtype(value.dtype, jnp.integer) or value.ndim:
        raise TypeError(
            "fitness must be one integer (and is minimised), got "
            f"{value.dtype}{list(value.shape)}: scale it to a fixed-point int32, as with "
            "jnp.round(1000 * value).astype(jnp.int32); where it may be NaN or leave int32, say "
            "what that costs first (jnp.where, jnp.clip)"
        )
    if value.dtype != jnp.int32:
        raise TypeError(
            f"fitness must be int32, got {value.dtype}: compute in int32 before anything wraps, as "
            "with x.astype(jnp.int32) and jnp.sum(x, dtype=jnp.int32); a solution has the type of "
            "its bounds"
        )
    return jnp.asarray(value)


@struct.dataclass
class FunctionProblem(Problem):
    """A plain function over integers as a problem.

    Attributes:
      space: where to search.
      function: decoded solution to an integer scalar, traceable by JAX, the same for equal inputs.
    """

    space: Space
    function: Callable[[Any], Any] = struct.field(pytree_node=False)
    candidate_chunk: int | None = struct.field(pytree_node=False, default=None)
    optimum: int | None = struct.field(pytree_node=False, default=None)

    def fitness(self, solution: Any, batch: Any) -> jax.Array:
        """The function's value."""
        return int32_scalar(self.function(solution))

    def describe(self) -> dict[str, Any]:
        """Adds the function's name; its code cannot be compared."""
        name = getattr(self.function, "__qualname__", repr(type(self.function)))
        return super().describe() | {"function": name}

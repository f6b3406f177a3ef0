"""Search spaces: one int8 vector of genes that decodes to a pytree of integers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.errors import QevoError

GENE_MIN, GENE_MAX = -128, 127
INT32 = np.iinfo(np.int32)
_NUMBERS = ("start", "low", "high", "base", "step")  # the fields of a leaf that broadcast to it


class Leaf(NamedTuple):
    """One array of a solution and how its genes decode: ``base + step * gene``.

    ``start``, ``low`` and ``high`` broadcast to ``shape`` and are in gene units (int8). A quantized
    weight decodes as itself (``base=0``, ``step=1``); a bias or a multiplier starts at gene 0.
    """

    shape: Any  # of ints, or an int for one axis
    low: Any  # int8, broadcasts to shape
    high: Any  # int8, broadcasts to shape
    start: Any = 0  # int8, broadcasts to shape
    base: Any = 0  # int32, broadcasts to shape
    step: Any = 1  # int32, broadcasts to shape
    dtype: Any = np.int8


class LeafLayout(NamedTuple):
    """The static part of a leaf: where its genes lie and what they decode to."""

    name: str
    offset: int
    size: int
    shape: tuple[int, ...]
    dtype: str


class Block(NamedTuple):
    """Leaves of a space that a search may stay within, and how much of them it takes at a time."""

    leaves: tuple[int, ...]  # by their place in `Space.layout`
    channels: int | None = None  # a run of so many entries of the last axis; all of it for None


@struct.dataclass
class Space:
    """N genes within bounds, and the pytree that they decode to.

    A pytree: arrays are children, the layout is static.

    Attributes:
      start: int8 ``[N]``, the genes of the starting solution.
      low, high: int8 ``[N]``, inclusive bounds; ``low <= start <= high``.
      bases, steps: int32, one pair per leaf, ``None`` where a gene decodes as itself.
      layout: one `LeafLayout` per leaf, in the order of the genes.
      blocks: every leaf in one of them; a single block by default. A search that stays within a
        block lets a problem compute once what the block's leaves do not change, so the blocks of a
        network follow its layers. See `with_blocks`.
      treedef: structure of a decoded solution.
    """

    start: jax.Array  # int8 [N]
    low: jax.Array  # int8 [N]
    high: jax.Array  # int8 [N]
    bases: tuple[Any, ...]
    steps: tuple[Any, ...]
    layout: tuple[LeafLayout, ...] = struct.field(pytree_node=False)
    blocks: tuple[Block, ...] = struct.field(pytree_node=False)
    treedef: Any = struct.field(pytree_node=False)

    @property
    def size(self) -> int:
        """N, the number of genes."""
        return self.start.shape[0]

    def count_movable(self) -> int:
        """How many genes have a choice.

        Raises:
          QevoError: none has.
        """
        count = int(np.sum(np.asarray(self.low < self.high)))
        if not count:
            raise QevoError("no gene can move: low equals high everywhere")
        return count

    @classmethod
    def of(cls, leaves: Any) -> Space:
        """Build a space from a pytree whose leaves are `Leaf`.

        Raises:
          QevoError: a bound leaves int8, a start lies outside its bounds, or a decoded value
            leaves the leaf's dtype; the message names the leaf.
        """
        flat, treedef = jax.tree_util.tree_flatten_with_path(
            leaves, is_leaf=lambda x: isinstance(x, Leaf)
        )
        if not flat:
            raise QevoError("a space needs at least one leaf; the given pytree is empty")
        parts: dict[str, list[np.ndarray]] = {"start": [], "low": [], "high": []}
        bases, steps, layout, offset = [], [], [], 0
        for path, leaf in flat:
            name = jax.tree_util.keystr(path, simple=True, separator="/") or "genes"
            if not isinstance(leaf, Leaf):
                raise QevoError(f"{name}: every leaf of a space is a Leaf, got {type(leaf)}")
            leaf = leaf._replace(shape=tuple(np.atleast_1d(leaf.shape).tolist()))
            values = {k: _broadcast(name, k, getattr(leaf, k), leaf.shape) for k in _NUMBERS}
            _check_leaf(name, leaf, values)
            for k, part in parts.items():
                part.append(values[k].astype(np.int8).reshape(-1))
            plain = np.all(values["base"] == 0) and np.all(values["step"] == 1)
            bases.append(None if plain else jnp.asarray(leaf.base, jnp.int32))
            steps.append(None if plain else jnp.asarray(leaf.step, jnp.int32))
            size = int(np.prod(leaf.shape, dtype=np.int64))
            dtype = np.dtype(leaf.dtype).name
            layout.append(LeafLayout(name, offset, size, leaf.shape, dtype))
            offset += size
        arrays = {k: jnp.asarray(np.concatenate(v)) for k, v in parts.items()}
        return cls(
            **arrays,
            bases=tuple(bases),
            steps=tuple(steps),
            layout=tuple(layout),
            blocks=(Block(tuple(range(len(layout)))),),
            treedef=treedef,
        )

    def with_blocks(self, blocks: Sequence[tuple[Sequence[str], int | None]]) -> Space:
        """The same space in blocks.

        Args:
          blocks: names of leaves ("a/b" for ``{"a": {"b": ...}}``) and `Block.channels`.

        Raises:
          QevoError: the blocks do not hold every leaf once, or take more channels than a leaf has.
        """
        names = [part.name for part in self.layout]
        given = sorted(name for leaves, _ in blocks for name in leaves)
        if given != sorted(names):
            odd = sorted(set(given) ^ set(names)) or [n for n in names if given.count(n) > 1]
            raise QevoError(f"blocks must hold every leaf once; look at {', '.join(odd)}")
        made = []
        for leaves, channels in blocks:
            block = Block(tuple(sorted(names.index(name) for name in leaves)), channels)
            if not block.leaves:
                raise QevoError("a block needs at least one leaf")
            widths = {max(self.layout[index].shape[-1:], default=0) for index in block.leaves}
            if channels is not None and (len(widths) > 1 or not 1 <= channels <= min(widths)):
                raise QevoError(
                    f"a block takes {channels} channels at a time of {', '.join(leaves)}, whose "
                    f"last axes are {sorted(widths)}; they must be one, and long enough"
                )
            made.append(block)
        return dataclasses.replace(self, blocks=tuple(made))

    @classmethod
    def integers(
        cls,
        shape: int | tuple[int, ...],
        low: int,
        high: int,
        start: Any = None,
        *,
        dtype: Any = np.int32,
    ) -> Space:
        """A single array with the same inclusive bounds everywhere.

        Args:
          shape: of a solution.
          low, high: within int8; `between` takes others.
          start: the given array or, without one, the value nearest to 0 within the bounds.
          dtype: of a solution. Genes are int8 in any case; a function of int8 must keep its own
            products and sums from wrapping.
        """
        if start is None:
            start = min(max(0, low), high)
        return cls.of(Leaf(shape, low, high, start, dtype=dtype))

    @classmethod
    def around(cls, weights: Any, radius: int, *, low: int, high: int) -> Space:
        """Levels at most ``radius`` from the given int8 pytree, within ``low..high``."""

        def leaf(w: Any) -> Leaf:
            w = np.asarray(w, np.int64)
            near, far = np.maximum(w - radius, low), np.minimum(w + radius, high)
            return Leaf(w.shape, near, far, w)

        return cls.of(jax.tree.map(leaf, weights))

    @classmethod
    def between(cls, low: Any, high: Any, start: Any = None) -> Space:
        """A pytree of integers within inclusive bounds of its own for every entry.

        Args:
          low, high: pytrees of integers or integer arrays, of one structure; leaves broadcast.
          start: the starting solution, or ``None`` for the values nearest to 0. Its leaves' types
            are those of a solution; without it they are those of ``low``. Python's and numpy's
            default integers become int32; of int8 a function must keep its products and sums from
            wrapping.

        Raises:
          QevoError: bounds are reversed, more than 256 levels apart, or not of one structure.
        """
        given = (low, high) if start is None else (low, high, start)
        structures = [jax.tree.structure(tree) for tree in given]
        if len(set(structures)) > 1:
            raise QevoError(
                "low, high and start must be pytrees of one structure, got "
                + ", ".join(map(str, structures))
            )

        def leaf(path: Any, low: Any, high: Any, start: Any = None) -> Leaf:
            name = jax.tree_util.keystr(path, simple=True, separator="/") or "genes"
            typed = low if start is None else start
            dtype = typed.dtype if hasattr(typed, "dtype") else np.dtype(np.int32)
            if dtype == np.int64:  # numpy's own choice, which JAX does not share
                dtype = np.dtype(np.int32)
            shapes = [np.shape(part) for part in (low, high, typed)]
            try:
                shape = np.broadcast_shapes(*shapes)
            except ValueError:
                raise QevoError(
                    f"{name}: bounds and start must fit one shape, got "
                    + ", ".join(map(str, dict.fromkeys(shapes)))
                ) from None
            low, high = (_broadcast(name, w, v, shape) for w, v in (("low", low), ("high", high)))
            start = (
                np.clip(0, low, high) if start is None else _broadcast(name, "start", start, shape)
            )
            if low.min(initial=0) >= GENE_MIN and high.max(initial=0) <= GENE_MAX:
                return Leaf(shape, low, high, start, dtype=dtype)
            if np.any(high - low > GENE_MAX - GENE_MIN):
                raise QevoError(
                    f"{name}: bounds {low.min()}..{high.max()} are more than 256 levels apart; a "
                    "Leaf with a larger step reaches as far"
                )
            base = low - GENE_MIN
            return Leaf(shape, low - base, high - base, start - base, base, dtype=dtype)

        return cls.of(jax.tree_util.tree_map_with_path(leaf, *given))

    def decode(self, genes: jax.Array) -> Any:
        """Genes int8 ``[N]`` to the pytree of integers that they stand for."""
        leaves = []
        for part, base, step in zip(self.layout, self.bases, self.steps, strict=True):
            block = jax.lax.slice(genes, (part.offset,), (part.offset + part.size,))
            block = block.reshape(part.shape)
            if base is not None:
                block = base + step * block.astype(jnp.int32)
            leaves.append(block.astype(part.dtype))
        return jax.tree.unflatten(self.treedef, leaves)

    def encode(self, solution: Any) -> jax.Array:
        """The genes int8 ``[N]`` of a solution, cut to the bounds; the exact inverse of `decode`.

        An integer between two steps becomes the lower one.
        """
        parts = []
        given = (solution, self.decode(self.low), self.decode(self.high))
        leaves = map(jax.tree.leaves, given)
        for leaf, low, high, base, step in zip(*leaves, self.bases, self.steps, strict=True):
            genes = jnp.clip(jnp.asarray(leaf).reshape(low.shape), low, high)
            if base is not None:
                genes = (genes.astype(jnp.int32) - base) // step
            parts.append(genes.astype(jnp.int8).reshape(-1))
        return jnp.concatenate(parts)


def _broadcast(name: str, what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value)
    if value.dtype.kind not in "iub":
        raise QevoError(f"{name}: {what} must be integers, got dtype {value.dtype}")
    try:
        return np.broadcast_to(value.astype(np.int64), shape)
    except ValueError:
        raise QevoError(
            f"{name}: {what} has shape {value.shape}, which does not fit the leaf's {shape}"
        ) from None


def _check_leaf(name: str, leaf: Leaf, values: dict[str, np.ndarray]) -> None:
    start, low, high, base, step = (values[k] for k in _NUMBERS)
    if start.size == 0:
        raise QevoError(f"{name}: a leaf needs at least one gene, its shape is {leaf.shape}")
    if np.any(low > high):
        bad = int(np.argmax(low > high))
        raise QevoError(
            f"{name}: gene {bad} has its bounds reversed, low {low.flat[bad]} and high "
            f"{high.flat[bad]}"
        )
    if low.min() < GENE_MIN or high.max() > GENE_MAX:
        raise QevoError(
            f"{name}: gene bounds {low.min()}..{high.max()} leave int8 ({GENE_MIN}..{GENE_MAX});"
            " Space.between takes other bounds, base and step larger numbers"
        )
    if np.any(low > start) or np.any(start > high):
        bad = int(np.argmax((low > start) | (start > high)))
        raise QevoError(
            f"{name}: gene {bad} starts at {start.flat[bad]}, outside its bounds "
            f"{low.flat[bad]}..{high.flat[bad]}"
        )
    if np.any(step < 1):
        raise QevoError(f"{name}: step must be at least 1, got {step.min()}")
    farthest = np.max(step * np.maximum(np.abs(low), np.abs(high)))
    if farthest > INT32.max:
        raise QevoError(f"{name}: solutions are {farthest} from their base, which leaves int32")
    dtype = np.dtype(leaf.dtype)
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise QevoError(f"{name}: a leaf decodes to integers of at most 32 bits, not to {dtype}")
    if base.min() < INT32.min or max(base.max(), step.max()) > INT32.max:
        raise QevoError(f"{name}: base {base.min()}..{base.max()} or step {step.max()} leave int32")
    smallest, largest = (base + step * low).min(), (base + step * high).max()
    limits = np.iinfo(dtype)
    if smallest < limits.min or largest > min(limits.max, INT32.max):  # decoded by way of int32
        raise QevoError(f"{name}: decoded values {smallest}..{largest} leave {dtype.name}")

"""Parts of a space that a search stays within for a generation, so that all the rest is shared."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qevo.core.space import Block, Space


class Place(NamedTuple):
    """Where a generation searches: a block, and of its channels a run that begins here."""

    block: jax.Array  # int32 [], place in `Space.blocks`
    channel: jax.Array  # int32 []; 0 for a block that is searched as a whole


def everything(space: Space) -> Block:
    """The whole space as one block: its genes are the space's."""
    return Block(tuple(range(len(space.layout))))


def size(space: Space, block: Block) -> int:
    """M, the genes of a block at one place."""
    return sum(rows * columns for _, rows, columns in _parts(space, block))


def genes_at(space: Space, block: Block, channel: jax.Array, genes: jax.Array) -> jax.Array:
    """The entries ``[M]`` of a block at one place, out of ``[N]`` of the space."""
    parts = []
    for index, rows, columns in _parts(space, block):
        leaf = space.layout[index]
        part = genes[leaf.offset : leaf.offset + leaf.size]
        if block.channels is not None:
            part = part.reshape(rows, leaf.shape[-1])
            part = jax.lax.dynamic_slice_in_dim(part, channel, columns, axis=1)
        parts.append(part.reshape(-1))
    return jnp.concatenate(parts)


def positions_at(space: Space, block: Block, channel: jax.Array, places: jax.Array) -> jax.Array:
    """Positions in the space, int32, of places 0..M-1 in a block; N for any other."""
    positions = jnp.full(places.shape, space.size, jnp.int32)
    begin = 0
    for index, rows, columns in _parts(space, block):
        leaf, here = space.layout[index], places - begin
        if block.channels is None:
            position = leaf.offset + here
        else:
            position = leaf.offset + here // columns * leaf.shape[-1] + here % columns + channel
        end = rows * columns
        positions = jnp.where((here >= 0) & (here < end), position, positions)
        begin += end
    return positions


def draw_at(
    space: Space, place: Place, draw: Callable[[Block], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Positions in the space, and in the block at ``place``, of what ``draw`` draws there.

    Args:
      space: with blocks.
      place: in one of them.
      draw: places 0..M-1 in a block, any shape, the same for all blocks; other values are padding.
    """

    def here(block: Block) -> tuple[jax.Array, jax.Array]:
        within = draw(block)
        return positions_at(space, block, place.channel, within), within

    branches = [functools.partial(here, block) for block in space.blocks]
    return jax.lax.switch(place.block, branches)


def decode_at(space: Space, block: Block, channel: jax.Array, genes: jax.Array) -> list[jax.Array]:
    """The block's leaves, cut to its channels at one place, that genes int8 ``[M]`` stand for."""
    leaves, begin = [], 0
    for index, rows, columns in _parts(space, block):
        leaf, base, step = space.layout[index], space.bases[index], space.steps[index]
        shape = leaf.shape
        if block.channels is not None:
            shape = (*shape[:-1], columns)
            base, step = (
                None
                if a is None
                else channels_at(jnp.broadcast_to(a, leaf.shape), channel, columns)
                for a in (base, step)
            )
        end = begin + rows * columns
        part = genes[begin:end].reshape(shape)
        if base is not None and step is not None:
            part = base + step * part.astype(jnp.int32)
        leaves.append(part.astype(leaf.dtype))
        begin = end
    return leaves


def channels_at(leaf: jax.Array, channel: jax.Array, count: int) -> jax.Array:
    """``count`` channels ``[..., count]`` of ``[..., C]``."""
    return jax.lax.dynamic_slice_in_dim(leaf, channel, count, axis=-1)


def draw_place(key: jax.Array, space: Space, weights: jax.Array) -> Place:
    """A block and its channels, in proportion to the weights of their genes.

    Args:
      key: PRNG key.
      space: with blocks.
      weights: int32 ``[N]``, non-negative, with a sum below 2**31.
    """
    places: list[tuple[int, int]] = []
    sums: list[jax.Array] = []
    for number, block in enumerate(space.blocks):
        firsts = _runs(space, block)
        places += [(number, first) for first in firsts]
        first = np.asarray(firsts)
        total = jnp.zeros(len(firsts), jnp.uint32)
        for index, _, width in _parts(space, block):
            leaf = space.layout[index]
            part = weights[leaf.offset : leaf.offset + leaf.size].astype(jnp.uint32)
            columns = 1 if block.channels is None else leaf.shape[-1]
            by_column = part.reshape(-1, columns).sum(0, dtype=jnp.uint32)
            before = jnp.pad(jnp.cumsum(by_column), (1, 0))
            last = first + (1 if block.channels is None else width)
            total += before[last] - before[first]
        sums.append(total)
    ends = jnp.cumsum(jnp.concatenate(sums))
    draw = jax.random.bits(key, (), jnp.uint32) % jnp.maximum(ends[-1], 1)
    drawn = jnp.minimum(jnp.sum(ends <= draw, dtype=jnp.int32), len(places) - 1)
    return Place(*jnp.asarray(places, jnp.int32)[drawn])


def _runs(space: Space, block: Block) -> list[int]:
    """The first channel of each run; the last run may overlap the one before."""
    if block.channels is None:
        return [0]
    channels = space.layout[block.leaves[0]].shape[-1]
    last = channels - block.channels
    return [*range(0, last, block.channels), last]


def _parts(space: Space, block: Block) -> list[tuple[int, int, int]]:
    """Each leaf of a block: its place in the layout, and its rows and columns at one place."""
    parts = []
    for index in block.leaves:
        leaf = space.layout[index]
        if block.channels is None:
            parts.append((index, 1, leaf.size))
        else:
            parts.append((index, leaf.size // leaf.shape[-1], block.channels))
    return parts

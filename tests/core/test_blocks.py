"""Blocks of a space: genes, positions and leaves at a place, against numpy indexing."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import genes_of

from qevo.core import Leaf, Space, blocks
from qevo.core.space import Block
from qevo.errors import QevoError

SHAPES = [(), (4,), (3, 2)]  # few, because every new shape is compiled
WIDE = [(5,), (2, 5), (2, 3, 5)]  # leaves of as many channels


@st.composite
def leaves(draw: st.DrawFn, shapes: list[tuple[int, ...]]) -> Leaf:
    """A leaf that decodes as itself, or by numbers for all, for a channel or for every entry."""
    shape = draw(st.sampled_from(shapes))
    number = st.integers(1, 2**16)
    kind = draw(st.sampled_from(["plain", "one", "channel", "entry"]))
    if kind == "plain":
        return Leaf(shape, -128, 127)
    over = {"one": (), "channel": shape[-1:], "entry": shape}[kind]
    seed = draw(st.integers(0, 9))
    base, step = np.random.RandomState(seed).randint(1, 1 << 20, (2, *over))
    return Leaf(shape, -128, 127, 0, base, draw(number) if seed % 2 else step, np.int32)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Leaves in blocks of one to three, some of them searched by channels, in any order."""
    tree: dict[str, Leaf] = {}
    made = []
    for number in range(draw(st.integers(1, 3))):
        channels = draw(st.sampled_from([None, 1, 2, 5]))
        shapes = SHAPES + WIDE if channels is None else WIDE
        names = [
            f"{draw(st.sampled_from('xyz'))}{number}{i}" for i in range(draw(st.integers(1, 3)))
        ]
        tree |= {name: draw(leaves(shapes)) for name in names}
        made.append((draw(st.permutations(names)), channels))
    return Space.of(tree).with_blocks(draw(st.permutations(made)))


@settings(max_examples=20)
@given(spaces(), st.integers(0, 4), st.integers(0, 9))
def test_a_block_at_a_place_is_what_numpy_cuts_out(space: Space, first: int, seed: int) -> None:
    genes = np.random.RandomState(seed).randint(-128, 128, space.size).astype(np.int8)
    channels = [min(first, 5 - (block.channels or 5)) for block in space.blocks]
    tables = [genes_of(space, *at) for at in zip(space.blocks, channels, strict=True)]
    places = [np.arange(-2, len(expected) + 2) for expected in tables]
    assert [blocks.size(space, block) for block in space.blocks] == list(map(len, tables))

    def cut(channels: Any, places: Any) -> Any:
        made = []
        for block, channel, asked in zip(space.blocks, channels, places, strict=True):
            mine = blocks.genes_at(space, block, channel, jnp.asarray(genes))
            positions = blocks.positions_at(space, block, channel, asked)
            made.append((mine, positions, blocks.decode_at(space, block, channel, mine)))
        return made, jax.tree.leaves(space.decode(jnp.asarray(genes)))

    found, solution = jax.jit(cut)(channels, places)
    covered = []
    for at, block in enumerate(space.blocks):
        mine, positions, decoded = found[at]
        assert (mine.dtype, positions.dtype) == (jnp.int8, jnp.int32)
        np.testing.assert_array_equal(mine, genes[tables[at]])
        padded = np.pad(tables[at], 2, constant_values=space.size)
        np.testing.assert_array_equal(positions, padded)
        for index, leaf in zip(block.leaves, decoded, strict=True):
            whole = np.asarray(solution[index])
            assert leaf.dtype == whole.dtype
            if block.channels is not None:
                whole = whole[..., channels[at] : channels[at] + block.channels]
            np.testing.assert_array_equal(leaf, whole)
            covered.append(index)
    assert sorted(covered) == list(range(len(space.layout)))


def test_without_blocks_of_its_own_a_space_is_one() -> None:
    space = Space.of({"a": Leaf((2, 3), 0, 1), "b": Leaf((), 0, 1)})
    assert space.blocks == (blocks.everything(space),)
    assert blocks.size(space, space.blocks[0]) == space.size


def test_blocks_change_nothing_else() -> None:
    space = Space.of({"b": Leaf((2, 3), 0, 1), "a": Leaf((3,), 0, 4, base=7, dtype=np.int16)})
    cut = space.with_blocks([(["b", "a"], 2)])
    assert cut.blocks == (Block((0, 1), 2),)
    assert cut.layout == space.layout
    for one, other in zip(
        cut.decode(cut.start).items(), space.decode(cut.start).items(), strict=True
    ):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ([(["a", "b"], None)], "blocks must hold every leaf once; look at c/d"),
        ([(["a", "b"], None), (["c/d", "e"], None)], "every leaf once; look at e"),
        ([(["a", "b", "c/d"], None), (["a"], None)], "every leaf once; look at a"),
        ([(["a", "a", "b", "c/d"], None)], "every leaf once; look at a"),
        ([], "every leaf once; look at a, b, c/d"),
        ([(["a", "b", "c/d"], None), ([], None)], "a block needs at least one leaf"),
        ([(["a", "b", "c/d"], None), ([], 2)], "a block needs at least one leaf"),
        ([(["a"], 0), (["b", "c/d"], None)], "a block takes 0 channels at a time of a, whose"),
        ([(["a"], 4), (["b", "c/d"], None)], "takes 4 channels at a time of a, whose last axes"),
        ([(["a"], -1), (["b", "c/d"], None)], "takes -1 channels at a time of a, whose last axes"),
        ([(["b", "a"], 2), (["c/d"], None)], "takes 2 channels at a time of b, a, whose last axes"),
        ([(["a", "b"], None), (["c/d"], 1)], "takes 1 channels at a time of c/d, whose last axes"),
    ],
)
def test_blocks_that_cannot_be(given_: Any, message: str) -> None:
    space = Space.of({"a": Leaf((2, 3), 0, 1), "b": Leaf((4,), 0, 1), "c": {"d": Leaf((), 0, 1)}})
    with pytest.raises(QevoError, match=re.escape(message)):
        space.with_blocks(given_)

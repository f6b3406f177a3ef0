"""Spaces: decoding and its inverse against numpy, and every message at the border."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qevo.core import FunctionProblem, Leaf, Space
from qevo.errors import QevoError

SHAPES = [(), (3,), (2, 2), (1, 3)]  # few, because every new shape is compiled


def arrays(shape: tuple[int, ...], low: int, high: int) -> st.SearchStrategy[np.ndarray]:
    size = int(np.prod(shape))
    numbers = st.lists(st.integers(low, high), min_size=size, max_size=size)
    return numbers.map(lambda values: np.array(values, np.int64).reshape(shape))


@st.composite
def leaves(draw: st.DrawFn) -> Leaf:
    shape = draw(st.sampled_from(SHAPES))
    three = np.sort([draw(arrays(shape, -128, 127)) for _ in range(3)], axis=0)
    if draw(st.booleans()):
        return Leaf(shape, three[0], three[2], three[1])
    base, step = draw(arrays(shape, -(2**20), 2**20)), draw(arrays(shape, 1, 2**16))
    return Leaf(shape, three[0], three[2], three[1], base, step, np.int32)


@settings(max_examples=40)
@given(st.lists(leaves(), min_size=1, max_size=3), st.data())
def test_decode_is_base_plus_step_times_gene_and_encode_its_inverse(
    parts: list[Leaf], data: st.DataObject
) -> None:
    space = Space.of({f"leaf{i}": leaf for i, leaf in enumerate(parts)})
    assert space.size == sum(int(np.prod(leaf.shape)) for leaf in parts)
    low, high = np.asarray(space.low, np.int64), np.asarray(space.high, np.int64)
    share = data.draw(arrays((space.size,), 0, 1000))
    genes = low + (high - low) * share // 1000

    solution = space.decode(jnp.asarray(genes, jnp.int8))
    offset = 0
    for i, leaf in enumerate(parts):
        size = int(np.prod(leaf.shape))
        block = genes[offset : offset + size].reshape(leaf.shape)
        decoded = solution[f"leaf{i}"]
        assert decoded.dtype == leaf.dtype
        assert decoded.shape == leaf.shape
        np.testing.assert_array_equal(decoded, leaf.base + leaf.step * block)
        offset += size
    np.testing.assert_array_equal(space.encode(solution), genes)


@given(leaves())
def test_start_and_bounds_are_kept_in_the_order_of_the_genes(leaf: Leaf) -> None:
    space = Space.of(leaf)
    for mine, given_ in ((space.start, leaf.start), (space.low, leaf.low), (space.high, leaf.high)):
        assert mine.dtype == jnp.int8
        np.testing.assert_array_equal(mine, np.ravel(given_))


def test_fields_of_a_leaf_broadcast() -> None:
    space = Space.of(Leaf((2, 3), [[-1], [-2]], 5, [0, 1, 2], base=[10, 20, 30], dtype=np.int16))
    np.testing.assert_array_equal(space.low, [-1, -1, -1, -2, -2, -2])
    np.testing.assert_array_equal(space.decode(space.start), [[10, 21, 32]] * 2)


def test_a_space_is_a_pytree_that_keeps_its_layout() -> None:
    space = Space.of({"a": Leaf((2,), 0, 1), "b": Leaf((3,), -5, 5, base=100, dtype=np.int32)})
    again = jax.tree.map(lambda x: x, space)
    assert again.layout == space.layout
    assert [(part.name, part.offset, part.size) for part in space.layout] == [
        ("a", 0, 2),
        ("b", 2, 3),
    ]
    decoded = jax.jit(lambda space, genes: space.decode(genes))(space, space.start)
    assert jax.tree.map(lambda x: x.dtype, decoded) == {"a": jnp.int8, "b": jnp.int32}


@pytest.mark.parametrize(("low", "high", "start"), [(0, 1, 0), (3, 5, 3), (-9, -4, -4), (-2, 2, 0)])
def test_integers_start_nearest_to_zero(low: int, high: int, start: int) -> None:
    space = Space.integers((2, 2), low, high)
    np.testing.assert_array_equal(space.decode(space.start), np.full((2, 2), start))


@pytest.mark.parametrize("shape", [5, np.int64(5), (5,), [5]])
def test_a_shape_of_one_axis_may_be_an_int(shape: Any) -> None:
    for space in (Space.of(Leaf(shape, 0, 1)), Space.integers(shape, 0, 1)):
        assert space.layout[0].shape == (5,)
    assert Space.of(Leaf((), 0, 1)).layout[0].shape == ()


def test_around_stays_within_the_radius_and_the_bounds() -> None:
    weights = {"a": np.array([-1, 0, 1], np.int8), "b": np.array([[3]], np.int8)}
    space = Space.around(weights, 1, low=-1, high=3)
    np.testing.assert_array_equal(space.low, [-1, -1, 0, 2])
    np.testing.assert_array_equal(space.high, [0, 1, 2, 3])
    for name, array in space.decode(space.start).items():
        np.testing.assert_array_equal(array, weights[name])


def test_samples_reach_the_bounds_and_no_further() -> None:
    space = Space.of(Leaf((3,), [-128, 0, 5], [127, 1, 5], [0, 0, 5], base=7, dtype=np.int32))
    problem = FunctionProblem(space, lambda x: jnp.sum(x))
    drawn = jax.vmap(problem.sample)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_array_equal(jnp.min(drawn, 0), [-121, 7, 12])
    np.testing.assert_array_equal(jnp.max(drawn, 0), [134, 8, 12])


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (3, "w: every leaf of a space is a Leaf, got <class 'int'>"),
        (Leaf((0,), 0, 1), "w: a leaf needs at least one gene, its shape is (0,)"),
        (Leaf((2,), 0.5, 1), "w: low must be integers, got dtype float64"),
        (Leaf((2,), 0, [1, 2, 3]), "w: high has shape (3,), which does not fit the leaf's (2,)"),
        (Leaf((2,), -129, 1), "w: gene bounds -129..1 leave int8 (-128..127); Space.between"),
        (Leaf((2,), 0, 128), "w: gene bounds 0..128 leave int8"),
        (Leaf((2,), 0, 3, [1, 4]), "w: gene 1 starts at 4, outside its bounds 0..3"),
        (Leaf((2,), 0, 3, -1), "w: gene 0 starts at -1, outside its bounds 0..3"),
        (Leaf((2,), 5, 3, 4), "w: gene 0 has its bounds reversed, low 5 and high 3"),
        (Leaf((2,), 0, 3, step=0), "w: step must be at least 1, got 0"),
        (Leaf((2,), 0, 3, step=1.5), "w: step must be integers, got dtype float64"),
        (Leaf((2,), 0, 3, base=[[1, 2]] * 3), "w: base has shape (3, 2), which does not fit"),
        (
            Leaf((1,), 0, 127, 0, base=-(2**31), step=2**25, dtype=np.int32),
            "w: solutions are 4261412864 from their base, which leaves int32",
        ),
        (Leaf((2,), 0, 3, base=200), "w: decoded values 200..203 leave int8"),
        (Leaf((2,), -1, 3, base=0, dtype=np.uint8), "w: decoded values -1..3 leave uint8"),
        (
            Leaf((2,), 0, 3, base=2**31 - 2, dtype=np.uint32),
            "w: decoded values 2147483646..2147483649 leave uint32",
        ),
        (
            Leaf((2,), -3, -1, -1, base=2**31, dtype=np.int32),
            "w: base 2147483648..2147483648 or step 1 leave int32",
        ),
        (Leaf((2,), 0, 1, dtype=np.float32), "integers of at most 32 bits, not to float32"),
        (Leaf((2,), 0, 1, dtype=np.int64), "integers of at most 32 bits, not to int64"),
    ],
)
def test_what_cannot_be_a_leaf_is_named(leaf: Any, message: str) -> None:
    with pytest.raises(QevoError, match=re.escape(message)):
        Space.of({"w": leaf})


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(QevoError, match="needs at least one leaf"):
        Space.of({})


def test_a_leaf_deep_in_a_tree_is_named_by_its_path() -> None:
    with pytest.raises(QevoError, match="dense_0/bias: step"):
        Space.of({"dense_0": {"kernel": Leaf((2,), 0, 1), "bias": Leaf((2,), 0, 1, step=-1)}})


def test_between_gives_the_pytree_back() -> None:
    low = {"a": np.zeros((2, 3), int), "b": (1000, np.int16(-40))}
    high = {"a": 9, "b": (1255, np.array([5, -40]))}
    space = Space.between(low, high)
    start = space.decode(space.start)
    assert jax.tree.structure(start) == jax.tree.structure(low)
    assert start["a"].dtype == start["b"][0].dtype == jnp.int32
    assert (start["b"][1].dtype, start["b"][1].shape) == (jnp.int16, (2,))
    np.testing.assert_array_equal(start["b"][1], [0, -40])  # as near to 0 as may be
    assert int(start["b"][0]) == 1000
    for genes, bound in ((space.low, low), (space.high, high)):
        expected = jax.tree.map(lambda b, leaf: np.broadcast_to(b, leaf.shape), bound, start)
        found = space.decode(genes)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))
    given_start = {"a": np.full((2, 3), 4, np.int8), "b": (1100, -40)}
    space = Space.between(low, high, given_start)
    assert space.decode(space.start)["a"].dtype == jnp.int8
    assert int(space.decode(space.start)["b"][0]) == 1100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Space.integers(5, 3, 1),
            "genes: gene 0 has its bounds reversed, low 3 and high 1",
        ),
        (lambda: Space.between([0, 0], [1, -1]), "1: gene 0 has its bounds reversed"),
        (lambda: Space.between(1000, 900), "genes: gene 0 has its bounds reversed"),
        (lambda: Space.between({"a": 0}, {"a": 256}), "a: bounds 0..256 are more than 256 levels"),
        (lambda: Space.between({"a": 0}, {"b": 1}), "must be pytrees of one structure"),
        (lambda: Space.between(0.5, 1), "genes: low must be integers, got dtype float64"),
        (lambda: Space.between(0, 9, 10), "starts at 10, outside its bounds 0..9"),
    ],
)
def test_bounds_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(QevoError, match=message):
        make()

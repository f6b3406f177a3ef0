"""A function cut in two: the same values, and nothing is computed twice that was kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxprs_in_params

from qevo.core.sharing import split

DRAW = np.random.RandomState(0)
CONSTANT = DRAW.randint(-9, 9, (4, 4))


def integers(*shape: int) -> jax.Array:
    return jnp.asarray(DRAW.randint(-9, 9, shape), jnp.int32)


def keep(x: jax.Array) -> jax.Array:
    return checkpoint_name(x, "kept")


class Case(NamedTuple):
    """A function, its inputs, and what is left of its work."""

    function: Any
    varying: Any
    fixed: Any
    kept: list[tuple[int, ...]]  # shapes
    products: int  # left to do for each candidate


def plain(v: Any, f: Any) -> Any:
    return keep(f @ f) @ v


def chain(v: Any, f: Any) -> Any:
    """Of two names in a row the last one counts."""
    return keep(keep(f @ f) @ f) @ v


def fork(v: Any, f: Any) -> Any:
    """A shortcut reaches around the second name, so both count."""
    x = keep(f @ f)
    return keep(x @ f) @ v + x


def unnamed(v: Any, f: Any) -> Any:
    """What has no name is computed again, from the last name before it."""
    return (keep(f @ f) @ f) @ v


def after(v: Any, f: Any) -> Any:
    """A name on what varies is none of a shared value."""
    return keep(keep(f @ f) @ v) @ f


def unused(v: Any, f: Any) -> Any:
    keep(f @ f @ f)
    return f @ v


def tree(v: Any, f: Any) -> Any:
    known = keep(f["a"] @ f["b"][0])
    return {"x": known @ v[0], "y": [v[1][0] + f["b"][1], known]}


def plain_outputs(v: Any, f: Any) -> Any:
    """Literals and inputs come out as they are."""
    return 3, jnp.int32(-4), v, f, keep(f @ f)


def jitted(v: Any, f: Any) -> Any:
    """A product in nested jitted functions, under a name outside of them."""
    product = jax.jit(lambda a, b: jax.jit(jnp.matmul)(a, b) + 1)
    return product(keep(product(f, f)), v)


def jitted_name(v: Any, f: Any) -> Any:
    """A name within a jitted function is not seen."""
    return jax.jit(lambda a: keep(a @ a))(f) @ v


def mixed_jit(v: Any, f: Any) -> Any:
    """A jitted function of both inputs varies as a whole."""
    return jax.jit(lambda a, b: keep(b @ b) @ a)(v, f)


def scanned(v: Any, f: Any) -> Any:
    last, doubled = jax.lax.scan(lambda carry, row: (carry @ f, row * 2), f, f)
    sums = jax.lax.scan(lambda carry, row: (carry @ v, carry[0] + row), keep(last), keep(doubled))
    return sums[1]


def branches(v: Any, f: Any) -> Any:
    known = keep(jax.lax.cond(f[0, 0] > 0, lambda: f @ f, lambda: f))
    return jax.lax.switch(v[0, 0] % 2, [lambda: known, lambda: known @ v])


def constants(v: Any, f: Any) -> Any:
    return keep(f @ CONSTANT) @ v + jnp.asarray(CONSTANT)


def nothing_varies(v: Any, f: Any) -> Any:
    return keep(f @ f)


def rows(v: Any, f: Any) -> Any:
    """Integers of several widths, as in a network."""
    wide = jax.lax.dot_general(f, f, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)
    known = keep((keep(wide) >> 3).clip(-7, 7).astype(jnp.int8))
    return jnp.sum(known * v, dtype=jnp.int32)


square = (4, 4)
CASES = {
    "plain": Case(plain, integers(4, 4), integers(4, 4), [square], 1),
    "chain": Case(chain, integers(4, 4), integers(4, 4), [square], 1),
    "fork": Case(fork, integers(4, 4), integers(4, 4), [square, square], 1),
    "unnamed": Case(unnamed, integers(4, 4), integers(4, 4), [square], 2),
    "after": Case(after, integers(4, 4), integers(4, 4), [square], 2),
    "unused": Case(unused, integers(4, 3), integers(4, 4), [], 1),
    "tree": Case(
        tree,
        (integers(5, 2), [integers(3)]),
        {"a": integers(6, 3), "b": [integers(3, 5), integers(3)]},
        [(6, 5)],
        1,
    ),
    "outputs": Case(plain_outputs, {"a": integers(2)}, integers(4, 4), [square], 0),
    "jitted": Case(jitted, integers(4, 4), integers(4, 4), [square], 1),
    "name in jit": Case(jitted_name, integers(4, 4), integers(4, 4), [], 2),
    "mixed jit": Case(mixed_jit, integers(4, 4), integers(4, 4), [], 2),
    "scan": Case(scanned, integers(4, 4), integers(4, 4), [square, square], 1),
    "branches": Case(branches, integers(4, 4), integers(4, 4), [square], 1),
    "constants": Case(constants, integers(4, 4), integers(4, 4), [square], 1),
    "nothing varies": Case(nothing_varies, integers(4, 4), integers(4, 4), [square], 0),
    "no varying": Case(nothing_varies, (), integers(4, 4), [square], 0),
    "all varies": Case(lambda v, f: keep(v @ v) @ v, integers(4, 4), (), [], 2),
    "int8": Case(
        rows, integers(4, 4).astype(jnp.int8), integers(4, 4).astype(jnp.int8), [square], 0
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.asarray(one).dtype == jnp.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


def products(jaxpr: Any) -> int:
    """How many matrix products a jaxpr holds, at any depth."""
    count = 0
    for eqn in jaxpr.eqns:
        count += eqn.primitive.name == "dot_general"
        count += sum(map(products, jaxprs_in_params(eqn.params)))
    return count


def changed(varying: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf + 1, varying)


def test_two_parts_make_the_whole(case: Case) -> None:
    shared, own = split(case.function, case.varying, case.fixed)
    kept = jax.jit(shared)(case.fixed)
    assert [a.shape for a in kept] == case.kept
    for varying in (case.varying, changed(case.varying)):
        expected = case.function(varying, case.fixed)
        same(jax.jit(own)(varying, case.fixed, kept), expected)


def test_kept_values_are_not_computed_again(case: Case) -> None:
    shared, own = split(case.function, case.varying, case.fixed)
    kept = jax.eval_shape(shared, case.fixed)
    assert products(jax.make_jaxpr(own)(case.varying, case.fixed, kept).jaxpr) == case.products
    # What is kept does arrive: other values give other results.
    if kept and case.function is not plain_outputs:
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), kept)
        found = own(case.varying, case.fixed, zeros)
        expected = case.function(case.varying, case.fixed)
        equal = jax.tree.map(np.array_equal, found, expected)
        assert not jax.tree.all(equal)


def test_kept_values_are_the_named_ones() -> None:
    v, f = CASES["fork"].varying, CASES["fork"].fixed
    kept = split(fork, v, f)[0](f)
    wanted = {np.asarray(x).tobytes() for x in (f @ f, f @ f @ f)}
    assert {np.asarray(x).tobytes() for x in kept} == wanted
    (kept,) = split(chain, v, f)[0](f)
    np.testing.assert_array_equal(kept, f @ f @ f)


def test_shapes_are_enough_to_split() -> None:
    case = CASES["tree"]
    shapes = jax.eval_shape(lambda *a: a, case.varying, case.fixed)
    shared, own = split(case.function, *shapes)
    found = own(case.varying, case.fixed, shared(case.fixed))
    same(found, case.function(case.varying, case.fixed))


def test_within_other_transformations() -> None:
    """Tracers of a jit, a scan and a vmap are closed over; each part is split on its own."""
    varying, fixed, closed = integers(3, 4, 4), integers(4, 4), integers(2, 4, 4)

    def function(v: Any, f: Any, outer: Any) -> Any:
        return keep(f @ outer) @ v + outer

    @jax.jit
    def run(varying: Any, fixed: Any, closed: Any) -> Any:
        def each(_: None, outer: jax.Array) -> Any:
            def parts() -> Any:
                return split(lambda v, f: function(v, f, outer), varying[0], fixed)

            kept = parts()[0](fixed)
            assert len(kept) == 1
            return None, jax.vmap(lambda v: parts()[1](v, fixed, kept))(varying)

        return jax.lax.scan(each, None, closed)[1]

    # In each round one product that all share, and one over all candidates at once.
    assert products(jax.make_jaxpr(run)(varying, fixed, closed).jaxpr) == 2
    expected = [[function(v, fixed, outer) for v in varying] for outer in closed]
    np.testing.assert_array_equal(run(varying, fixed, closed), expected)


def test_kept_rows_serve_runs_of_other_lengths() -> None:
    """Values kept of all rows, split for some of them: names come in the same order."""
    v, f = integers(4, 4), integers(6, 4)

    def function(v: Any, rows: Any) -> Any:
        first = keep(rows @ CONSTANT)
        second = keep(jnp.abs(first) @ CONSTANT)
        return (second @ v + first) @ v + second

    whole = split(function, v, f)[0](f)
    assert len(whole) == 2
    for part in (slice(0, 4), slice(4, 6)):
        own = split(function, v, f[part])[1]
        found = own(v, f[part], [kept[part] for kept in whole])
        np.testing.assert_array_equal(found, function(v, f)[part])

"""Floats planted at every depth are found, and nothing else is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from jax.sharding import PartitionSpec

from qevo.integer import audit, conv, dot, requantize

X = jnp.arange(8, dtype=jnp.int32)
TABLE = np.linspace(0, 1, 8, dtype=np.float32)


def leak(x):
    """An integer function with a float inside."""
    return (x * 0.5).astype(jnp.int32)


def clean(x):
    return (x * 3 + 1) >> 1


def in_scan(inner):
    return lambda x: jax.lax.scan(lambda carry, y: (inner(carry), y), x, X)


def in_while(inner):
    return lambda x: jax.lax.while_loop(lambda y: y[0] < 9, lambda y: inner(y) + 1, x)


def in_while_condition(inner):
    return lambda x: jax.lax.while_loop(lambda y: inner(y)[0] < 9, lambda y: y + 1, x)


def in_cond(inner):
    return lambda x: jax.lax.cond(x[0] > 0, inner, lambda y: y, x)


def in_switch(inner):
    return lambda x: jax.lax.switch(x[0], [lambda y: y, clean, inner], x)


def in_vmap(inner):
    return jax.vmap(inner)


def in_jit(inner):
    return jax.jit(lambda x: jax.jit(lambda y: inner(y))(x))


def in_remat(inner):
    return jax.checkpoint(lambda x: inner(x))


def in_map(inner):
    return lambda x: jax.lax.map(inner, x)


def in_shard_map(inner):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((1,), ("population",), auto, devices=jax.devices()[:1])
    spec = PartitionSpec("population")
    return jax.shard_map(lambda x: inner(x), mesh=mesh, in_specs=spec, out_specs=spec)


def in_custom_vjp(inner):
    function = jax.custom_vjp(lambda x: inner(x))
    function.defvjp(lambda x: (x, None), lambda _, g: (g,))
    return function


def in_custom_jvp(inner):
    function = jax.custom_jvp(lambda x: inner(x))
    function.defjvp(lambda x, dx: (x, dx))
    return function


def in_reduction(inner):
    return lambda x: jax.lax.reduce(x, np.int32(0), lambda a, b: inner(a) + b, (0,))


def deep(inner):
    return in_scan(in_cond(in_while(in_vmap(in_jit(inner)))))


NESTS = [
    in_scan, in_while, in_while_condition, in_cond, in_switch, in_vmap, in_jit, in_remat, in_map,
    in_shard_map, in_custom_vjp, in_custom_jvp, in_reduction, deep,
]  # fmt: skip


@pytest.mark.parametrize("nest", NESTS)
def test_a_float_is_found_at_its_line(nest):
    report = audit(nest(leak), X)
    assert not report.ok
    line = leak.__code__.co_firstlineno + 2
    found = [f for f in report.floats if f.dtype == "float32"]
    assert found == list(report.floats)
    assert all(f"test_audit.py:{line}" in f.where for f in found)
    assert {"convert_element_type", "mul"} <= {f.what for f in found}
    assert f"test_audit.py:{line}" in str(report)


@pytest.mark.parametrize("nest", NESTS)
def test_integers_pass(nest):
    report = audit(nest(clean), X)
    assert report.integer_only, report
    assert report.values > 0
    assert str(report).startswith("integers only: no floating-point value")


@pytest.mark.parametrize(
    "dtype",
    [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.complex64],
)
def test_every_float_format_counts(dtype):
    (first, *_) = audit(lambda x: x.astype(dtype), X).floats
    assert (first.what, first.dtype) == ("convert_element_type", jnp.dtype(dtype).name)


def test_closed_over_constants_count():
    table = jnp.asarray(TABLE)
    for fn in (lambda: table, lambda: jax.jit(lambda: table)(), lambda: jnp.asarray(TABLE)):
        assert not audit(fn).ok
    used = audit(lambda x: (x < table).astype(jnp.int32), X)
    assert not used.ok


def test_inputs_count_by_name():
    report = audit(lambda weights, labels: labels, {"dense": jnp.ones((2, 3))}, X)
    (finding,) = report.floats
    assert finding.what == "input"
    assert finding.shape == (2, 3)
    assert "dense" in finding.where


def test_literals_count():
    assert [f.what for f in audit(lambda: 1.5).floats] == ["literal"]
    branches = audit(lambda x: jax.lax.cond(x[0] > 0, lambda: 1.5, lambda: 2.5), X)
    assert {f.what for f in branches.floats} == {"literal"}
    assert not audit(lambda x: x < 0.5, X).ok


def test_hidden_conversions_are_found():
    assert not audit(jnp.mean, X).ok
    assert not audit(lambda x: jnp.round(x / 2).astype(jnp.int32), X).ok
    assert not audit(lambda key: jax.random.uniform(key) < 0.5, jax.random.key(0)).ok


def test_integer_randomness_passes():
    def draw(key):
        first, second = jax.random.split(key)
        return jax.random.bits(first, (4,), jnp.uint8), jax.random.randint(second, (4,), 0, 9)

    assert audit(draw, jax.random.key(0)).integer_only


@pytest.mark.parametrize(
    "hidden",
    [
        lambda x: jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((8,), jnp.int32), x),
        lambda x: io_callback(lambda y: y, jax.ShapeDtypeStruct((8,), jnp.int32), x),
        lambda x: jax.debug.callback(lambda y: None, x),
        lambda x: jax.debug.print("{}", x),
        lambda x: jax.ffi.ffi_call("anything", jax.ShapeDtypeStruct((8,), jnp.int32))(x),
    ],
)
def test_what_runs_elsewhere_is_unverified(hidden):
    report = audit(lambda x: jax.lax.cond(x[0] > 0, lambda: (hidden(x), x)[1], lambda: x), X)
    assert not report.ok
    assert not report.floats
    assert len(report.unverified) == 1
    assert "unverified" in str(report)


def test_exact_products_are_listed_apart():
    x, w = jnp.zeros((4, 5, 5, 2), jnp.int8), jnp.zeros((3, 3, 2, 6), jnp.int8)

    def network(x, w, head):
        acc = conv(x, w, padding="SAME", path="float32", bound=290322)
        hidden = requantize(acc, 3, 12, low=0).reshape(4, -1)
        return dot(hidden, head, path="bfloat16", bound=2419350)

    report = audit(jax.jit(network), x, w, jnp.zeros((150, 3), jnp.int8))
    assert report.ok
    assert not report.integer_only
    assert {(p.dtype, p.bound) for p in report.exact_products} == {
        ("float32", 290322),
        ("bfloat16", 2419350),
    }
    assert all("test_audit.py" in p.where for p in report.exact_products)
    assert str(report).startswith("exact: no floating-point value outside proved-exact products")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("exact_float32_product_bound_16777216", lambda x, w: x @ w),
        ("exact_float32_product_bound_100", lambda x, w: x @ w),  # default precision
        ("exact_bfloat16_product_bound_100", lambda x, w: jnp.matmul(x, w)),
        ("exact_float32_product_bound_100", lambda x, w: jnp.dot(x, w, precision="highest") * 0.5),
        ("exact_float32_product_bound_100", lambda x, w: jnp.dot(x, w, precision="highest") @ w),
        ("exact_float32_product_bound_100", lambda x, w: x + w),
    ],
)
def test_an_impostor_is_no_exact_product(name, body):
    def exact(x, w):
        dtype = jnp.bfloat16 if "bfloat16" in name else jnp.float32
        return body(x.astype(dtype), w.astype(dtype)).astype(jnp.int32)

    exact.__name__ = exact.__qualname__ = name
    report = audit(jax.jit(exact), jnp.zeros((3, 3), jnp.int8), jnp.zeros((3, 3), jnp.int8))
    assert not report.ok
    assert not report.exact_products


def test_shapes_without_values_will_do():
    shape = jax.ShapeDtypeStruct((4, 3), jnp.int32)
    assert audit(functools.partial(jnp.sum, axis=0, dtype=jnp.int32), shape).ok

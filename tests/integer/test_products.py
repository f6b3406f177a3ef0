"""Every path of a product gives the bits of numpy's 64-bit integers."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qevo.integer import Path, audit, choose_path, conv, dot

CONV_PATHS = get_args(Path)
DOT_PATHS = tuple(path for path in CONV_PATHS if "_" not in path)


def int8(rng, *shape, limit=127):
    return rng.integers(-limit, limit + 1, shape).astype(np.int8)


def convolve(x, w, strides, padding):
    """By definition, in 64 bits."""
    x = np.pad(x.astype(np.int64), ((0, 0), *padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1]]  # [B, H', W', K, h, w]
    return np.einsum("bijkhw,hwkc->bijc", windows, w.astype(np.int64))


@pytest.mark.parametrize("path", DOT_PATHS)
@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(1, 1, 1), (7, 300, 13), (33, 1040, 20)])
def test_dot_is_exact_up_to_the_bound(path, batch, inputs, outputs):
    rng = np.random.default_rng(inputs)
    x, w = int8(rng, batch, inputs), int8(rng, inputs, outputs)
    x[0], w[:, 0] = 127, 127  # the bound is met: 1040 * 127**2 is just below 2**24
    result = jax.jit(functools.partial(dot, path=path, bound=inputs * 127**2))(x, w)
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, x.astype(np.int64) @ w.astype(np.int64))


def test_int8_dot_goes_beyond_24_bits():
    x, w = np.full((2, 20_001), 127, np.int8), np.full((20_001, 2), 127, np.int8)
    result = dot(jnp.asarray(x), jnp.asarray(w), bound=20_001 * 127**2)
    np.testing.assert_array_equal(result, np.full((2, 2), 20_001 * 127**2))


pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 2**32 - 1),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    extra=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(pads, pads),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 6)),
)
def test_conv_paths_agree(seed, kernel, extra, strides, padding, channels):
    rng = np.random.default_rng(seed)
    x = int8(rng, 2, kernel[0] + extra[0], kernel[1] + extra[1], channels[0])
    w = int8(rng, *kernel, *channels)
    bound = 127**2 * w[..., 0].size

    @jax.jit
    def every(x, w):
        common = {"strides": strides, "padding": padding, "bound": bound}
        return [conv(x, w, path=path, **common) for path in CONV_PATHS]

    expected = convolve(x, w, strides, padding)
    for path, result in zip(CONV_PATHS, every(x, w), strict=True):
        assert result.dtype == jnp.int32
        np.testing.assert_array_equal(result, expected, err_msg=path)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 3)])
def test_named_padding_is_that_of_lax(padding, strides):
    rng = np.random.default_rng(0)
    x, w = int8(rng, 2, 9, 8, 3), int8(rng, 3, 2, 3, 4)
    expected = jax.lax.conv_general_dilated(
        x.astype(np.int32), w.astype(np.int32), strides, padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    for path in ("int8", "int8_im2col", "float32_banded"):
        result = conv(
            jnp.asarray(x), jnp.asarray(w), strides=strides, padding=padding, path=path, bound=10**6
        )
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("path", CONV_PATHS)
def test_candidates_map_over_kernels(path):
    rng = np.random.default_rng(1)
    x, w = int8(rng, 3, 6, 6, 2), int8(rng, 4, 3, 3, 2, 5)
    expected = np.stack([convolve(x, one, (1, 1), ((1, 1), (1, 1))) for one in w])
    one = functools.partial(conv, x, padding="SAME", path=path, bound=18 * 127**2)
    x = jnp.asarray(x)
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(w), expected)
    np.testing.assert_array_equal(jax.jit(lambda w: jax.lax.map(one, w))(w), expected)


@pytest.mark.parametrize("path", CONV_PATHS)
def test_floats_stay_inside_the_exact_products(path):
    x, w = jnp.zeros((2, 6, 6, 2), jnp.int8), jnp.zeros((4, 3, 3, 2, 5), jnp.int8)
    one = functools.partial(conv, x, padding="SAME", path=path, bound=12345)
    for mapped in (jax.vmap(one), lambda w: jax.lax.map(one, w)):
        report = audit(mapped, w)
        assert report.ok, report
        assert report.integer_only == path.startswith("int8")
        assert all(product.bound == 12345 for product in report.exact_products)


def test_refuses_what_it_cannot_prove():
    x, w = jnp.zeros((2, 4), jnp.int8), jnp.zeros((4, 3), jnp.int8)
    with pytest.raises(ValueError, match=r"'float32' is exact below 16777216, but .* 16777216"):
        dot(x, w, path="float32", bound=2**24)
    with pytest.raises(ValueError, match="'int8' is exact below 2147483648"):
        dot(x, w, bound=2**31)
    with pytest.raises(ValueError, match="is for conv"):
        dot(x, w, path="int8_im2col", bound=1)
    with pytest.raises(ValueError, match="unknown path 'fp8'"):
        dot(x, w, path="fp8", bound=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="int8 operands, not int32"):
        dot(x.astype(jnp.int32), w, bound=1)


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("arithmetic", ["int", "fast"])
@pytest.mark.parametrize("bound", [1000, 2**24])
@pytest.mark.parametrize("kernel", [None, (5, 5, 1, 6), (3, 3, 16, 16), (3, 3, 64, 64)])
def test_the_chosen_path_is_allowed(backend, arithmetic, bound, kernel):
    for kind in ("dot", "conv"):
        path = choose_path(
            kind, bound=bound, arithmetic=arithmetic, backend=backend, kernel=kernel, width=32
        )
        assert path in (DOT_PATHS if kind == "dot" else CONV_PATHS)
        if arithmetic == "int" or bound == 2**24:
            assert path.startswith("int8")
        if kind == "conv" and backend != "cpu":
            assert path.endswith("_im2col")

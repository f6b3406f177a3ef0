"""One architecture under all numerics: one tree of names, and one function."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import quantized, random_images, random_variables

from qevo import QevoError
from qevo.nets import (
    ARCHITECTURES,
    RAW_PIXELS,
    UNIT_RANGE,
    Autoencoder,
    Calibrating,
    Float,
    Integer,
    LeNet5,
    LeNet300,
    PixelScaling,
    QuantizedNetwork,
    ResNet,
    architecture,
)
from qevo.nets.float_numerics import Observed
from qevo.nets.images import image_rule
from qevo.nets.pooling import max_pool
from qevo.nets.proof import Extent, Proving
from qevo.quantize import float_logits, fold_batch_norm
from qevo.quantize.calibration import Site
from qevo.quantize.converting import Both, Converting
from qevo.quantize.rounding import round_max_abs

NORMALIZED = PixelScaling.normalized((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
SMALL: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (LeNet300(hidden=(7, 6)), (5, 4, 1)),
    "lenet": (LeNet5(channels=(3, 4), hidden=(8,)), (16, 16, 1)),
    "resnet": (ResNet(widths=(4, 6), blocks=2), (8, 8, 3)),
    "autoencoder": (Autoencoder(widths=(4, 6), code=3, channels=3), (16, 16, 3)),
}


def layer_paths(tree: Any) -> set[str]:
    return {"/".join(path[:-1]) for path in flatten_dict(tree) if path[-1] == "kernel"}


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("mlp", RAW_PIXELS),
        ("lenet", UNIT_RANGE),
        ("resnet", UNIT_RANGE),
        ("autoencoder", NORMALIZED),
    ],
)
def test_folding_batch_norm_keeps_the_function(name: str, scaling: PixelScaling) -> None:
    module, shape = SMALL[name]
    module = module.clone(numerics=Float(scaling=scaling))
    images = random_images(shape, 9)
    variables = random_variables(module, shape)
    folded = fold_batch_norm(variables)
    assert set(folded) == set(variables["params"])
    expected = jax.jit(module.apply)(variables, images)
    found = jax.jit(module.clone(numerics=Calibrating(scaling)).apply)({"params": folded}, images)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-4 * np.abs(expected).max())


def test_one_tree_of_names(network: QuantizedNetwork) -> None:
    module = network.module
    variables = random_variables(module, network.image_shape)
    names = layer_paths(variables["params"])
    assert layer_paths(fold_batch_norm(variables)) == names
    assert set(network.weights) == set(network.layers) == set(network.bits) == names
    assert names < set(network.constants)
    assert set(network.constants) == names | set(network.ranges)
    kernels = dict.fromkeys(names, variables["params"])
    for name in names:
        for part in name.split("/"):
            kernels[name] = kernels[name][part]
        assert kernels[name]["kernel"].shape == network.weights[name].shape


@pytest.mark.parametrize(
    ("name", "scaling"),
    [("resnet", UNIT_RANGE), ("autoencoder", UNIT_RANGE), ("autoencoder", NORMALIZED)],
)
def test_integer_outputs_follow_the_float_ones(name: str, scaling: PixelScaling) -> None:
    """At 8 bits a network differs from its float twin by rounding only."""
    module, shape = SMALL[name]
    module = module.clone(numerics=Float(scaling=scaling))
    images = random_images(shape, 60)
    variables = random_variables(module, shape)
    network = quantized(module, images, variables, bits=8)
    real = float_logits(module, variables, images)
    unit = 1.0 if name == "resnet" else image_rule(scaling).scale
    found = network(images) * unit / 2**network.fraction_bits
    assert np.square(found - real).mean() < (0.05 * real.std()) ** 2
    np.testing.assert_array_equal(network(images) * network.output_scale, found)


def test_training_mode_uses_batch_statistics() -> None:
    module = ResNet(Float(train=True), widths=(4,), classes=3)
    images = random_images((6, 6, 3), 9)
    variables = random_variables(module, images.shape[1:])
    step = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]))
    _, state = step(variables, images)
    before, after = (flatten_dict(v["batch_stats"]) for v in (variables, state))
    assert before.keys() == after.keys()
    assert all(not np.array_equal(before[key], after[key]) for key in before)


def test_calibrating_names_sites_and_summands() -> None:
    module = ResNet(Calibrating(), widths=(4, 6), classes=3)
    images = random_images((6, 6, 3), 9)
    variables = random_variables(module.clone(numerics=Float()), images.shape[1:])
    folded = {"params": fold_batch_norm(variables)}
    _, state = jax.jit(functools.partial(module.apply, mutable=["sites"]))(folded, images)
    seen = {"/".join(path[:-1]): value for path, value in flatten_dict(state["sites"]).items()}
    assert seen["block_1_0/add"].summands == ("block_1_0/shortcut", "block_1_0/conv_1")
    assert seen["block_0_0/add"].summands == ("stem", "block_0_0/conv_1")
    assert {name for name, site in seen.items() if site.signed} == {
        "block_0_0/conv_1",
        "block_1_0/conv_1",
        "block_1_0/shortcut",
    }
    assert "logits" not in seen
    assert all(site.maximum >= np.abs(site.sample).max() for site in seen.values())


def test_registry() -> None:
    for name, made in ARCHITECTURES.items():
        module = architecture(name)
        assert type(module) is made
        assert isinstance(module, nn.Module)
    made = architecture("lenet_5", classes=7)
    assert isinstance(made, LeNet5)
    assert made.classes == 7
    with pytest.raises(ValueError, match=r"alexnet.*lenet_300_100"):
        architecture("alexnet")
    with pytest.raises(ValueError, match=r"lenet_5.*depth"):
        architecture("lenet_5", depth=3)


def test_sizes_of_the_known_architectures() -> None:
    """Parameter counts without batch norm, as published."""
    for name, shape, kernels in (
        ("lenet_300_100", (28, 28, 1), 266_200),
        ("lenet_5", (28, 28, 1), 61_470),
        ("resnet_8", (32, 32, 3), 77_360),
        ("resnet_20", (32, 32, 3), 268_336),
        ("resnet_32", (32, 32, 3), 461_872),
        ("resnet_56", (32, 32, 3), 848_944),
        ("vgg_16", (32, 32, 3), 15_239_872),
        ("autoencoder", (28, 28, 1), 2 * 9 * 16 + 2 * 9 * 16 * 32 + 2 * 16 * 32 * 4),  # by hand
    ):
        module = architecture(name)
        tree = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *shape), np.uint8))
        flat = flatten_dict(tree["params"])
        assert sum(v.size for path, v in flat.items() if path[-1] == "kernel") == kernels


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("window", "strides"), [((2, 2), None), ((3, 2), (2, 1)), ((3, 3), (2, 2))]
)
def test_max_pool(dtype: Any, padding: str, window: Any, strides: Any) -> None:
    x = np.random.RandomState(0).randint(-99, -1, (2, 7, 8, 3)).astype(dtype)
    expected = nn.max_pool(jnp.asarray(x, jnp.float32), window, strides or window, padding)
    found = max_pool(jnp.asarray(x), window, strides, padding)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("lenet_5", 1, "max_pool: a window of 2x2 on a map of 1x1: the images are too small"),
        ("lenet_5", 8, "conv_1: a window of 5x5 on a map of 4x4: the images are too small"),
        ("autoencoder", 8, "code: a window of 4x4 on a map of 2x2: the images are too small"),
    ],
)
def test_images_too_small_for_a_network(name: str, size: int, message: str) -> None:
    images = np.zeros((1, size, size, 1), np.uint8)
    with pytest.raises(QevoError, match=message):
        architecture(name).init(jax.random.key(0), images)


@settings(max_examples=25)
@given(
    image=st.tuples(*[st.integers(1, 5)] * 3),
    around=st.tuples(*[st.integers(0, 3)] * 2),
    strides=st.tuples(*[st.integers(1, 3)] * 2),
    seed=st.integers(0, 9),
)
def test_a_shortcut_without_weights_is_exact(
    image: tuple[int, int, int], around: tuple[int, int], strides: tuple[int, int], seed: int
) -> None:
    """Subsampling and channels of zeros, in all numerics."""
    x = np.random.RandomState(seed).randint(-128, 128, (2, *image)).astype(np.int8)
    expected = np.pad(x[:, :: strides[0], :: strides[1]], [(0, 0)] * 3 + [around])

    def shortcut(numerics: Any, x: Any) -> Any:
        return numerics.pad_channels(numerics.max_pool(x, (1, 1), strides=strides), *around)

    integers = shortcut(Integer({}, {}), jnp.asarray(x))
    assert integers.dtype == jnp.int8
    np.testing.assert_array_equal(integers, expected)
    real = np.float32(x)
    np.testing.assert_array_equal(shortcut(Float(), jnp.asarray(real)), expected)
    observed = shortcut(Calibrating(), Observed(jnp.asarray(real), "here", True))
    np.testing.assert_array_equal(observed.value, expected)
    assert observed[1:] == ("here", True)
    site = Site(0.5, -127, 127)
    both = shortcut(Converting({}, {}, round_max_abs, True, True, UNIT_RANGE), Both(real, x, site))
    np.testing.assert_array_equal(both.real, expected)
    np.testing.assert_array_equal(both.ints, expected)
    assert (both.ints.dtype, both.site) == (np.int8, site)
    extent = shortcut(Proving({}, {}), Extent(x.shape[1:], 1, 3))
    assert extent == (expected.shape[1:], 0, 3)


@settings(max_examples=15)
@given(image=st.tuples(*[st.integers(1, 5)] * 3), factor=st.integers(1, 3), seed=st.integers(0, 9))
def test_upsampling_is_exact(image: tuple[int, int, int], factor: int, seed: int) -> None:
    """Nearest neighbours, in all numerics."""
    x = np.random.RandomState(seed).randint(-128, 128, (2, *image)).astype(np.int8)
    expected = x.repeat(factor, 1).repeat(factor, 2)
    integers = Integer({}, {}).upsample(jnp.asarray(x), factor)
    assert integers.dtype == jnp.int8
    np.testing.assert_array_equal(integers, expected)
    real = np.float32(x)
    np.testing.assert_array_equal(Float().upsample(jnp.asarray(real), factor), expected)
    observed = Calibrating().upsample(Observed(jnp.asarray(real), "here", True), factor)
    np.testing.assert_array_equal(observed.value, expected)
    assert observed[1:] == ("here", True)
    site = Site(0.5, -127, 127)
    converting = Converting({}, {}, round_max_abs, True, True, UNIT_RANGE)
    both = converting.upsample(Both(real, x, site), factor)
    np.testing.assert_array_equal(both.real, expected)
    np.testing.assert_array_equal(both.ints, expected)
    assert (both.ints.dtype, both.site) == (np.int8, site)
    assert Proving({}, {}).upsample(Extent(image, -1, 3), factor) == (expected.shape[1:], -1, 3)

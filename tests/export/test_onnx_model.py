"""Both forms of an ONNX model give the network's integers."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from export_networks import NETWORKS
from networks import quantized, random_images

from qevo.errors import QevoError
from qevo.export import first_difference, onnx_model, run_onnx
from qevo.export.onnx_model import Form, zero_points
from qevo.export.steps import Multiply, steps_of
from qevo.nets import Float, LeNet300, PixelScaling, QuantizedNetwork


@pytest.mark.parametrize("form", ["integer", "qdq"])
def test_the_same_integers(network: QuantizedNetwork, images: np.ndarray, form: Form) -> None:
    model = onnx_model(network, form)
    expected = network(images)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(run_onnx(model, images).values, expected)
    np.testing.assert_array_equal(run_onnx(model, images[:1]).values, expected[:1])
    assert first_difference(network, model, images) is None


def initializers(network: QuantizedNetwork, form: Form) -> dict[str, Any]:
    graph = onnx.load_from_string(onnx_model(network, form)).graph
    return {tensor.name: tensor for tensor in graph.initializer}


@pytest.mark.parametrize("form", ["integer", "qdq"])
def test_weights_take_four_bits_where_they_fit(form: Form) -> None:
    network = NETWORKS["dense"]()
    found = initializers(network, form)
    for name, bits in network.bits.items():
        kernel = found[f"{name}/kernel"]
        wide = bits == 8
        assert kernel.data_type == (onnx.TensorProto.INT8 if wide else onnx.TensorProto.INT4)
        count = int(np.prod(kernel.dims))
        assert len(kernel.raw_data) == (count if wide else (count + 1) // 2)


def signed_dense() -> QuantizedNetwork:
    """Layers of 8 bits, the first one of pixels from -1 to 1."""
    numerics = Float(scaling=PixelScaling(scale=(2 / 255,), offset=(-1.0,)))
    module = LeNet300(hidden=(13,), classes=5, numerics=numerics)
    return quantized(module, (6, 7, 1), bits=8)


@pytest.mark.parametrize("form", ["integer", "qdq"])
@pytest.mark.parametrize("make", [signed_dense, NETWORKS["detector"]])
def test_two_products_fit_sixteen_bits(make: Callable[[], QuantizedNetwork], form: Form) -> None:
    """Processors without VNNI add up two products of uint8 and int8 in 16 bits, which saturate."""
    network = make()
    images = random_images(network.image_shape, 7, seed=1)
    np.testing.assert_array_equal(
        run_onnx(onnx_model(network, form), images).values, network(images)
    )
    zeros = zero_points(steps_of(network))
    found, wide = initializers(network, form), 0
    for step in steps_of(network):
        if not isinstance(step, Multiply):
            continue
        kernel = onnx.numpy_helper.to_array(found[f"{step.name}/kernel"])
        signed = zeros[step.inputs[0].name] > 0
        if kernel.dtype == np.int8:
            most = 255 if signed else 127
            assert 2 * most * int(np.abs(kernel.astype(int)).max()) < 2**15
        else:
            wide += 1
            assert kernel.dtype == np.uint8
            assert np.array_equal(
                np.sort(kernel, axis=None), np.sort(step.kernel.astype(int) + 128, axis=None)
            )
    assert wide


def test_equal_networks_give_equal_bytes() -> None:
    assert onnx_model(NETWORKS["padded"]()) == onnx_model(NETWORKS["padded"]())


def test_the_first_layer_that_differs_is_named() -> None:
    network = NETWORKS["dense"]()
    images = random_images((6, 7, 1), 5, seed=2)
    weights = {**network.weights, "dense_0": -network.weights["dense_0"]}
    other = onnx_model(dataclasses.replace(network, weights=weights))
    first = first_difference(network, other, images)
    assert first is not None
    assert first[0] == "dense_1"  # whose input is the first to differ
    assert first[1] > 0


def test_what_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS["dense"]()
    with pytest.raises(QevoError, match="'integer' or 'qdq', not 'float'"):
        onnx_model(network, "float")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(QevoError, match="needs the package onnx"):
        onnx_model(network)


def test_a_sum_of_sides_too_far_apart_is_refused() -> None:
    network = NETWORKS["residual"]()
    name = next(key for key in network.ranges if "left" in network.constants[key])
    sides = {**network.constants[name], "left": jnp.array([17, 0], jnp.int32)}
    sides |= {"right": jnp.array(17, jnp.int32)}
    constants = {**network.constants, name: sides}
    with pytest.raises(QevoError, match=f"{name}: its sides are 17 bits apart"):
        onnx_model(dataclasses.replace(network, constants=constants))


def test_pixels_that_a_float32_would_round_otherwise_go_through_a_table() -> None:
    network = NETWORKS["dense"]()
    pixels = np.arange(256)

    def half_even(multiplier: int) -> np.ndarray:
        return np.rint(pixels * multiplier / 2.0**23)  # exact in float64

    def single(multiplier: int) -> np.ndarray:
        return np.rint(pixels.astype(np.float32) * np.float32(multiplier / 2.0**23))

    odd = next(m for m in range(1 << 22, 0, -1) if (half_even(m) != single(m)).any())
    rule = {"multiplier": [odd], "bias": [0], "shift": 23}
    constants = {key: np.asarray(value, np.int32) for key, value in rule.items()}
    strange = dataclasses.replace(network, constants={**network.constants, "input": constants})
    for net, table in ((network, False), (strange, True)):
        model = onnx_model(net)
        assert (b"pixel_places" in model) == table
        images = np.broadcast_to(pixels[:, None, None, None], (256, *net.image_shape))
        images = images.astype(np.uint8)
        np.testing.assert_array_equal(run_onnx(model, images).values, net(images))

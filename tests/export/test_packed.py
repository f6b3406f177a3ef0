"""Packed files: the same network back, and numbers that a reader without qevo understands."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from networks import quantized, random_images, random_variables
from safetensors import safe_open
from safetensors.numpy import load as load_tensors
from safetensors.numpy import load_file, save_file

import qevo
from qevo.errors import QevoError
from qevo.export import packed_difference, packed_file, read_packed
from qevo.export.packed import field_bytes
from qevo.nets import LeNet300, QuantizedNetwork
from qevo.nets.packing import unpack


@pytest.fixture
def path(network: QuantizedNetwork, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "packed.safetensors"
    path.write_bytes(packed_file(network))
    return path


def header_of(path: pathlib.Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["qevo"])


def test_is_the_same_network(
    network: QuantizedNetwork, path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert packed_difference(network, path.read_bytes()) is None
    network.save(tmp_path / "network")
    qevo.load(path, network.module).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "network").read_bytes()


def test_takes_the_bits_of_each_layer(network: QuantizedNetwork, path: pathlib.Path) -> None:
    layers, tensors = header_of(path)["packed"]["layers"], load_file(path)
    assert [layer["name"] for layer in layers] == list(network.layers)
    for layer in layers:
        name = layer["name"]
        bits = {"ternary": 2}.get(str(network.bits[name]), network.bits[name])
        assert layer["bits"] == bits
        assert (layer["scheme"] == "ternary") == (network.bits[name] == "ternary")
        data, weights = tensors[f"weights:{name}"], network.weights[name]
        assert data.nbytes == -(-np.size(weights) * int(bits) // 8)
        np.testing.assert_array_equal(unpack(data, int(bits), layer["shape"]), weights)


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_and_biases_are_real(bits: int) -> None:
    """Levels times scale are the float network's weights to half a step, and with the biases they
    give its logits."""
    module, shape = LeNet300(hidden=(13, 11), classes=5), (6, 7, 1)
    images = random_images(shape, 16)
    network = quantized(module, images, bits=bits, fit_bias=False)
    variables = random_variables(module, shape)["params"]
    tensors = load_tensors(packed_file(network))
    x = images.reshape(16, -1) / np.float32(255)
    for name in network.layers:
        scale, bias = tensors[f"scale:{name}"], tensors[f"bias:{name}"]
        assert scale.dtype == bias.dtype == np.float32
        assert scale.shape == bias.shape == (network.weights[name].shape[1],)
        real = np.asarray(network.weights[name]) * scale
        assert (np.abs(real - variables[name]["kernel"]) <= 0.51 * scale).all()
        np.testing.assert_allclose(bias, variables[name]["bias"], rtol=0.01, atol=0.01)
        x = x @ real + bias
        x = x if name == "logits" else np.maximum(x, 0)
    ours = network(images) * network.output_scale
    # Large activations saturate in some images, so not the largest difference.
    assert np.median(np.abs(x - ours)) < 0.01 * np.abs(x).max()


def test_the_bytes_of_the_fields(network: QuantizedNetwork) -> None:
    tensors = load_tensors(packed_file(network))
    assert field_bytes(network) == sum(tensors[f"weights:{name}"].nbytes for name in network.layers)


def test_a_difference_is_named(network: QuantizedNetwork) -> None:
    name = list(network.layers)[-1]
    changed = {**network.weights, name: np.zeros_like(network.weights[name])}
    other = dataclasses.replace(network, weights=changed)
    assert packed_difference(other, packed_file(network)) == f"weights:{name}"
    constants = {key: np.asarray(value) for key, value in network.constants[name].items()}
    constants["multiplier"] = constants["multiplier"] * 0 + 1
    other = dataclasses.replace(network, constants={**network.constants, name: constants})
    assert packed_difference(other, packed_file(network)) == f"constants:{name}:multiplier"
    other = dataclasses.replace(network, scales={**network.scales, "input": 7.0})
    assert packed_difference(other, packed_file(network)) == "the metadata"
    assert "cut short" in str(packed_difference(network, packed_file(network)[:-1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "packed format version 2; this qevo reads version 1"),
        ({"layers": []}, "weights|int8"),
        ({"bits": 8}, r"dense_0: 8 bits for each of \[42, 13\] are uint8 \[546\], not uint8 \[137"),
        ({"bits": 11}, "dense_0: a level takes 1 to 8 bits, not 11"),
        ({"shape": [42, 12]}, r"dense_0: 2 bits for each of \[42, 12\]"),
        ({"shape": [13, 42]}, "dense_0"),
        ({"shape": None}, "header does not describe a network"),
        ({"name": "dense_9"}, "header does not describe a network"),
    ],
)
def test_refuses_a_changed_file(change: Any, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "packed.safetensors"
    module = LeNet300(hidden=(13,), classes=5)
    path.write_bytes(packed_file(quantized(module, (6, 7, 1), bits="ternary")))
    header = header_of(path)
    packed = header["packed"]
    (packed if change.keys() <= packed.keys() else packed["layers"][0]).update(change)
    save_file(load_file(path), path, {"qevo": json.dumps(header)})
    with pytest.raises(QevoError, match=rf"packed\.safetensors: .*({message})"):
        read_packed(path)

"""A quantized network refuses trees that do not fit its architecture or leave their limits."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from qevo.errors import QevoError
from qevo.nets import LeNet300, QuantizedNetwork


def edit(network: QuantizedNetwork, layer: str, **constants: Any) -> QuantizedNetwork:
    changed = {key: jnp.asarray(value) for key, value in constants.items()}
    merged = {**network.constants, layer: {**network.constants[layer], **changed}}
    return dataclasses.replace(network, constants=merged)


def reweight(network: QuantizedNetwork, layer: str, kernel: Any) -> QuantizedNetwork:
    return dataclasses.replace(network, weights={**network.weights, layer: kernel})


def test_accepts_what_conversion_made(network: QuantizedNetwork) -> None:
    assert dataclasses.replace(network).layers == network.layers


def test_weights(mlp: QuantizedNetwork) -> None:
    kernel = mlp.weights["dense_0"]
    with pytest.raises(QevoError, match=r"dense_0: kernel must be int8 \[42, 12\].*\[42, 11\]"):
        reweight(mlp, "dense_0", kernel[:, :-1])
    with pytest.raises(QevoError, match=r"dense_0: kernel must be int8.*int32"):
        reweight(mlp, "dense_0", kernel.astype(jnp.int32))
    with pytest.raises(QevoError, match=r"dense_0: weights .*2 leave the levels -1\.\.1"):
        reweight(mlp, "dense_0", kernel.at[3, 3].set(2))
    with pytest.raises(QevoError, match="dense_0: weights holds no kernel"):
        dataclasses.replace(mlp, weights={k: v for k, v in mlp.weights.items() if k != "dense_0"})


def test_constants(mlp: QuantizedNetwork) -> None:
    facts = mlp.layers["dense_1"]
    channels = np.ones(11, np.int32)
    with pytest.raises(QevoError, match=r"dense_1: multiplier .* leaves 1\.\."):
        edit(mlp, "dense_1", multiplier=0 * channels)
    with pytest.raises(QevoError, match="dense_1: multiplier"):
        edit(mlp, "dense_1", multiplier=(facts.multiplier_limit + 1) * channels)
    with pytest.raises(QevoError, match="dense_1: bias"):
        edit(mlp, "dense_1", bias=-(facts.bias_limit + 1) * channels)
    with pytest.raises(QevoError, match=r"dense_1: shift .* leaves 0\.\.17"):
        edit(mlp, "dense_1", shift=18 * channels)
    with pytest.raises(QevoError, match=r"dense_1: bias must be int32 \[11\]"):
        edit(mlp, "dense_1", bias=channels[:3])


def test_layers_left_out_or_left_over(mlp: QuantizedNetwork) -> None:
    fewer = {k: v for k, v in mlp.layers.items() if k != "dense_2"}
    with pytest.raises(QevoError, match=r"dense_2: the architecture has this layer"):
        dataclasses.replace(mlp, layers=fewer)
    with pytest.raises(QevoError, match=r"dense_9: the network has this layer"):
        dataclasses.replace(mlp, layers={**mlp.layers, "dense_9": mlp.layers["dense_0"]})
    with pytest.raises(QevoError, match="input"):
        dataclasses.replace(mlp, ranges={})


def test_another_architecture(mlp: QuantizedNetwork) -> None:
    with pytest.raises(QevoError, match=r"dense_0: kernel must be int8 \[42, 3\]"):
        dataclasses.replace(mlp, module=LeNet300(hidden=(3,)))


def test_input_wider_than_the_proof(lenet: QuantizedNetwork) -> None:
    with pytest.raises(QevoError, match=r"conv_0: its input can be -128\.\.127"):
        dataclasses.replace(lenet, ranges={"input": (-128, 127)})


def test_residual_sums_and_pools(resnet: QuantizedNetwork) -> None:
    add = "block_0_0/add"
    with pytest.raises(QevoError, match=f"{add}: the sum can reach"):
        edit(resnet, add, left=np.array([29, 29], np.int32))
    with pytest.raises(QevoError, match=f"{add}: right"):
        edit(resnet, add, right=np.int32(31))
    ranges = {k: v for k, v in resnet.ranges.items() if k != add}
    with pytest.raises(QevoError, match=f"{add}: the architecture has this operation"):
        dataclasses.replace(resnet, ranges=ranges)
    with pytest.raises(QevoError, match="pool: a sum up to"):
        edit(resnet, "pool", multiplier=np.int32(1 << 28))


def test_images(mlp: QuantizedNetwork) -> None:
    with pytest.raises(QevoError, match=r"uint8 \[B, 6, 7, 1\], not uint8 \[2, 6, 6, 1\]"):
        mlp(np.zeros((2, 6, 6, 1), np.uint8))
    with pytest.raises(QevoError, match="float32"):
        mlp(np.zeros((2, 6, 7, 1), np.float32))

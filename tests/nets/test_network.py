"""When two quantized networks are equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

import numpy as np
import pytest

from qevo.nets import Float, QuantizedNetwork


def test_equal_networks_have_equal_numbers(lenet: QuantizedNetwork) -> None:
    copy = dataclasses.replace(
        lenet,
        module=lenet.module.clone(numerics=Float(train=True)),  # of which nothing is used
        weights={name: np.array(kernel) for name, kernel in lenet.weights.items()},
    )
    assert copy == lenet
    kernel = np.array(lenet.weights["logits"])
    kernel[0, 0] = 1 if kernel[0, 0] < 1 else 0
    constants = {key: np.array(value) for key, value in lenet.constants["logits"].items()}
    constants["bias"][0] += 1
    for change in (
        {"weights": {**lenet.weights, "logits": kernel}},
        {"constants": {**lenet.constants, "logits": constants}},
        {"scales": {**lenet.scales, "input": 1.0}},
        {"activation_bits": 4},
    ):
        other = dataclasses.replace(lenet, **change)
        assert other != lenet
        assert other == dataclasses.replace(lenet, **change)
    assert lenet != "lenet"


def test_networks_of_other_architectures_differ(
    lenet: QuantizedNetwork, autoencoder: QuantizedNetwork
) -> None:
    assert lenet != autoencoder


def test_networks_have_no_hash(lenet: QuantizedNetwork) -> None:
    assert not isinstance(lenet, Hashable)
    with pytest.raises(TypeError, match="unhashable type: 'QuantizedNetwork'"):
        hash(lenet)

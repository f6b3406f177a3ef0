"""Small networks to compress."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_variables

from qevo.nets import LeNet300, QuantizedNetwork, ResNet20
from qevo.quantize import quantize_network
from qevo.quantize.rounding import round_max_abs


@pytest.fixture(scope="session")
def mlp() -> QuantizedNetwork:
    """Dense layers of mixed bits, one of them sparse."""
    shape, module = (6, 7, 1), LeNet300(hidden=(30, 11), classes=5)
    images = np.random.RandomState(0).randint(0, 256, (24, *shape)).astype(np.uint8)
    network = quantize_network(
        module,
        random_variables(module, shape),
        images,
        bits={"*": 4, "dense_1": "ternary", "logits": 8},
        method=round_max_abs,
    )
    kept = np.random.RandomState(1).random_sample((42, 30)) < 0.1
    sparse = jnp.where(jnp.asarray(kept), network.weights["dense_0"], jnp.int8(0))
    return dataclasses.replace(network, weights={**network.weights, "dense_0": sparse})


@pytest.fixture(scope="session")
def resnet() -> QuantizedNetwork:
    """Convolutions, residual sums, an average pool and three input channels."""
    shape, module = (9, 8, 3), ResNet20(widths=(4, 7), blocks=2, classes=5)
    images = np.random.RandomState(0).randint(0, 256, (24, *shape)).astype(np.uint8)
    return quantize_network(
        module, random_variables(module, shape), images, bits=3, method=round_max_abs
    )

"""Small networks to compress."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from networks import quantized

from qevo.nets import LeNet300, QuantizedNetwork, ResNet20


@pytest.fixture(scope="session")
def mlp() -> QuantizedNetwork:
    """Dense layers of mixed bits, one of them sparse."""
    module, bits = LeNet300(hidden=(30, 11), classes=5), {"*": 4, "dense_1": "ternary", "logits": 8}
    network = quantized(module, (6, 7, 1), bits=bits)
    kept = np.random.RandomState(1).random_sample((42, 30)) < 0.1
    sparse = jnp.where(jnp.asarray(kept), network.weights["dense_0"], jnp.int8(0))
    return dataclasses.replace(network, weights={**network.weights, "dense_0": sparse})


@pytest.fixture(scope="session")
def resnet() -> QuantizedNetwork:
    """Convolutions, residual sums, an average pool and three input channels."""
    module = ResNet20(widths=(4, 7), blocks=2, classes=5)
    return quantized(module, (9, 8, 3), bits=3)

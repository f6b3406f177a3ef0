"""Small quantized networks that the tests share."""

from __future__ import annotations

import numpy as np
import pytest
from detectors import quantized_detector
from networks import quantized, random_images

from qevo.nets import Autoencoder, LeNet5, LeNet300, QuantizedNetwork, ResNet, ResNet20


@pytest.fixture(scope="session")
def mlp() -> QuantizedNetwork:
    """Dense layers of mixed bits, all of them in one network."""
    module = LeNet300(hidden=(12, 11, 10, 9), classes=5)
    bits = {"*": "ternary", "dense_1": 2, "dense_2": 3, "dense_3": 4, "logits": 8}
    return quantized(module, (6, 7, 1), bits=bits)


@pytest.fixture(scope="session")
def lenet() -> QuantizedNetwork:
    """Convolutions with both paddings, and max pools."""
    module = LeNet5(channels=(4, 5), hidden=(11,), classes=6)
    return quantized(module, (16, 16, 2), bits=8)


@pytest.fixture(scope="session")
def resnet() -> QuantizedNetwork:
    """Nested modules, strides, residual sums and an average pool, with 4-bit activations."""
    module = ResNet(widths=(4, 6), blocks=2, classes=5)
    return quantized(module, (9, 8, 3), bits={"*": 4, "block_*": 3}, activation_bits=4)


@pytest.fixture(scope="session")
def shortcut_a() -> QuantizedNetwork:
    """Residual blocks without projections, padded as in torch."""
    module = ResNet20(widths=(4, 7), blocks=2, classes=5)
    return quantized(module, (9, 8, 3), bits=8)


@pytest.fixture(scope="session")
def wide() -> QuantizedNetwork:
    """A layer of so many inputs that its requantization takes two limbs."""
    return quantized(LeNet300(hidden=(6,), classes=3), (40, 41, 1), bits=8)


@pytest.fixture(scope="session")
def autoencoder() -> QuantizedNetwork:
    """Upsampling, an activation of both signs, padding wider than "SAME", and images at the end."""
    module = Autoencoder(widths=(4, 6), code=3, channels=2)
    return quantized(module, (16, 20, 2), bits={"*": 4, "image": 8})


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> QuantizedNetwork:
    """Depthwise and leaky layers, channels put together, and two maps at the end."""
    folder = tmp_path_factory.mktemp("darknet")
    return quantized_detector(folder, bits={"*": 4, "convolutional_1": 8}, method="layerwise")


@pytest.fixture(params=["mlp", "lenet", "resnet", "shortcut_a", "wide", "autoencoder", "detector"])
def network(request: pytest.FixtureRequest) -> QuantizedNetwork:
    """Each of the networks in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def images(network: QuantizedNetwork) -> np.ndarray:
    """Images for it, not those that it was calibrated on."""
    return random_images(network.image_shape, 19, seed=5)

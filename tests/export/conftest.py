"""Every small network, and images for it."""

from __future__ import annotations

import numpy as np
import pytest
from export_networks import NETWORKS
from networks import random_images

from qevo.nets import QuantizedNetwork


@pytest.fixture(scope="session", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> QuantizedNetwork:
    """Each of them."""
    return NETWORKS[request.param]()


@pytest.fixture
def images(network: QuantizedNetwork) -> np.ndarray:
    """Random pixels, black and white among them."""
    drawn = random_images(network.image_shape, 7, seed=1)
    drawn[0], drawn[1] = 0, 255
    return drawn

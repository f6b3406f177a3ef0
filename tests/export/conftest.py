"""Every small network, and images for it."""

from __future__ import annotations

import numpy as np
import pytest
from export_networks import NETWORKS

from qevo.nets import QuantizedNetwork


@pytest.fixture(scope="session", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> QuantizedNetwork:
    """Each of them."""
    return NETWORKS[request.param]()


@pytest.fixture
def images(network: QuantizedNetwork) -> np.ndarray:
    """Random pixels, black and white among them."""
    shape = (7, *network.image_shape)
    drawn = np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)
    drawn[0], drawn[1] = 0, 255
    return drawn

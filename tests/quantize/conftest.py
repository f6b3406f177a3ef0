"""A small trained network on real images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from qevo.data import Split, load
from qevo.nets import LeNet300, QuantizedNetwork
from qevo.quantize import TrainingConfig, accuracy, quantize_network, train


class Trained(NamedTuple):
    module: LeNet300
    variables: Any
    search: Split
    validation: Split

    def quantized(self, **options: Any) -> QuantizedNetwork:
        """Calibrated on the search images."""
        return quantize_network(self.module, self.variables, self.search.images, **options)

    def accuracy(self, logits: np.ndarray) -> float:
        """Of logits for the validation images."""
        return accuracy(logits, self.validation.labels)


@pytest.fixture(scope="session")
def trained() -> Trained:
    """Clothes in ten classes; about 83 % in float."""
    data = load("fashion_mnist_small")
    module = LeNet300(hidden=(48, 32))
    images, labels = data.search.images, data.search.labels
    config = TrainingConfig(epochs=5, learning_rate=3e-3)
    variables = train(module, images, labels, config=config)
    return Trained(module, variables, Split(images[:1000], labels[:1000]), data.validation)

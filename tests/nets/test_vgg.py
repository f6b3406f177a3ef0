"""A narrow VGG-16, from float to integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from qevo.nets import VGG16
from qevo.quantize import float_logits, quantize_network
from qevo.quantize.rounding import round_max_abs


def test_narrow_vgg_from_float_to_integers(random_variables: Any) -> None:
    module = VGG16(width=2, classes=7)
    images = np.random.RandomState(0).randint(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    variables = random_variables(module, images.shape[1:])
    network = quantize_network(module, variables, images, bits=8, method=round_max_abs)
    assert (len(network.layers), network.weights["conv_4_2"].shape) == (16, (3, 3, 16, 16))
    logits = network(images, arithmetic="int")
    np.testing.assert_array_equal(network(images, arithmetic="fast"), logits)
    real = float_logits(module, variables, images)
    assert np.abs(logits / 2**network.fraction_bits - real).max() < 0.2 * real.std()

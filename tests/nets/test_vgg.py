"""A narrow VGG-16, from float to integers."""

from __future__ import annotations

import numpy as np
from networks import quantized, random_images, random_variables

from qevo.nets import VGG16
from qevo.quantize import float_logits


def test_narrow_vgg_from_float_to_integers() -> None:
    module, images = VGG16(width=2, classes=7), random_images((32, 32, 3), 20)
    variables = random_variables(module, (32, 32, 3))
    network = quantized(module, images, variables, bits=8)
    assert (len(network.layers), network.weights["conv_4_2"].shape) == (16, (3, 3, 16, 16))
    logits = network(images, arithmetic="int")
    np.testing.assert_array_equal(network(images, arithmetic="fast"), logits)
    real = float_logits(module, variables, images)
    assert np.abs(logits / 2**network.fraction_bits - real).max() < 0.2 * real.std()

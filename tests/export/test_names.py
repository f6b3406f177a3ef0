"""Whatever the layers of an architecture are called, its tensors stay apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flax import linen as nn
from networks import quantized, random_images

from qevo.errors import QevoError
from qevo.export import c_source, onnx_model, run_c, run_onnx
from qevo.nets import Float, Numerics, QuantizedNetwork

SHAPE = (5, 4, 1)


class Named(nn.Module):
    """One convolution after a pool, whose names are free, and an image."""

    numerics: Numerics = Float()
    layer: str = "layer"
    last: str = "last"

    @nn.compact
    def __call__(self, images: Any) -> Any:
        n = self.numerics
        x = n.max_pool(n.input(images), (2, 2), strides=(1, 1))
        return n.image(n.conv(x, 3, name=self.layer), 1, name=self.last)


def named(**names: str) -> QuantizedNetwork:
    return quantized(Named(**names), SHAPE, bits=4)


@pytest.mark.parametrize("layer", ["max_pool_1", "pad", "scaled"])
def test_a_layer_called_like_an_operation(layer: str) -> None:
    network = named(layer=layer, last="output")
    images = random_images(SHAPE, 3, seed=4)
    expected = network(images)
    for form in ("integer", "qdq"):
        np.testing.assert_array_equal(run_onnx(onnx_model(network, form), images).values, expected)
    found = run_c(c_source(network).text, images, network.output_shape)
    if found is not None:
        np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("layer", ["images", "scaled_pixels", "one", "zero_0"])
def test_a_name_that_the_model_needs_is_refused(layer: str) -> None:
    with pytest.raises(QevoError, match=f"no valid ONNX model.*'?{layer}'?"):
        onnx_model(named(layer=layer))

"""Single layers for the tests of rounding methods."""

from __future__ import annotations

import numpy as np

from qevo.nets import Product
from qevo.quantize.gram import InputRows
from qevo.quantize.rounding import FloatLayer
from qevo.quantize.scales import ScaleGrid

INPUT_SCALE = 0.05


def random_layer(
    fan_in: int,
    channels: int,
    *,
    low: int = -1,
    high: int = 1,
    correlated: bool = True,
    kernel: np.ndarray | None = None,
    rows: int = 512,
) -> FloatLayer:
    """A dense layer of random weights on random inputs.

    Uncorrelated inputs have a diagonal covariance, to the bit: every sign pattern of a Hadamard
    matrix.
    """
    draw = np.random.RandomState(fan_in)
    if correlated:
        inputs = draw.normal(size=(rows, fan_in)) + 1.5 * draw.normal(size=(rows, 1))
        inputs = np.clip(np.rint(30 * inputs), -127, 127)
    else:
        signs = np.ones((1, 1))
        while len(signs) <= fan_in:
            signs = np.block([[signs, signs], [signs, -signs]])
        inputs = signs[:, 1 : fan_in + 1] * draw.randint(20, 120, fan_in)
    if kernel is None:
        kernel = draw.normal(0, 0.1, (fan_in, channels))
    kernel = kernel.astype(np.float32).astype(np.float64)
    inputs = inputs.astype(np.int8)
    outputs = (inputs * INPUT_SCALE @ kernel + draw.normal(0, 0.2, channels)).astype(np.float32)
    return FloatLayer(
        name="layer",
        kernel=kernel,
        low=low,
        high=high,
        grid=ScaleGrid(0.5, 1000, 17, np.zeros(channels), INPUT_SCALE),
        rows=InputRows(inputs, Product("dense", channels), kernel.shape, INPUT_SCALE),
        outputs=outputs,
    )

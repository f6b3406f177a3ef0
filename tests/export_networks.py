"""Small networks that between them have every operation."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from detectors import quantized_detector
from networks import quantized

from qevo.nets import Autoencoder, LeNet5, LeNet300, QuantizedNetwork, ResNet, ResNet20
from qevo.quantize.rounding import round_squared_error

Maker = Callable[[], QuantizedNetwork]


def detector(bits: Any) -> QuantizedNetwork:
    with tempfile.TemporaryDirectory() as folder:
        return quantized_detector(pathlib.Path(folder), bits=bits, method=round_squared_error)


NETWORKS: dict[str, Maker] = {
    "dense": lambda: quantized(
        LeNet300(hidden=(13, 11, 9), classes=5),
        (6, 7, 1),
        bits={"*": "ternary", "dense_1": 2, "dense_2": 4, "logits": 8},
    ),
    "pools": lambda: quantized(
        LeNet5(channels=(4, 5), hidden=(11,), classes=6), (16, 16, 2), bits=3, activation_bits=4
    ),
    "residual": lambda: quantized(
        ResNet(widths=(4, 6), blocks=1, classes=5), (9, 8, 3), bits={"*": 8, "block_*": "ternary"}
    ),
    "padded": lambda: quantized(ResNet20(widths=(4, 7), blocks=1, classes=5), (9, 8, 3), bits=4),
    "detector": lambda: detector(8),
    "image": lambda: quantized(Autoencoder(widths=(3, 5), code=2), (16, 16, 1), bits=3),
}

"""A small detector that has everything darknet's sections can say."""

from __future__ import annotations

import pathlib
from typing import Any

from networks import quantized

from qevo.nets import QuantizedNetwork
from qevo.quantize.importing.darknet import Detector, load_cfg

CFG = """
[net]
width=16
height=16
channels=3

[convolutional]  # 0
filters=6
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky

[convolutional]  # 1
groups=6
filters=6
size=3
pad=1
batch_normalize=1
activation=leaky

[convolutional]  # 2
filters=6
size=1
activation=linear

[shortcut]  # 3
from=-3
activation=linear

[convolutional]  # 4
groups=6
filters=6
size=5
pad=1
batch_normalize=1
activation=relu

[maxpool]  # 5
size=3
stride=1

[route]  # 6: parts with and without a sign
layers=-1, -2, -3

[maxpool]  # 7
size=2
stride=2

[dropout]  # 8
probability=.2

[convolutional]  # 9
filters=14
activation=linear

[yolo]  # 10
mask=1,2
anchors=2,3, 4,4, 8,7
classes=2
num=3

[route]  # 11
layers=7

[upsample]  # 12
stride=2

[route]  # 13
layers=-1,4

[convolutional]  # 14
filters=7
activation=linear

[yolo]  # 15
mask=0
anchors=2,3, 4,4, 8,7
classes=2
num=3
"""


def detector(folder: pathlib.Path, text: str = CFG, **options: Any) -> Detector:
    """The detector that a text describes."""
    path = folder / "net.cfg"
    path.write_text(text)
    return load_cfg(path, **options)


def quantized_detector(folder: pathlib.Path, **options: Any) -> QuantizedNetwork:
    """With random weights, on random images."""
    return quantized(detector(folder).module, (16, 16, 3), **options)

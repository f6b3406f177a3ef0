"""The architectures that come with the experiments, against sums that were made by hand."""

from __future__ import annotations

import itertools
import math
import pathlib

import numpy as np
import pytest

from qevo.data import load_detection
from qevo.detection import anchor_sizes
from qevo.quantize.importing.darknet import Detector, load_cfg
from qevo.quantize.variables import variable_shapes

FOLDER = pathlib.Path(__file__).parents[3] / "experiments" / "cfg"


def numbers(detector: Detector) -> int:
    """Of a weights file after its header: parameters, and means and variances."""
    return sum(
        math.prod(shape)
        for shape in variable_shapes(detector.module, detector.image_shape).values()
    )


def normal(size: int, inputs: int, outputs: int) -> int:
    """A convolution with batch norm."""
    return size * size * inputs * outputs + 4 * outputs


def head(inputs: int, outputs: int = 255) -> int:
    return (inputs + 1) * outputs


def test_yolov3() -> None:
    detector = load_cfg(FOLDER / "yolov3.cfg", classes=80)
    expected = normal(3, 3, 32)
    for channels, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        half = channels // 2
        expected += normal(3, half, channels)
        expected += blocks * (normal(1, channels, half) + normal(3, half, channels))
    for inputs, width in ((1024, 512), (768, 256), (384, 128)):
        expected += normal(1, inputs, width) + 2 * normal(1, 2 * width, width)
        expected += 3 * normal(3, width, 2 * width) + head(2 * width)
    expected += normal(1, 512, 256) + normal(1, 256, 128)
    assert numbers(detector) == expected == 62_001_757
    assert 20 + 4 * expected == 248_007_048  # bytes of the published file
    assert detector.shapes == ((13, 13, 255), (26, 26, 255), (52, 52, 255))
    assert [one.mask for one in detector.heads] == [(6, 7, 8), (3, 4, 5), (0, 1, 2)]
    assert sum(call.operation == "conv" for call in detector.module.calls) == 72
    assert sum(call.operation == "add" for call in detector.module.calls) == 23
    assert load_cfg(FOLDER / "yolov3.cfg", size=(320, 320)).shapes[0] == (10, 10, 255)


def test_yolov3_tiny() -> None:
    detector = load_cfg(FOLDER / "yolov3-tiny.cfg", classes=80)
    widths = (3, 16, 32, 64, 128, 256, 512, 1024)
    expected = sum(normal(3, *pair) for pair in itertools.pairwise(widths))
    expected += normal(1, 1024, 256) + normal(3, 256, 512) + head(512)
    expected += normal(1, 256, 128) + normal(3, 128 + 256, 256) + head(256)
    assert numbers(detector) == expected == 8_858_734
    assert 20 + 4 * expected == 35_434_956  # bytes of the published file
    assert detector.shapes == ((13, 13, 255), (26, 26, 255))
    assert [one.mask for one in detector.heads] == [(3, 4, 5), (0, 1, 2)]


def test_yolo_bccd() -> None:
    detector = load_cfg(FOLDER / "yolo-bccd.cfg", classes=3)
    pairs = ((3, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128))
    pairs += ((128, 256), (256, 256), (64 + 128, 128))
    expected = sum(normal(3, *pair) for pair in pairs)
    expected += normal(1, 256, 64) + head(256, 2 * 8) + head(128, 4 * 8)
    assert numbers(detector) == expected == 1_425_952
    assert detector.shapes == ((8, 10, 16), (16, 20, 32))


@pytest.mark.data
def test_anchors_of_blood_cells() -> None:
    detector = load_cfg(FOLDER / "yolo-bccd.cfg")
    data = load_detection("bccd", "train")
    boxes, labels = np.concatenate(data.boxes), np.concatenate(data.labels)
    sides = (boxes[:, 2:] - boxes[:, :2]) * (320 / 640, 256 / 480)
    found = anchor_sizes(sides, 6, weights=1 / np.bincount(labels)[labels])
    np.testing.assert_array_equal(found.round(), detector.heads[0].anchors)

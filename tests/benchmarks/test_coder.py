"""The coder's benchmark: what its weights are."""

import math
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def coder() -> Any:
    import coder

    return coder


def test_the_shapes_are_those_of_yolov3(coder: Any) -> None:
    """Its published file has 62,001,757 numbers after the header: four for each channel of the 72
    layers with batch norm and one of the 3 without, apart from the weights."""
    shapes = list(coder.yolov3_shapes())
    channels = [shape[-1] for shape in shapes]
    heads = channels.count(255)
    assert (len(shapes), heads) == (75, 3)
    numbers = 4 * (sum(channels) - 3 * 255) + 3 * 255
    assert sum(map(math.prod, shapes)) + numbers == 62_001_757


def test_weights_have_their_zeros(coder: Any) -> None:
    for spread in (0.0, 0.5):
        kernel = coder.weights((3, 3, 20, 30), 0.9, spread, 0)
        assert np.mean(kernel == 0) == pytest.approx(0.9, abs=0.001)
        assert np.abs(kernel).max() == 7

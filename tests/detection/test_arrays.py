"""A set of images as arrays."""

import numpy as np
import pytest
from scenes import truth

from qevo.detection import fitted
from qevo.errors import QevoError


def test_boxes_in_pixels_of_the_network() -> None:
    data = truth(
        [[10, 20, 30, 60, 2, 0], [50, 0, 100, 100, 1, 1]],
        [],
        [[0, 0, 10, 10, 0, 0]],
    )
    found = fitted(data, (50, 200))
    assert (found.images.shape, found.images.dtype) == ((3, 50, 200, 3), np.uint8)
    np.testing.assert_array_equal(
        found.boxes,
        [
            [[20, 10, 60, 30], [100, 0, 200, 50]],
            [[0, 0, 0, 0], [0, 0, 0, 0]],
            [[0, 0, 20, 5], [0, 0, 0, 0]],
        ],
    )
    np.testing.assert_array_equal(found.labels, [[2, -1], [-1, -1], [0, -1]])
    np.testing.assert_array_equal(found.placements[0].back(found.boxes[0]), data.boxes[0])
    within = fitted(data, (50, 200), fit="letterbox")
    np.testing.assert_array_equal(within.boxes[0, 0], [80, 10, 90, 30])


def test_no_images() -> None:
    with pytest.raises(QevoError, match="expected images of val, found none"):
        fitted(truth(), (8, 8))

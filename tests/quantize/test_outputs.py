"""What networks return, and how it compares."""

from __future__ import annotations

import jax
import numpy as np

from qevo.integer.loss import BATCH_LIMIT, TARGET_TOTAL
from qevo.nets import LeNet300
from qevo.quantize import accuracy, float_logits, soft_labels


def test_soft_labels_of_any_number_of_images() -> None:
    images = BATCH_LIMIT + 2  # more than a summed loss may hold
    logits = np.tile(np.float32([0, np.log(3)]), (images, 1))
    quarter = TARGET_TOTAL // 4
    assert (soft_labels(logits, fraction_bits=12) == [quarter, 3 * quarter]).all()


def test_soft_labels_of_logits_that_leave_int32() -> None:
    logits = np.float32([[-3e5, 6e5, 6e5], [1e20, -1e20, 0]])
    half = TARGET_TOTAL // 2
    expected = [[0, half, half], [TARGET_TOTAL, 0, 0]]
    np.testing.assert_array_equal(soft_labels(logits, fraction_bits=13), expected)


def test_no_images_give_no_outputs() -> None:
    module = LeNet300(hidden=(4, 3), classes=5)
    images = np.zeros((0, 6, 7, 1), np.uint8)
    variables = module.init(jax.random.key(0), np.zeros((1, 6, 7, 1), np.uint8))
    logits = float_logits(module, variables, images)
    assert (logits.dtype, logits.shape) == (np.float32, (0, 5))
    assert soft_labels(logits, fraction_bits=12).shape == (0, 5)


def test_accuracy_takes_the_first_of_equal_logits() -> None:
    logits = np.array([[1, 2, 2], [0, 0, 0], [5, 4, 3], [-3, -2, -1]])
    assert accuracy(logits, np.array([1, 1, 0, 2])) == 0.75

"""One class as normal, all others as anomalies."""

import numpy as np
import pytest

from qevo.data import Dataset, Split, load, one_class
from qevo.errors import QevoError


def test_keeps_one_class_and_all_test_images():
    data = load("fashion_mnist_small")
    found = one_class(data, 5)
    for split, whole in ((found.search, data.search), (found.validation, data.validation)):
        np.testing.assert_array_equal(split.images, whole.images[whole.labels == 5])
        assert not split.labels.any()
    np.testing.assert_array_equal(found.test.images, data.test.images)
    np.testing.assert_array_equal(found.test.labels == 0, data.test.labels == 5)
    assert set(found.test.labels.tolist()) == {0, 1}
    assert found.classes == (data.classes[5], "anomaly")
    assert data.classes[5] in found.source
    assert found.fingerprint() != one_class(data, 4).fingerprint()


def split(*labels: int) -> Split:
    return Split(np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels, np.int32))


@pytest.mark.parametrize(
    ("normal", "test", "message"),
    [
        (3, (0, 1), "classes 0 to 2; there is no 3"),
        (-1, (0, 1), "there is no -1"),
        (2, (0, 2), "class c needs images in every split.* 0 validation"),
        (1, (0, 0), "found 1 search, 1 validation and 0 of 2 test images"),
        (1, (1, 1), "2 of 2 test images"),
    ],
)
def test_refuses(normal, test, message):
    data = Dataset("abc", split(0, 1, 2), split(0, 1), split(*test), ("a", "b", "c"), "here")
    with pytest.raises(QevoError, match=message):
        one_class(data, normal)

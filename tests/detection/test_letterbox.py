"""Images to a network's size, and boxes back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.detection import place
from qevo.detection.letterbox import Fit
from qevo.errors import QevoError

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(SIZES, SIZES, st.sampled_from(["stretch", "letterbox"]))
def test_boxes_come_back(size: tuple[int, int], target: tuple[int, int], fit: Fit) -> None:
    image = np.zeros((*size, 3), np.uint8)
    placed, placement = place(image, target, fit=fit)
    assert placed.shape == (*target, 3)
    height, width = size
    boxes = np.array([[0, 0, width, height], [width / 4, height / 3, width / 2, height / 2]])
    inside = placement.forward(boxes)
    assert np.all(inside >= -1e-3)
    assert np.all(inside <= [target[1] + 1e-3, target[0] + 1e-3] * 2)
    np.testing.assert_allclose(placement.back(inside), boxes, atol=2e-3)


@given(SIZES, SIZES, st.sampled_from(["stretch", "letterbox"]))
def test_a_box_lies_where_its_pixels_do(
    size: tuple[int, int], target: tuple[int, int], fit: Fit
) -> None:
    """What is black in the image is black in the input: bars are grey, and nothing else is."""
    placed, placement = place(np.zeros((*size, 3), np.uint8), target, fit=fit)
    rows, columns = np.nonzero(placed[..., 0] == 0)
    whole = np.array([[0, 0, size[1], size[0]]])
    edges = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    np.testing.assert_allclose(placement.forward(whole), edges, atol=1e-3)
    assert np.all(placed[placed > 0] == 127)


def test_letterbox_keeps_the_shape() -> None:
    image = np.full((50, 100, 3), 200, np.uint8)
    placed, placement = place(image, (40, 40), fit="letterbox")
    assert (placed == 200).all(axis=(1, 2)).tolist() == [10 <= row < 30 for row in range(40)]
    assert placement.scale == (0.4, 0.4)
    assert placement.offset == (0, 10)


@pytest.mark.parametrize(("size", "inner"), [((333, 360), (384, 416)), ((45, 10), (416, 92))])
def test_letterbox_divides_integers_as_darknet_does(
    size: tuple[int, int], inner: tuple[int, int]
) -> None:
    """In floats 360 x (416 / 360) is below 416."""
    placed, _ = place(np.full((*size, 3), 200, np.uint8), (416, 416), fit="letterbox")
    full = (placed == 200).all(axis=2)
    assert (full.any(1).sum(), full.any(0).sum()) == inner


def test_boxes_beyond_the_image_are_clipped() -> None:
    _, placement = place(np.zeros((50, 100, 3), np.uint8), (40, 40), fit="letterbox")
    assert placement.back(np.array([[-5.0, 0, 50, 20]])).tolist() == [[0, 0, 100, 25]]


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3), np.uint8)
    for fit in ("stretch", "letterbox"):
        np.testing.assert_array_equal(place(image, (20, 30), fit=fit)[0], image)


def test_what_is_no_image() -> None:
    with pytest.raises(QevoError, match=r"expected uint8 \[h, w, 3\], found float64 \[2, 2, 3\]"):
        place(np.zeros((2, 2, 3)), (4, 4))
    with pytest.raises(QevoError, match=r"at least 1, found \[0, 4\]"):
        place(np.zeros((2, 2, 3), np.uint8), (0, 4))
    with pytest.raises(QevoError, match="expected stretch or letterbox, found crop"):
        place(np.zeros((2, 2, 3), np.uint8), (4, 4), fit="crop")  # pyright: ignore[reportArgumentType]

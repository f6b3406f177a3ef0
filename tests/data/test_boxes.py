"""Sets of images with boxes, and the check of boxes that all readers share."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qevo.data.boxes import DetectionSet, ImageFiles, Marked, checked, checked_size
from qevo.errors import QevoError

NUMBERS = st.floats(-40, 40) | st.sampled_from([float("nan"), float("inf"), -1.0, 0.0, 20.0, 21.0])


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4))
def test_boxes_are_inside_or_refused(corners: list[tuple[float, float, float, float]]) -> None:
    """A box is kept within its image, is left out for no area, or is named in an error."""
    marked = [Marked(f"box {n}", n, corner) for n, corner in enumerate(corners)]
    try:
        found = checked(marked, (20, 30))
    except QevoError as error:
        at = int(str(error).split(":")[0].removeprefix("box "))
        x0, y0, x1, y1 = corners[at]
        fine = x0 <= x1 and y0 <= y1 and min(x0, y0) >= -1 and x1 <= 31 and y1 <= 21
        assert not fine
        return
    assert len(found.labels) + found.dropped == len(corners)
    assert np.all(found.boxes[:, :2] >= 0)
    assert np.all(found.boxes[:, 2:] <= [30, 20])
    assert np.all(found.boxes[:, 2:] > found.boxes[:, :2])
    for box, label in zip(found.boxes, found.labels, strict=True):
        np.testing.assert_allclose(box, corners[label], atol=1 + 1e-5)


def test_boxes_without_area_are_left_out_and_counted() -> None:
    boxes = [(5, 5, 5, 9), (5, 5, 9, 5), (5, 5, 9, 9), (30, 0, 31, 9)]
    found = checked([Marked("", 0, box, True) for box in boxes], (20, 30))
    assert found.dropped == 3
    assert found.boxes.tolist() == [[5, 5, 9, 9]]
    assert found.ignored.tolist() == [True]


@pytest.mark.parametrize("size", [(0, 4), (4, 65537), (4, 3.5), (4, float("nan")), (4, 1e300)])
def test_sizes_that_are_none(size: tuple[float, float]) -> None:
    with pytest.raises(QevoError, match=r"^here: expected an image of 1 to 65536 pixels a side"):
        checked_size(*size, "here")


def folder_of(tmp_path: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    files = []
    for number, (height, width) in enumerate(sizes):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((height, width), number, np.uint8)).save(files[-1])
    return files


def made(images: ImageFiles, sizes: list[tuple[int, int]]) -> DetectionSet:
    n = len(images)
    return DetectionSet(
        "mine",
        "val",
        images,
        np.array(sizes, np.int32),
        (np.array([[0, 0, 2, 2]], np.float32),) * n,
        (np.zeros(1, np.int32),) * n,
        (np.zeros(1, bool),) * n,
        tuple("abc"[:n]),
        ("thing",),
        "made here",
    )


def test_images_are_read_when_asked_for(tmp_path: Path) -> None:
    sizes = [(4, 5), (6, 7), (8, 9)]
    files = folder_of(tmp_path, sizes)
    data = made(ImageFiles(files), sizes)
    some = data.take([2, 0])
    assert (some.ids, some.objects, len(some)) == (("c", "a"), 2, 2)
    files[1].write_bytes(b"spoiled")  # and nobody has noticed
    np.testing.assert_array_equal(some.image(0), np.full((8, 9, 3), 2, np.uint8))
    np.testing.assert_array_equal(some.images[-1], np.zeros((4, 5, 3), np.uint8))
    assert [image.shape for image in data.images[::2]] == [(4, 5, 3), (8, 9, 3)]
    with pytest.raises(QevoError, match=f"^{files[1]}: expected a whole image file"):
        data.image(1)
    with pytest.raises(IndexError):
        data.images[3]
    assert len(data.take([])) == 0
    assert data.take(np.array([True, False, True])).ids == ("a", "c")


def test_an_image_of_another_size_than_its_boxes_are_for(tmp_path: Path) -> None:
    data = made(ImageFiles(folder_of(tmp_path, [(4, 5)])), [(5, 4)])
    with pytest.raises(QevoError, match=r"mine, image a: expected uint8 \[5, 4, 3\], as its anno"):
        data.image(0)


def test_parts_that_do_not_fit() -> None:
    one = np.zeros((4, 5, 3), np.uint8)

    def make(sizes: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> DetectionSet:
        ignored = (np.zeros(len(labels), bool),)
        return DetectionSet(
            "mine", "val", [one], sizes, (boxes,), (labels,), ignored, ("a",), ("thing",), "here"
        )

    size, box, label = np.array([[4, 5]]), np.zeros((1, 4)), np.zeros(1, int)
    make(size, box, label)
    with pytest.raises(QevoError, match="mine: expected all parts of 1 images"):
        make(size[:0], box, label)
    with pytest.raises(QevoError, match=r"mine, image a: expected boxes \[k, 4\]"):
        make(size, box[:, :3], label)
    with pytest.raises(QevoError, match="mine, image a: expected labels 0 to 0, found 1 to 1"):
        make(size, box, label + 1)

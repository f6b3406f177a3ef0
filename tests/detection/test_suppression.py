"""Non-maximum suppression, against a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qevo.detection import Detections, overlaps, suppress
from qevo.errors import QevoError

OVERLAPS = [0.21132, 0.45127, 0.91417]  # no ratio of areas here is so near that rounding decides


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(width * height / (both - width * height))


def in_a_loop(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, overlap: float, limit: int
) -> list[tuple[int, int]]:
    """(box, class) of what is kept, as darknet's do_nms_sort keeps it."""
    kept: list[tuple[int, int]] = []
    for label in range(scores.shape[1]):
        own: list[int] = []
        for box in sorted(range(len(boxes)), key=lambda n: (-scores[n, label], n)):
            if scores[box, label] > threshold and all(
                iou(boxes[box], boxes[other]) <= overlap for other in own
            ):
                own.append(box)
        kept += [(box, label) for box in own]
    kept.sort(key=lambda pair: (-scores[pair], pair))
    return kept[:limit]


def scene(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [3, 30, 4] on whole pixels, and scores [3, 30, 4] of so many levels: ties abound."""
    draw = np.random.RandomState(seed)
    low = draw.randint(0, 20, (3, 30, 2))
    boxes = np.concatenate([low, low + draw.randint(0, 16, (3, 30, 2))], axis=2)
    return boxes.astype(np.float32), (draw.randint(0, levels, (3, 30, 4)) / 64).astype(np.float32)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([3, 17, 64]), st.sampled_from(OVERLAPS))
def test_as_a_plain_loop_does(seed: int, levels: int, overlap: float) -> None:
    boxes, scores = scene(seed, levels)
    found = suppress(boxes, scores, threshold=0.02, overlap=overlap, limit=40)
    for image, one in enumerate(found):
        expected = in_a_loop(boxes[image], scores[image], 0.02, overlap, 40)
        assert one.labels.tolist() == [label for _, label in expected]
        rows = [box for box, _ in expected]
        np.testing.assert_array_equal(one.boxes, boxes[image][rows])
        np.testing.assert_array_equal(one.scores, [scores[image][pair] for pair in expected])


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_one_class_a_box(seed: int) -> None:
    boxes, scores = scene(seed, 64)
    found = suppress(boxes, scores, threshold=0.02, by_class=False, limit=30)
    for image, one in enumerate(found):
        best = scores[image].max(axis=1, keepdims=True)
        expected = [box for box, _ in in_a_loop(boxes[image], best, 0.02, 0.45, 30)]
        np.testing.assert_array_equal(one.boxes, boxes[image][expected])
        assert one.labels.tolist() == scores[image][expected].argmax(axis=1).tolist()


def test_only_the_most_confident_candidates_are_considered() -> None:
    boxes = np.array([[[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]]], np.float32)
    scores = np.array([[[0.5], [0.9], [0.7]]], np.float32)
    (found,) = suppress(boxes, scores, candidates=2)
    assert found.boxes[:, 0].tolist() == [20, 40]
    (found,) = suppress(boxes, scores, limit=1)
    assert found.boxes[:, 0].tolist() == [20]


def test_nothing_to_find() -> None:
    boxes, scores = scene(0, 64)
    for one in suppress(boxes, scores * 0):
        assert len(one) == 0
        assert one.boxes.shape == (0, 4)
    assert [len(one) for one in suppress(boxes[:, :0], scores[:, :0])] == [0] * len(boxes)
    assert [len(one) for one in suppress(boxes, scores[..., :0])] == [0] * len(boxes)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),
        ([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16),
        ([1, 1, 1, 1], [1, 1, 1, 1], 0),  # no area
    ],
)
def test_overlaps(first: list[int], second: list[int], expected: float) -> None:
    both = np.array([first, second], np.float32)
    assert overlaps(both[0], both[1]) == pytest.approx(expected)


def test_what_does_not_fit() -> None:
    boxes, scores = scene(0, 64)
    with pytest.raises(QevoError, match=r"expected boxes \[B, N, 4\] and scores \[B, N, C\]"):
        suppress(boxes[:, 1:], scores)
    with pytest.raises(QevoError, match="limits of at least 1, found 0 and 1000"):
        suppress(boxes, scores, limit=0)
    with pytest.raises(QevoError, match=r"found \[\[1, 4\], \[2\], \[1\]\]"):
        Detections(np.zeros((1, 4)), np.zeros(2), np.zeros(1))

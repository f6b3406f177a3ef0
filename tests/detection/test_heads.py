"""Raw maps to boxes, against darknet's formulas in a plain loop."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from qevo.detection import YoloHead, decode
from qevo.errors import QevoError

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0))
HEADS = (YoloHead(ANCHORS, (1, 2), 3), YoloHead(ANCHORS, (0,), 3, scale_x_y=1.05))
SIZE = (96, 128)  # height, width


def maps() -> list[np.ndarray]:
    draw = np.random.RandomState(0)
    return [draw.normal(0, 2, (2, 3, 4, 16)), draw.normal(0, 2, (2, 6, 8, 8))]


def in_a_loop(
    maps: list[np.ndarray], heads: tuple[YoloHead, ...], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """get_yolo_box and get_yolo_detections of darknet, one number at a time."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    boxes, scores = [], []
    for image in range(len(maps[0])):
        boxes.append([])
        scores.append([])
        for raw, head in zip(maps, heads, strict=True):
            rows, columns = raw.shape[1:3]
            for j in range(rows):
                for i in range(columns):
                    for k, anchor in enumerate(head.mask):
                        s = raw[image, j, i, k * 8 : k * 8 + 8]
                        alpha, beta = head.scale_x_y, -0.5 * (head.scale_x_y - 1)
                        x = (i + sigmoid(s[0]) * alpha + beta) / columns * size[1]
                        y = (j + sigmoid(s[1]) * alpha + beta) / rows * size[0]
                        w = math.exp(s[2]) * head.anchors[anchor][0]
                        h = math.exp(s[3]) * head.anchors[anchor][1]
                        boxes[-1].append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                        scores[-1].append([sigmoid(s[4]) * sigmoid(c) for c in s[5:]])
    return np.array(boxes), np.array(scores)


def test_as_darknet_does() -> None:
    boxes, scores = decode(maps(), HEADS, size=SIZE)
    assert (boxes.dtype, scores.dtype) == (jnp.float32, jnp.float32)
    expected = in_a_loop(maps(), HEADS, SIZE)
    np.testing.assert_allclose(boxes, expected[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores, expected[1], rtol=1e-4, atol=1e-6)


def test_integers_are_numbers() -> None:
    whole = [np.round(raw).astype(np.int32) for raw in maps()]
    for ours, theirs in zip(
        decode(whole, HEADS, size=SIZE),
        decode([raw.astype(np.float32) for raw in whole], HEADS, size=SIZE),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_whatever_a_network_says_boxes_are_finite() -> None:
    extreme = [np.full((1, 1, 1, 16), 1e9), np.full((1, 1, 1, 8), -1e9)]
    boxes, scores = decode(extreme, HEADS, size=SIZE)
    assert np.isfinite(boxes).all()
    assert np.isfinite(scores).all()
    assert np.all(np.asarray(boxes)[0, :2, 2] > 1e6)  # and still larger than any image


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": ()}, r"mask: expected indices of 3 anchors, found \[\]"),
        ({"mask": (3,)}, r"mask: expected indices of 3 anchors, found \[3\]"),
        ({"anchors": ((1.0, 0.0),), "mask": (0,)}, "anchors: expected pairs of positive pixels"),
        ({"classes": 0}, "at least one class"),
        ({"scale_x_y": 0.5}, "scale_x_y of at least 1"),
    ],
)
def test_heads_that_are_none(change: dict[str, object], message: str) -> None:
    fields = {"anchors": ANCHORS, "mask": (0,), "classes": 3, **change}
    with pytest.raises(QevoError, match=message):
        YoloHead(**fields)  # pyright: ignore[reportArgumentType]


def test_maps_that_do_not_fit() -> None:
    first, second = maps()
    with pytest.raises(QevoError, match="one map for each head, found 1 for 2"):
        decode([first], HEADS, size=SIZE)
    with pytest.raises(QevoError, match=r"map 1: expected \[2, h, w, 8\] for 1 anchors"):
        decode([first, second[..., :-1]], HEADS, size=SIZE)
    with pytest.raises(QevoError, match=r"one number of classes, found \[3, 4\]"):
        decode([first, second], (HEADS[0], YoloHead(ANCHORS, (0,), 4)), size=SIZE)

"""Who finds which object, and the loss, against darknet's rules in plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from qevo.detection import YoloHead, YoloLoss, decode, responsible, yolo_loss

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0))
HEADS = (YoloHead(ANCHORS, (2, 1), 2), YoloHead(ANCHORS, (0,), 2, scale_x_y=1.1))
SHAPES = (3, 4, 14), (6, 8, 7)
SIZE = (96, 128)  # height, width
PLACES = 3 * 4 * 2 + 6 * 8


def around(*objects: Sequence[float]) -> np.ndarray:
    """Boxes [1, K, 4] from centres, width and height."""
    x, y, width, height = np.array(objects, np.float32).T
    corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return np.stack(corners, axis=-1)[None]


@jax.jit
def find(boxes: Any, labels: Any) -> jax.Array:
    return responsible(boxes, labels, HEADS, SHAPES, size=SIZE)


@jax.jit
def measure(maps: Any, boxes: Any, labels: Any, ignore: Any = 0.5) -> YoloLoss:
    return yolo_loss(maps, boxes, labels, HEADS, size=SIZE, ignore=ignore)


slope = jax.jit(jax.grad(lambda *scene: measure(*scene).total))


def owners(boxes: np.ndarray, *labels: int) -> dict[int, int]:
    """Objects by the place that has to find them; filled up, so that one program serves all."""
    fill = 3 - len(labels)
    boxes = np.pad(boxes, ((0, 0), (0, fill), (0, 0)))
    found = np.asarray(find(boxes, np.array([[*labels, *(-1,) * fill]])))
    assert found.shape == (1, PLACES)
    return {int(at): int(found[0, at]) for at in np.flatnonzero(found[0] >= 0)}


def test_the_cell_of_the_centre_and_the_anchor_of_the_shape() -> None:
    large, middle, small = (100, 50, 36, 60), (10, 80, 22, 26), (40, 24, 10, 13)
    places = {(1 * 4 + 3) * 2: 0, (2 * 4 + 0) * 2 + 1: 1, 24 + 1 * 8 + 2: 2}
    assert owners(around(large, middle, small), 0, 1, 0) == places


def test_a_centre_on_the_far_edge_is_in_the_last_cell() -> None:
    assert owners(around((128, 96, 10, 14)), 0) == {24 + 47: 0}


def test_the_later_of_two_objects_at_one_place() -> None:
    assert owners(around((40, 24, 10, 14), (42, 26, 11, 13)), 0, 1) == {24 + 10: 1}


def test_nobody_finds_what_is_ignored_or_empty() -> None:
    assert owners(around((40, 24, 10, 14), (80, 24, 0, 14)), -1, 1) == {}


def scene() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Maps of two images, with boxes and labels of which some are ignored and some none."""
    draw = np.random.RandomState(0)
    maps = [draw.normal(0, 1, (2, *shape)).astype(np.float32) for shape in SHAPES]
    objects = draw.uniform((5, 5, 6, 6), (123, 91, 60, 70), (2, 6, 4))
    boxes = np.concatenate([around(*image) for image in objects])
    boxes[1, 4:] = 0
    return maps, boxes, np.array([[0, 1, 0, 1, 0, -1], [1, 1, 0, -1, -1, -1]])


def in_a_loop(maps: Any, boxes: Any, labels: Any, ignore: float) -> tuple[float, ...]:
    """delta_yolo_box, delta_yolo_class and the objectness of darknet, one number at a time."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    def nats(x: float, target: float) -> float:
        return -math.log(sigmoid(x) if target else 1 - sigmoid(x))

    def overlap(a: Any, b: Any) -> float:
        width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
        shared = max(width, 0) * max(height, 0)
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return shared / (sum(areas) - shared)

    decoded = np.asarray(decode(maps, HEADS, size=SIZE)[0])
    sums, objects = [0.0, 0.0, 0.0], 0
    for image in range(len(boxes)):
        at = 0
        for head, raw, (height, width, _) in zip(HEADS, maps, SHAPES, strict=True):
            for row, column, k in itertools.product(
                range(height), range(width), range(len(head.mask))
            ):
                said = np.asarray(raw[image, row, column, 7 * k : 7 * k + 7], np.float64)
                owner, silent = None, False
                for box, label in zip(boxes[image], labels[image], strict=True):
                    w, h = box[2] - box[0], box[3] - box[1]
                    if w * h == 0:
                        continue
                    shapes = [overlap((0, 0, w, h), (0, 0, *anchor)) for anchor in ANCHORS]
                    x, y = (box[0] + box[2]) / 2 * width / 128, (box[1] + box[3]) / 2 * height / 96
                    cell = int(y), int(x)
                    if label >= 0 and (*cell, head.mask[k]) == (row, column, np.argmax(shapes)):
                        owner = x - column, y - row, w, h, label
                    claims = label < 0 or sigmoid(said[5 + label]) > 0.25
                    silent |= claims and overlap(decoded[image, at], box) > ignore
                at += 1
                if owner is None:
                    sums[1] += 0 if silent else nats(said[4], 0)
                    continue
                x, y, w, h, label = owner
                anchor, s = ANCHORS[head.mask[k]], head.scale_x_y
                errors = [
                    sigmoid(v) * s - (s - 1) / 2 - t for v, t in zip(said, (x, y), strict=False)
                ]
                errors += [
                    v - math.log(t / a) for v, t, a in zip(said[2:], (w, h), anchor, strict=False)
                ]
                sums[0] += (2 - w * h / (96 * 128)) * sum(error**2 for error in errors)
                sums[1] += nats(said[4], 1)
                sums[2] += sum(nats(said[5 + c], c == label) for c in range(2))
                objects += 1
    return tuple(part / objects for part in sums)


@pytest.mark.parametrize("ignore", [0.3, 0.6])
def test_the_loss_is_darknets(ignore: float) -> None:
    maps, boxes, labels = scene()
    loss = measure(maps, boxes, labels, ignore)
    expected = in_a_loop(maps, boxes, labels, ignore)
    np.testing.assert_allclose(loss[1:], expected, rtol=1e-4)
    np.testing.assert_allclose(loss.total, sum(expected), rtol=1e-4)


def gradient(maps: Any, box: np.ndarray, label: int) -> np.ndarray:
    """Of the loss by what is said at each place [N, 7]."""
    found = slope(maps, box, np.array([[label]]))
    return np.concatenate([np.asarray(one).reshape(-1, 7) for one in found])


def said(**places: Sequence[float]) -> list[np.ndarray]:
    """Maps of one image that deny all objects, but for places such as ``at_30``."""
    flat = np.tile(np.array([0, 0, 0, 0, -40, 0, 0], np.float32), (PLACES, 1))
    for name, values in places.items():
        flat[int(name.removeprefix("at_"))] = values
    return [flat[:24].reshape(1, 3, 4, 14), flat[24:].reshape(1, 6, 8, 7)]


def test_nothing_to_learn_has_no_gradient() -> None:
    # The anchor itself in the middle of cell (1, 2) of the second map.
    box = around((40, 24, 10, 14))
    perfect = said(at_34=(0, 0, 0, 0, 40, -40, 40))
    assert np.abs(gradient(perfect, box, 1)).max() < 1e-6
    wrong = gradient(perfect, box, 0)
    assert set(np.flatnonzero(np.abs(wrong) > 1e-6)) == {34 * 7 + 5, 34 * 7 + 6}
    assert np.abs(gradient(said(), around((40, 24, 0, 0)), -1)).max() < 1e-6


def test_who_overlaps_an_object_is_not_pushed() -> None:
    """Place 15 is the middle anchor in the cell of an object that is more like the large one."""
    box = around((112, 48, 32, 42))
    assert owners(box, 1) == {14: 0}
    right = (0, 0, 0, 0, 40, -40, 40)

    def push(box: np.ndarray, label: int, *values: float) -> float:
        return float(gradient(said(at_14=right, at_15=values), box, label)[15, 4])

    fitting = math.log(32 / 23), math.log(42 / 27)
    assert push(box, 1, 0, 0, *fitting, 3, -9, 0) == 0
    assert push(box, 1, 0, 0, *fitting, 3, 0, -9) > 0.5  # it says another class
    assert push(box, 1, 0, 0, -1, -1, 3, -9, 0) > 0.5  # too small
    assert push(box, -1, 0, 0, *fitting, 3, 0, -9) == 0  # an ignored object may be of any class


def test_descent_on_maps_finds_the_object() -> None:
    box, label = around((100, 50, 40, 50)), np.array([[1]])
    maps = [np.zeros((1, *shape), np.float32) for shape in SHAPES]
    losses = []
    for _ in range(200):
        losses.append(np.array(measure(maps, box, label)))
        maps = [
            said - 0.3 * np.asarray(by)
            for said, by in zip(maps, slope(maps, box, label), strict=True)
        ]
    assert (losses[-1] < 0.05 * losses[0]).all()
    boxes, scores = (np.asarray(part)[0] for part in decode(maps, HEADS, size=SIZE))
    assert np.argwhere(scores > 0.5).tolist() == [[14, 1]]
    np.testing.assert_allclose(boxes[14], box[0, 0], atol=0.5)

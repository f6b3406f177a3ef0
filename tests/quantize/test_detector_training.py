"""Training a float detector on coloured squares."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from detectors import detector

from qevo.data import DetectionSet
from qevo.detection import average_precision, fitted
from qevo.errors import QevoError
from qevo.nets import Integer
from qevo.quantize import TrainingConfig, float_logits
from qevo.quantize.detector_training import Jitter, train_detector, varied
from qevo.quantize.importing.darknet import Detector

SIDE = 24
NET = """
[net]
width=24
height=24

[convolutional]
filters=8
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky
"""
YOLO = """
[convolutional]
filters=7
activation=linear

[yolo]
anchors=7,7
classes=2
"""
SECOND = """
[convolutional]
filters=16
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky
"""
STILL = Jitter(mirror=False, scale=0.0, stretch=0.0, shift=0.0, brightness=0.0)


def squares(count: int, seed: int = 0) -> DetectionSet:
    """One red and one green square in noise, in every image."""
    draw = np.random.RandomState(seed)
    images = draw.randint(60, 110, (count, SIDE, SIDE, 3)).astype(np.uint8)
    boxes = np.zeros((count, 2, 4), np.float32)
    for image, own in zip(images, boxes, strict=True):
        for label, half in enumerate((0, SIDE // 2)):
            side = draw.randint(5, 10)
            x, y = draw.randint(0, SIDE - side + 1), half + draw.randint(0, SIDE // 2 - side + 1)
            image[y : y + side, x : x + side, label] = 230
            own[label] = x, y, x + side, y + side
    return DetectionSet(
        "squares",
        "train",
        list(images),
        np.full((count, 2), SIDE, np.int32),
        tuple(boxes),
        (np.array([0, 1], np.int32),) * count,
        (np.zeros(2, bool),) * count,
        tuple(map(str, range(count))),
        ("red", "green"),
        "made here",
    )


def trained(made: Detector, data: DetectionSet, **options: Any) -> Any:
    images = fitted(data, (SIDE, SIDE))
    return train_detector(made, images.images, images.boxes, images.labels, **options)


@pytest.mark.slow
def test_learns(tmp_path: pathlib.Path) -> None:
    made = detector(tmp_path, NET + SECOND + YOLO)
    seen: list[tuple[int, dict[str, float]]] = []
    variables = trained(
        made,
        squares(64),
        config=TrainingConfig(epochs=120, batch=16, learning_rate=2e-2),
        jitter=Jitter(scale=0.1, shift=0.05),
        progress=lambda step, measured: seen.append((step, dict(measured))),
    )
    assert [step for step, _ in seen] == list(range(4, 481, 4))
    assert set(seen[-1][1]) == {"loss", "boxes", "objectness", "classes"}
    assert seen[-1][1]["loss"] < 0.3 * seen[0][1]["loss"]
    unseen = squares(24, seed=1)
    outputs = float_logits(made.module, variables, fitted(unseen, (SIDE, SIDE)).images)
    found = made.detections(outputs, limit=8, candidates=20)
    assert average_precision(found, unseen).map50 > 0.85


@pytest.mark.slow
def test_the_best_score_is_kept(tmp_path: pathlib.Path) -> None:
    """And training starts where objects are as rare as they are."""
    made = detector(tmp_path, NET + YOLO)
    scored: list[Any] = []
    seen: list[dict[str, float]] = []

    def score(variables: Any) -> float:
        scored.append(jax.tree.map(np.array, variables))
        return [0.3, 0.7, 0.5][len(scored) - 1]

    found = trained(
        made,
        squares(8),
        config=TrainingConfig(epochs=50, batch=8),
        jitter=Jitter(scale=0.1, shift=0.05),
        score=score,
        score_every=20,
        progress=lambda step, measured: seen.append({"step": step, **measured}),
    )
    scores = {one["step"]: one["score"] for one in seen if "score" in one}
    assert scores == {20: 0.3, 40: 0.7, 50: 0.5}
    assert [one["step"] for one in seen] == list(range(1, 51))
    jax.tree.map(np.testing.assert_array_equal, found, scored[1])
    assert seen[-1]["loss"] < 0.8 * seen[0]["loss"]
    bias = scored[0]["params"]["convolutional_1"]["bias"]
    assert abs(bias[4] - np.log(2 / (12 * 12 - 2))) < 0.1
    assert np.abs(bias[[0, 1, 2, 3, 5, 6]]).max() < 0.1


@jax.jit
def vary(key: jax.Array, jitter: Any, *batch: Any) -> tuple[jax.Array, ...]:
    return varied(key, *batch, jitter=Jitter(*jitter))


def rectangles(jitter: Jitter, seed: int = 0) -> tuple[tuple[np.ndarray, ...], ...]:
    """32 images of a bright rectangle on black, and what became of them; one program for all."""
    images = np.zeros((32, 40, 60, 3), np.uint8)
    images[:, 8:20, 36:52] = 200
    boxes = np.tile(np.array([[36, 8, 52, 20], [0, 0, 0, 0]], np.float32), (32, 1, 1))
    batch = images, boxes, np.tile(np.array([1, -1], np.int32), (32, 1))
    found = vary(jax.random.key(seed), dataclasses.astuple(jitter), *batch)
    return batch, tuple(map(np.asarray, found))


def test_nothing_varied() -> None:
    for before, after in zip(*rectangles(STILL), strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype


def test_boxes_go_with_their_images() -> None:
    """Where the box of a rectangle is said to be, is what is bright."""
    jitter = Jitter(True, upside_down=True, scale=0.5, stretch=0.3, shift=0.3, brightness=0.0)
    quarters, gone = set(), 0
    for seed in range(3):
        _, (images, boxes, labels) = rectangles(jitter, seed)
        assert np.all(labels[:, 1] == -1)
        for image, (box, _), (label, _) in zip(images, boxes, labels, strict=True):
            if label < 0:
                gone += 1
                continue
            rows, columns = np.nonzero(image[..., 0] > 164)  # beyond an image is 127
            said = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            np.testing.assert_allclose(said, box, atol=1.01)
            quarters.add((box[0] + box[2] > 60, box[1] + box[3] > 40))
    assert len(quarters) == 4
    assert 10 < gone < 60


def test_brightness_leaves_boxes() -> None:
    before, after = rectangles(dataclasses.replace(STILL, brightness=0.25))
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_array_equal(before[2], after[2])
    ratio = after[0].mean((1, 2)) / before[0].mean((1, 2))  # [32, 3]
    assert 1 / 1.25 / 1.09 < ratio.min() < 0.9
    assert 1.1 < ratio.max() < 1.25 * 1.09
    assert np.ptp(ratio, axis=1).min() > 0


def test_refuses(tmp_path: pathlib.Path) -> None:
    made, data = detector(tmp_path, NET + YOLO), fitted(squares(8), (SIDE, SIDE))
    with pytest.raises(QevoError, match="one batch of 16 images and a score_every of 1, not 8"):
        train_detector(made, data.images, data.boxes, data.labels)
    none = TrainingConfig(batch=0)
    with pytest.raises(QevoError, match="epochs and batch must be at least 1, got 20 and 0"):
        train_detector(made, data.images, data.boxes, data.labels, config=none)
    config = TrainingConfig(batch=4)
    with pytest.raises(QevoError, match=r"expected images \[8, 24, 24, 3\]"):
        train_detector(made, data.images[:, 2:], data.boxes, data.labels, config=config)
    with pytest.raises(QevoError, match="expected labels -1 to 1, found 1 to 2"):
        train_detector(made, data.images, data.boxes, data.labels + 1, config=config)
    integer = Detector(
        made.module.clone(numerics=Integer({}, {})), made.image_shape, made.heads, made.shapes
    )
    with pytest.raises(QevoError, match="Float numerics"):
        train_detector(integer, data.images, data.boxes, data.labels, config=config)

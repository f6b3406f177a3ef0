"""Mean average precision, against values by hand and a plain computation."""

import sys

import numpy as np
import pytest
from scenes import found, truth

from qevo.data import DetectionSet
from qevo.detection import Detections, average_precision, overlaps
from qevo.errors import QevoError


def test_perfect_none_and_half(capsys: pytest.CaptureFixture[str]) -> None:
    known = truth([(0, 0, 10, 10, 0, 0), (20, 20, 40, 40, 2, 0)], [(5, 5, 50, 50, 0, 0)])
    perfect = [Detections.known(*pair) for pair in zip(known.boxes, known.labels, strict=True)]
    best = average_precision(perfect, known)
    assert best[:2] == pytest.approx((1, 1))
    np.testing.assert_allclose(best.ap50, [1, np.nan, 1])  # no object of class 1
    nothing = average_precision([found(), found()], known)
    assert (nothing.map50, nothing.map50_95) == (0, 0)
    # Class 0: the surer one is right, the other false: recall 1/2 at precision 1, 51 of 101 points.
    half = average_precision(
        [found((0, 0, 10, 10, 0.9, 0), (20, 20, 40, 40, 0.8, 2)), found((60, 60, 70, 70, 0.5, 0))],
        known,
    )
    assert half.ap50[0] == pytest.approx(51 / 101)
    assert half.map50 == pytest.approx((1 + 51 / 101) / 2)
    assert capsys.readouterr().out == ""


def test_overlap_counts_up_to_its_share() -> None:
    """An overlap of 0.72 is enough at 0.50, 0.55, 0.60, 0.65 and 0.70, half of the ten."""
    known = truth([(0, 0, 100, 100, 0, 0)])
    score = average_precision([found((0, 0, 100, 72, 0.9, 0))], known)
    assert score.map50 == pytest.approx(1)
    assert score.map50_95 == pytest.approx(0.5)


def test_ignored_objects_count_neither_way() -> None:
    rows = [(0, 0, 10, 10, 0, 0), (50, 50, 90, 90, 0, 1)]
    there = found((50, 50, 70, 90, 0.9, 0), (0, 0, 10, 10, 0.8, 0))
    assert average_precision([there], truth(rows)).map50 == pytest.approx(1)
    assert average_precision([there], truth(rows[:1])).map50 == pytest.approx(0.5)


def test_a_plain_computation_agrees() -> None:
    draw = np.random.RandomState(3)
    images, guesses = [], []
    for _ in range(12):
        low = draw.randint(0, 60, (6, 2))
        corners = np.hstack([low, low + draw.randint(10, 40, (6, 2))])
        labels = draw.randint(0, 3, (6, 1))
        images.append(np.hstack([corners, labels, np.zeros((6, 1))]))
        moved = corners + draw.randint(-4, 5, corners.shape)
        wrong = np.where(draw.rand(6, 1) < 0.2, draw.randint(0, 3, (6, 1)), labels)
        rows = np.hstack([moved, draw.rand(6, 1), wrong])
        guesses.append(found(*rows[np.argsort(-rows[:, 4])]))
    known = truth(*images)
    ours = average_precision(guesses, known)
    for label in range(3):
        assert ours.ap50[label] == pytest.approx(plainly(guesses, known, label), abs=1e-9)
    assert ours.map50 == pytest.approx(ours.ap50.mean())


def plainly(guesses: list[Detections], known: DetectionSet, label: int) -> float:
    """AP at 0.5 by its definition: greedy matches, precision made falling, 101 recalls."""
    rows = []
    for guess, boxes, labels in zip(guesses, known.boxes, known.labels, strict=True):
        there = boxes[labels == label]
        free = np.ones(len(there), bool)
        mine = guess.labels == label
        for box, score in zip(guess.boxes[mine], guess.scores[mine], strict=True):
            shared = np.where(free, overlaps(box[None], there), -1) if len(there) else np.zeros(0)
            right = bool(len(there)) and shared.max() >= 0.5
            if right:
                free[np.argmax(shared)] = False
            rows.append((score, right))
    rows.sort(key=lambda row: -row[0])
    right = np.cumsum([row[1] for row in rows])
    precision = right / np.arange(1, len(rows) + 1)
    recall = right / sum(int((labels == label).sum()) for labels in known.labels)
    points = np.linspace(0, 1, 101)
    return float(np.mean([max(precision[recall >= r], default=0.0) for r in points]))


def test_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    known = truth([(0, 0, 10, 10, 0, 0)])
    with pytest.raises(QevoError, match="scene: expected detections of 1 images, found 2"):
        average_precision([found(), found()], known)
    with pytest.raises(QevoError, match="scene, image 0: expected labels 0 to 2, found 3 to 3"):
        average_precision([found((0, 0, 1, 1, 0.5, 3))], known)
    with pytest.raises(QevoError, match="expected at least one object to find"):
        average_precision([found()], truth([(0, 0, 10, 10, 0, 1)]))
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(QevoError, match=r"needs pycocotools: pip install -e '\.\[detection\]'"):
        average_precision([found()], known)

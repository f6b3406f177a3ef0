"""The picture of boxes, side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenes import found

from qevo.errors import QevoError
from qevo.report.boxes import draw_boxes

IMAGES = [np.full((40, 60, 3), 255, np.uint8), np.full((80, 60, 3), 255, np.uint8)]
TEACHER = [found((5, 5, 25, 25, 0.9, 0), (30, 5, 50, 25, 0.9, 1)), found()]
STUDENT = [found((5, 5, 25, 25, 0.8, 0), (5, 28, 20, 38, 0.8, 1), (1, 1, 59, 39, 0.1, 1)), found()]


def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The text and line style of each box that is drawn from now on."""
    from qevo.report import boxes

    seen: list[tuple[str, str]] = []
    draw = boxes._box

    def watched(ax: Any, box: Any, color: Any, text: str, style: str) -> None:
        seen.append((text, style))
        draw(ax, box, color, text, style)

    monkeypatch.setattr(boxes, "_box", watched)
    return seen


def test_what_is_lost_and_new_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = told(monkeypatch)
    path = tmp_path / "boxes.png"
    columns = {"teacher": TEACHER, "student": STUDENT}
    draw_boxes(path, IMAGES, columns, ("cat", "dog"), reference="teacher")
    assert sorted(seen) == sorted(
        [("cat 90", "-"), ("dog 90", "-"), ("lost: dog", "--"), ("cat 80", "-"), ("+ dog 80", "-")]
    )
    drawn = np.asarray(Image.open(path).convert("RGB"))
    assert drawn.shape[0] > drawn.shape[1] * 0.8
    assert np.any((drawn == (220, 38, 38)).all(axis=2))  # the red of what is lost


def test_without_reference_boxes_stand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = told(monkeypatch)
    draw_boxes(tmp_path / "boxes.png", IMAGES, {"student": STUDENT}, ("cat", "dog"), confidence=0)
    assert sorted(seen) == [("cat 80", "-"), ("dog 10", "-"), ("dog 80", "-")]


def test_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "boxes.png"
    with pytest.raises(QevoError, match="expected detections of 1 images, at least one, found"):
        draw_boxes(path, IMAGES[:1], {"teacher": TEACHER}, ("cat", "dog"))
    with pytest.raises(QevoError, match="reference: expected one of teacher, found truth"):
        draw_boxes(path, IMAGES, {"teacher": TEACHER}, ("cat", "dog"), reference="truth")

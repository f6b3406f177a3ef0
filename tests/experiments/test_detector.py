"""How far a detector's maps are from others: where it sees objects."""

from __future__ import annotations

import types

import numpy as np
import pytest


def test_only_what_is_seen_counts() -> None:
    from detector import SUREST, Subject

    numbers, anchors, images = 7, 80, 2
    draw = np.random.RandomState(0)
    expected = draw.uniform(-5, 5, (images, anchors, numbers)).astype(np.float32)
    expected[:, :, 4] = np.linspace(-6, 6, anchors)  # objectness: the last are the surest
    expected[:, -1, 5] = 7.0
    compared = images * (anchors + SUREST * numbers)

    def distance(image: int, anchor: int, number: int, change: float) -> float:
        found = expected.copy()
        found[image, anchor, number] += change
        flat = expected.reshape(images, -1), found.reshape(images, -1)
        subject = types.SimpleNamespace(numbers=numbers)
        return Subject.distance(subject, *flat) * compared  # pyright: ignore[reportArgumentType]

    assert distance(0, 0, 0, 3.0) == 0  # a box where nothing is seen
    assert distance(0, 0, 4, 0.5) == pytest.approx(0.25)  # but that something is
    assert distance(1, anchors - SUREST, 0, 0.5) == pytest.approx(0.25)
    assert distance(1, anchors - SUREST - 1, 0, 0.5) == 0
    assert distance(0, anchors - 1, 4, 0.5) == pytest.approx(2 * 0.25)  # as one of each
    assert distance(0, anchors - 1, 5, 100.0) == pytest.approx(1.0)  # from 7 to the limit of 8

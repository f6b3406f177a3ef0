"""Anchors by k-means."""

from __future__ import annotations

import numpy as np
import pytest

from qevo.detection import anchor_sizes
from qevo.errors import QevoError

MIDDLES = np.array([[8, 10], [40, 20], [60, 90]])
GROUP = np.repeat(np.arange(3), (90, 40, 10))  # many small, some flat, few large


def sizes() -> np.ndarray:
    return np.random.RandomState(0).uniform(0.9, 1.1, (140, 2)) * MIDDLES[GROUP]


def test_the_groups_that_there_are() -> None:
    mixed = np.random.RandomState(1).permutation(140)
    found = anchor_sizes(sizes()[mixed], 3, weights=1 / np.bincount(GROUP)[GROUP][mixed])
    means = [sizes()[group == GROUP].mean(axis=0) for group in range(3)]
    np.testing.assert_allclose(found, means)


def test_weights_are_repetitions() -> None:
    some, often = sizes()[::7], np.arange(20) % 4 + 1
    np.testing.assert_allclose(
        anchor_sizes(some, 4, weights=often), anchor_sizes(np.repeat(some, often, axis=0), 4)
    )


def test_as_many_anchors_as_sizes() -> None:
    few = np.array([[30.0, 30], [4, 5], [5, 4]])
    np.testing.assert_array_equal(anchor_sizes(few, 3), few[[1, 2, 0]])


@pytest.mark.parametrize(
    ("values", "count"),
    [([[3, 4]], 2), ([[3, 4]], 0), ([[3, 0], [1, 1]], 1), ([[3, np.nan]], 1), ([], 1)],
)
def test_refuses(values: list[list[float]], count: int) -> None:
    with pytest.raises(QevoError, match="anchors of as many sizes above 0"):
        anchor_sizes(np.array(values), count)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan]])
def test_refuses_weights(weights: list[float]) -> None:
    with pytest.raises(QevoError, match="expected 2 weights of 0 or more, one above 0"):
        anchor_sizes(np.array([[3.0, 4], [5, 6]]), 1, weights=np.array(weights))

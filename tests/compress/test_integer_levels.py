"""Optimal levels against all that there are."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.compress.integer_levels import integer_levels


@st.composite
def weighted_points(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Few points, some of them equal, in order."""
    numbers = st.integers(-40, 40).map(lambda k: k / 4)
    points = sorted(draw(st.lists(numbers, min_size=1, max_size=9)))
    weights = draw(st.lists(st.integers(1, 9), min_size=len(points), max_size=len(points)))
    return np.array(points), np.array(weights, np.float64)


def error_at(points: np.ndarray, weights: np.ndarray, levels: Any) -> float:
    """Of the nearest levels."""
    distance = np.abs(points[:, None] - np.asarray(levels, np.float64)).min(1)
    return float((weights * distance**2).sum())


@given(weighted_points(), st.integers(1, 4))
def test_no_integers_are_better(pair: Any, count: int) -> None:
    points, weights = pair
    found = integer_levels(points, weights, count, low=-4, high=5)
    best = min(
        error_at(points, weights, (0, *others))
        for others in itertools.combinations([k for k in range(-4, 6) if k], count - 1)
    )
    assert error_at(points, weights, found) == pytest.approx(best, abs=1e-8)
    assert 0 in found
    assert len(found) <= count
    assert found.min() >= -4
    assert found.max() <= 5

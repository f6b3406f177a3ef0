"""Optimal levels against all that there are."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.compress.kmeans import integer_levels, kmeans


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


@given(weighted_points(), st.integers(1, 5))
def test_no_clustering_is_better(pair: Any, clusters: int) -> None:
    points, weights = pair
    found = kmeans(points, weights, clusters)
    best = min(
        sum(
            (
                weights[a:b] * (points[a:b] - np.average(points[a:b], weights=weights[a:b])) ** 2
            ).sum()
            for a, b in itertools.pairwise((0, *cuts, len(points)))
        )
        for cuts in itertools.combinations(range(1, len(points)), min(clusters, len(points)) - 1)
    )
    assert found.error == pytest.approx(best, abs=1e-8)
    assert error_at(points, weights, found.centres) == pytest.approx(best, abs=1e-8)
    owner = np.searchsorted(found.starts, np.arange(len(points)), side="right") - 1
    spread = (weights * (points - found.centres[owner]) ** 2).sum()
    assert spread == pytest.approx(best, abs=1e-8)
    assert (np.diff(found.centres) > 0).all()


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


def test_many_points_far_from_zero() -> None:
    """Sums of squares would drown the differences without the shift."""
    draw = np.random.default_rng(0)
    points = np.sort(np.concatenate([draw.normal(c, 0.01, 500) for c in (1e6, 1e6 + 1, 1e6 + 2)]))
    found = kmeans(points, np.ones(1500), 3)
    np.testing.assert_allclose(found.centres, [1e6, 1e6 + 1, 1e6 + 2], atol=2e-3)
    assert list(found.starts) == [0, 500, 1000]

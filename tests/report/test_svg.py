"""Charts: where values land, and what an axis says."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.report.svg import HEIGHT, WIDTH, Line, histogram, line_chart, short, ticks


def points(chart: str) -> list[tuple[float, float]]:
    (found,) = re.findall(r'points="([^"]*)"', chart)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.split())]


numbers = st.floats(-1e9, 1e9, allow_nan=False)


@given(
    st.lists(st.tuples(st.floats(0, 1e9, allow_subnormal=False), numbers), min_size=1, max_size=900)
)
def test_a_curve_keeps_its_shape_within_the_chart(values: list[tuple[float, float]]) -> None:
    values.sort()
    x, y = zip(*values, strict=True)
    found = points(line_chart([Line("run", "r0", x, y)], x="seconds", y="accuracy"))
    assert len(found) <= 402
    assert all(0 <= a <= WIDTH and 0 <= b <= HEIGHT for a, b in found)
    across = [a for a, _ in found]
    assert across == sorted(across)
    # The last value is drawn, and above or below the first one as it should be.
    rise = (y[-1] - y[0]) / ((max(y) - min(y)) or 1)
    assert found[0][1] - found[-1][1] == pytest.approx(rise * (HEIGHT - 50) / 1.12, abs=0.11)


@given(numbers, st.floats(1e-6, 1e9))
def test_ticks_are_few_and_evenly_spaced(low: float, width: float) -> None:
    high = low + max(width, abs(low) * 1e-6)
    found = ticks(low, high)
    step = (high - low) * 1e-6
    assert 2 <= len(found) <= 6
    assert low - step <= found[0]
    assert found[-1] <= high + step
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert max(gaps) - min(gaps) <= step


def test_labels_of_ticks() -> None:
    shown = [short(value) for value in (0, 0.05, 85.5, 1500, 20_000, 1.5e6, 3e9)]
    assert shown == ["0", "0.05", "85.5", "1.5k", "20k", "1.5M", "3G"]


def test_a_histogram_is_as_high_as_its_counts() -> None:
    drawn = histogram(-1, [10, 40, 0], [20, 30, 0], label="levels of <layer>")
    heights = [float(h) for h in re.findall(r' height="([\d.]+)"', drawn)]
    assert heights[0] / heights[1] == pytest.approx(0.25, abs=0.01)
    assert heights[2] == 0
    assert "level -1: 10, before 20" in drawn
    assert "<layer>" not in drawn

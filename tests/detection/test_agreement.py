"""What a student still finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import found

from qevo.detection import agreement, matches
from qevo.errors import QevoError

TEACHER = found(
    (0, 0, 10, 10, 0.95, 0),
    (20, 0, 30, 10, 0.9, 1),
    (40, 0, 50, 10, 0.85, 2),
    (60, 0, 70, 10, 0.5, 0),
)


def test_counts() -> None:
    student = found(
        (0, 1, 10, 11, 0.9, 0),  # kept: moved a little
        (60, 0, 70, 10, 0.85, 0),  # the teacher finds it, unsure
        (80, 0, 90, 10, 0.82, 0),  # new
        (20, 0, 30, 10, 0.3, 1),  # kept, unsure
        (40, 0, 50, 10, 0.3, 0),  # of another class: lost
    )
    counts = agreement([TEACHER], [student])
    assert counts == (3, 2, 3, 1)
    assert (counts.kept_share, counts.new_share) == (2 / 3, 1 / 3)
    strict = agreement([TEACHER], [student], found=0.8)
    assert (strict.kept, strict.new) == (1, 2)


def test_nothing_sure_is_nothing_lost() -> None:
    none = agreement([found()], [found()])
    assert (none.kept_share, none.new_share) == (1, 0)
    assert agreement([TEACHER], [found()]).kept_share == 0


def test_an_object_stands_for_one_only() -> None:
    twice = found((0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0))
    assert matches(twice, found((0, 0, 10, 10, 0.9, 0))).tolist() == [0, -1]
    assert agreement([twice.above(0)], [found((0, 0, 10, 10, 0.9, 0))], confidence=0.7).kept == 1


ROWS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 99), st.integers(0, 1)),
    max_size=8,
)


@given(ROWS)
def test_one_agrees_with_itself(rows: list[tuple[int, int, int, int]]) -> None:
    rows.sort(key=lambda row: -row[2])
    one = found(*[(x, y, x + 9, y + 9, score / 100, label) for x, y, score, label in rows])
    counts = agreement([one], [one])
    assert counts.kept == counts.sure == counts.student_sure
    assert counts.new == 0


@given(ROWS, ROWS)
def test_matches_are_pairs(first: list, second: list) -> None:
    boxes = [
        found(*[(x, y, x + 9, y + 9, score / 100, label) for x, y, score, label in rows])
        for rows in (first, second)
    ]
    pairs = matches(boxes[0], boxes[1])
    taken = pairs[pairs >= 0]
    assert len(set(taken.tolist())) == len(taken)
    np.testing.assert_array_equal(boxes[0].labels[pairs >= 0], boxes[1].labels[taken])


def test_what_does_not_fit() -> None:
    with pytest.raises(QevoError, match="of the same images, found 1 and 2"):
        agreement([TEACHER], [TEACHER, TEACHER])
    with pytest.raises(QevoError, match=r"found 0.9 and 0.8"):
        agreement([TEACHER], [TEACHER], found=0.9)

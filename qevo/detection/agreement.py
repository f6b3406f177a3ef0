"""What a student network still finds of what its teacher finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qevo.detection.suppression import Detections, overlaps
from qevo.errors import QevoError


class Agreement(NamedTuple):
    """Counts over all images."""

    sure: int  # objects that the teacher is sure of
    kept: int  # of these, what the student finds
    student_sure: int  # objects that the student is sure of
    new: int  # of these, what the teacher does not find

    @property
    def kept_share(self) -> float:
        """0 to 1; 1 where the teacher is sure of nothing."""
        return self.kept / self.sure if self.sure else 1.0

    @property
    def new_share(self) -> float:
        """0 to 1; 0 where the student is sure of nothing."""
        return self.new / self.student_sure if self.student_sure else 0.0


def agreement(
    teacher: Sequence[Detections],
    student: Sequence[Detections],
    *,
    confidence: float = 0.8,
    found: float = 0.25,
    overlap: float = 0.5,
) -> Agreement:
    """Whether the objects that the teacher is sure of are still found, and what is new.

    Franca-Neto 2022 (arXiv 2206.05859) asks that a sparse student finds all objects that its
    teacher finds with more than 80 % confidence. What counts as found is left open there: here, an
    object of the same class that overlaps and has a score above `found`, each standing for one
    object only. An object that the student is sure of is new where the teacher, asked in the same
    way, does not find it.

    Args:
      teacher, student: what they find in the same images.
      confidence: scores above it are sure.
      found: darknet's threshold for objects that it shows; at most `confidence`.
      overlap: least intersection over union.

    Raises:
      QevoError: other numbers of images, or thresholds the wrong way round.
    """
    if len(teacher) != len(student):
        raise QevoError(
            f"expected detections of the same images, found {len(teacher)} and {len(student)}"
        )
    if not 0 <= found <= confidence <= 1:
        raise QevoError(f"expected 0 <= found <= confidence <= 1, found {found} and {confidence}")
    sure = kept = student_sure = new = 0
    for taught, learnt in zip(teacher, student, strict=True):
        here = matches(taught.above(confidence), learnt.above(found), overlap=overlap)
        there = matches(learnt.above(confidence), taught.above(found), overlap=overlap)
        sure, kept = sure + len(here), kept + int(np.sum(here >= 0))
        student_sure, new = student_sure + len(there), new + int(np.sum(there < 0))
    return Agreement(sure, kept, student_sure, new)


def matches(first: Detections, second: Detections, *, overlap: float = 0.5) -> np.ndarray:
    """The object of `second` that each object of `first` is; none is taken twice.

    In order of `first`, each takes the one of its class that it overlaps most, if by `overlap` of
    the union or more.

    Returns:
      int64 ``[n]`` indices, -1 where there is none.
    """
    shared = overlaps(first.boxes[:, None], second.boxes[None])
    shared = np.where(first.labels[:, None] == second.labels, shared, -1)
    taken = np.full(len(first), -1, np.int64)
    for row in range(len(first) if len(second) else 0):
        best = int(np.argmax(shared[row]))
        if shared[row, best] >= overlap:
            taken[row] = best
            shared[:, best] = -1
    return taken

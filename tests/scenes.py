"""Small scenes with known objects, and what is found in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qevo.data import DetectionSet
from qevo.detection import Detections


def found(*rows: Sequence[float]) -> Detections:
    """Detections from rows x0, y0, x1, y1, score, label."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def truth(*images: Sequence[Sequence[float]] | np.ndarray, classes: int = 3) -> DetectionSet:
    """A set of black images 100 x 100 from rows x0, y0, x1, y1, label, ignored for each image."""
    tables = [np.array(rows, np.float32).reshape(-1, 6) for rows in images]
    n = len(tables)
    return DetectionSet(
        "scene",
        "val",
        [np.zeros((100, 100, 3), np.uint8)] * n,
        np.full((n, 2), 100, np.int32),
        tuple(table[:, :4] for table in tables),
        tuple(table[:, 4].astype(np.int32) for table in tables),
        tuple(table[:, 5] > 0 for table in tables),
        tuple(str(row) for row in range(n)),
        tuple("abcdefgh"[:classes]),
        "made here",
    )

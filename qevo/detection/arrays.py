"""A set of images with boxes as arrays, of a network's size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qevo.data.boxes import DetectionSet
from qevo.detection.letterbox import Fit, Placement, place
from qevo.errors import QevoError


class Fitted(NamedTuple):
    """Images of one size, and their objects in arrays of one length, K the most of an image."""

    images: np.ndarray  # uint8 [n, H, W, 3]
    boxes: np.ndarray  # float32 [n, K, 4], corners in pixels of these images; 0 where none is left
    labels: np.ndarray  # int32 [n, K]; -1 where there is nothing to find: no object, or an ignored
    placements: tuple[Placement, ...]  # where each image lies in what it was made


def fitted(data: DetectionSet, size: tuple[int, int], *, fit: Fit = "stretch") -> Fitted:
    """Bring all images of a set, and their boxes, to a network's height and width.

    Raises:
      QevoError: a set without images, or as `place`.
    """
    if not len(data):
        raise QevoError(f"{data.name}: expected images of {data.split}, found none")
    placed = [place(data.image(row), size, fit=fit) for row in range(len(data))]
    most = max(1, *map(len, data.labels))
    boxes = np.zeros((len(data), most, 4), np.float32)
    labels = np.full((len(data), most), -1, np.int32)
    for row, (_, placement) in enumerate(placed):
        count = len(data.labels[row])
        boxes[row, :count] = placement.forward(data.boxes[row])
        labels[row, :count] = np.where(data.ignored[row], -1, data.labels[row])
    images, placements = zip(*placed, strict=True)
    return Fitted(np.stack(images), boxes, labels, placements)

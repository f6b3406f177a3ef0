"""How good detections are: mean average precision."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from qevo.data.boxes import DetectionSet
from qevo.detection.suppression import Detections
from qevo.errors import QevoError


class Precision(NamedTuple):
    """Average precision by COCO's rules, 0 to 1."""

    map50: float  # at an overlap of 0.5, mean over the classes that have objects
    map50_95: float  # mean over the overlaps 0.50, 0.55, ... 0.95 as well
    ap50: np.ndarray  # float64 [C], at an overlap of 0.5; nan for a class without objects


def average_precision(
    found: Sequence[Detections], truth: DetectionSet, *, limit: int = 100
) -> Precision:
    """Mean average precision, by pycocotools: 101 recalls; only classes with objects are averaged.

    Objects of `truth` that are marked as ignored count neither way, as COCO's crowds do: an object
    found within one is passed over.

    Args:
      found: for each image of `truth`, in its order; boxes in pixels of the image.
      truth: with at least one object that counts.
      limit: objects of each class that count in an image, the most confident. COCO's is 100.

    Raises:
      QevoError: where pycocotools is missing, the numbers of images differ, a label is not a class
        of `truth`, or there is no object to find.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError:
        raise QevoError(
            "average precision needs pycocotools: pip install -e '.[detection]' in qevo's checkout"
        ) from None
    _check(found, truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        known: Any = COCO()
        known.dataset = _as_coco(truth)
        known.createIndex()
        rows = np.concatenate([_rows(number, one) for number, one in enumerate(found, start=1)])
        # From no rows at all it would infer no kind of annotation, so one of score 0 stands in.
        nothing = np.array([[1, 0, 0, 0, 0, 0, 1]], np.float64)
        evaluation = COCOeval(known, known.loadRes(rows if len(rows) else nothing), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, math.inf]], ["all"]
        evaluation.params.maxDets = [limit]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # [overlaps, recalls, classes]
    precision = np.where(precision < 0, np.nan, precision)
    there = ~np.isnan(precision[0, 0])
    ap50 = precision[0].mean(axis=0)
    return Precision(float(ap50[there].mean()), float(precision[..., there].mean()), ap50)


def _check(found: Sequence[Detections], truth: DetectionSet) -> None:
    if len(found) != len(truth):
        raise QevoError(
            f"{truth.name}: expected detections of {len(truth)} images, found {len(found)}"
        )
    if all(ignored.all() for ignored in truth.ignored):
        raise QevoError(f"{truth.name}: expected at least one object to find, found none")
    for row, one in enumerate(found):
        if len(one) and not 0 <= one.labels.min() <= one.labels.max() < len(truth.classes):
            raise QevoError(
                f"{truth.name}, image {truth.ids[row]}: expected labels 0 to "
                f"{len(truth.classes) - 1}, found {one.labels.min()} to {one.labels.max()}"
            )


def _as_coco(truth: DetectionSet) -> dict[str, list[dict[str, object]]]:
    objects: list[dict[str, object]] = []
    for row, (boxes, labels, ignored) in enumerate(
        zip(truth.boxes, truth.labels, truth.ignored, strict=True)
    ):
        for box, label, passed in zip(_sides(boxes), labels, ignored, strict=True):
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": row + 1,
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(passed),
                }
            )
    return {
        "info": [],
        "images": [{"id": row + 1} for row in range(len(truth))],
        "categories": [{"id": label + 1, "name": n} for label, n in enumerate(truth.classes)],
        "annotations": objects,
    }


def _rows(image: int, found: Detections) -> np.ndarray:
    """float64 [n, 7], as pycocotools takes them: image, x, y, width, height, score, category."""
    number = np.full((len(found), 1), image)
    category = found.labels[:, None] + 1
    return np.hstack([number, _sides(found.boxes), found.scores[:, None], category])


def _sides(boxes: np.ndarray) -> np.ndarray:
    corners = boxes.astype(np.float64)
    return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])

"""A float detector with its images, and how good what it says is; for the scripts beside it."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from qevo.data import DetectionSet, load_detection
from qevo.detection import Detections, agreement, average_precision, place
from qevo.errors import QevoError
from qevo.nets import QuantizedNetwork
from qevo.quantize import float_logits
from qevo.quantize.importing.darknet import Detector, load_darknet
from qevo.report.boxes import draw_boxes

PUBLISHED = "yolo-fastest-1.1", "yolo-fastest-1.1-xl"
SPLITS = {"coco256": "val", "bccd": "test"}  # what nothing has seen
SHOWN = 0.25  # score above which an object counts as found


class Subject:
    """A network, and the images that it is fitted to and measured on.

    Args:
      network: one of `PUBLISHED`, on COCO; or a folder with net.cfg and net.weights, on ``bccd``.

    Raises:
      QevoError: no such network, or its data or weights are not there.
    """

    def __init__(self, network: str) -> None:
        self.name = pathlib.Path(network).name
        if network in PUBLISHED:
            root = pathlib.Path(os.environ.get("QEVO_DATA_DIR", ".")) / "weights" / "yolo_fastest"
            cfg, weights, self.data = (
                root / f"{network}.cfg",
                root / f"{network}.weights",
                "coco256",
            )
        else:
            root = pathlib.Path(network)
            cfg, weights, self.data = root / "net.cfg", root / "net.weights", "bccd"
            if not root.is_dir():
                raise QevoError(
                    f"{network}: expected {', '.join(PUBLISHED)}, or the folder of a run of"
                    " experiments/yolo_bccd.py"
                )
        self.detector: Detector
        self.detector, self.variables = load_darknet(cfg, weights)
        self.numbers = 5 + self.detector.heads[0].classes
        self.depthwise = [
            call.name
            for call in self.detector.module.calls
            if dict(call.options).get("depthwise", False)
        ]
        self.train = load_detection(self.data, "train")
        self.test = load_detection(self.data, SPLITS[self.data])
        self.train_images = self._placed(self.train)[0]
        self.test_images, self.placements = self._placed(self.test)

    @functools.cached_property
    def float_outputs(self) -> np.ndarray:
        """Of the test images, float32 ``[n, N]``."""
        return float_logits(self.detector.module, self.variables, self.test_images)

    @functools.cached_property
    def train_outputs(self) -> np.ndarray:
        """Of the training images."""
        return float_logits(self.detector.module, self.variables, self.train_images)

    @functools.cached_property
    def teacher_found(self) -> list[Detections]:
        """What the float network finds in the test images."""
        return self.found(self.float_outputs)

    def outputs(self, network: QuantizedNetwork) -> np.ndarray:
        """An integer network's maps of the test images, in the float network's units."""
        return (network(self.test_images) * network.output_scale).astype(np.float32)

    def found(self, outputs: np.ndarray) -> list[Detections]:
        """Objects in the pixels of the test images, by darknet's rule."""
        return self.detector.detections(outputs, self.placements)

    def labelled(self) -> list[Detections]:
        """The objects that are there."""
        return [
            Detections.known(boxes, labels)
            for boxes, labels in zip(self.test.boxes, self.test.labels, strict=True)
        ]

    def measured(self, outputs: np.ndarray) -> dict[str, float]:
        """Average precision, and what is kept of what the float network is sure of."""
        found = self.found(outputs)
        precision = average_precision(found, self.test)
        counts = agreement(self.teacher_found, found, found=SHOWN)
        return {
            "map50": precision.map50,
            "map50_95": precision.map50_95,
            "sure": counts.sure,
            "kept": counts.kept_share,
            "new": counts.new_share,
        }

    def draw_examples(
        self, path: pathlib.Path, found: Mapping[str, list[Detections]], count: int
    ) -> None:
        """A picture of labels, what the float network finds, and what others do, by title.

        The ``count`` images are those with the most objects that the float network is sure of.
        """
        columns = {"labels": self.labelled(), "float": self.teacher_found, **found}
        sure = [len(one.above(0.5)) for one in self.teacher_found]
        rows = sorted(np.argsort(sure)[::-1][:count].tolist())
        draw_boxes(
            path,
            [self.test.images[row] for row in rows],
            {title: [objects[row] for row in rows] for title, objects in columns.items()},
            self.test.classes,
            reference="float",
        )

    def _placed(self, data: DetectionSet) -> tuple[np.ndarray, tuple[Any, ...]]:
        size = self.detector.image_shape[:2]
        images, placements = zip(*(place(image, size) for image in data.images), strict=True)
        return np.stack(images), placements

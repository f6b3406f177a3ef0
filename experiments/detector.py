"""A float detector with its images, and how good what it says is; for the scripts beside it."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from float_networks import WEIGHTS

from qevo import NetworkProblem
from qevo.data import load_detection
from qevo.detection import Detections, agreement, average_precision, fitted
from qevo.errors import QevoError
from qevo.nets import FixedMaps, QuantizedNetwork
from qevo.nets.fixed_maps import OBJECTNESS, REACH
from qevo.problems.genes import Genes
from qevo.quantize import FloatTeacher, float_logits
from qevo.quantize.importing.darknet import Detector, load_darknet
from qevo.report.boxes import draw_boxes

PUBLISHED = "yolo-fastest-1.1", "yolo-fastest-1.1-xl"
SPLITS = {"coco256": "val", "bccd": "test"}  # what nothing has seen
SHOWN = 0.25  # score above which an object counts as found
SUREST = 64  # anchors of an image whose numbers are all compared
DEPTHWISE = 8  # bits of depthwise layers, which have few weights


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
            cfg, self.data = WEIGHTS / "yolo_fastest" / f"{network}.cfg", "coco256"
            weights = cfg.with_suffix(".weights")
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
        size = self.detector.image_shape[:2]
        self.train_images = fitted(self.train, size).images
        test = fitted(self.test, size)
        self.test_images, self.placements = test.images, test.placements

    @property
    def record_name(self) -> str:
        """The name, as those of records have it."""
        return self.name.replace("-", "_").replace(".", "_")

    def bits(self, width: str | int) -> dict[str, str | int]:
        """Of all layers, where all but the depthwise ones have that many."""
        return {"*": width} | dict.fromkeys(self.depthwise, DEPTHWISE)

    def draw(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Training images at random, by number: so many to be fitted to, and the others."""
        rows = np.random.default_rng(seed).permutation(len(self.train))
        return rows[:count], rows[count:]

    def teacher(self, rows: np.ndarray) -> FloatTeacher:
        """The float network, calibrated on some training images."""
        return FloatTeacher(self.detector.module, self.variables, self.train_images[rows])

    def problem(
        self,
        network: QuantizedNetwork,
        rows: np.ndarray,
        others: np.ndarray,
        *,
        genes: Sequence[Genes] = ("weights", "multipliers", "biases"),
        radius: int,
        batch: int,
    ) -> NetworkProblem:
        """A search for the float network's maps where it sees objects.

        Args:
          network: where it starts.
          rows: training images that it is scored on.
          others: those on which it is accepted.
          genes, radius: as `NetworkProblem.of` takes them.
          batch: images that candidates are scored on.
        """
        maps = FixedMaps.of(network, self.detector.shapes, self.numbers, surest=SUREST)
        targets = maps.targets(self.train_outputs)
        return NetworkProblem.of(
            network,
            self.train_images[rows],
            targets[rows],
            self.train_images[others],
            targets[others],
            loss="squared_error",
            maps=maps,
            genes=genes,
            radius=radius,
            batch_size=min(batch, len(rows)),
            arithmetic="fast",
            batch_chunk=min(batch, 16),
        )

    def distance(self, expected: np.ndarray, found: np.ndarray) -> float:
        """Mean squared difference of maps ``[n, N]`` where objects are seen, as `FixedMaps` has it.

        What is compared are the objectness of all anchors and all numbers of the surest.
        """
        maps = [
            np.clip(part, -REACH, REACH).reshape(len(part), -1, self.numbers)
            for part in (expected, found)
        ]
        squares = np.square(maps[1] - maps[0])
        surest = np.argsort(-maps[0][:, :, OBJECTNESS], axis=1, kind="stable")[:, :SUREST]
        numbers = np.take_along_axis(squares, surest[:, :, None], axis=1)
        total = squares[:, :, OBJECTNESS].sum(dtype=np.float64) + numbers.sum(dtype=np.float64)
        return float(total / (squares[:, :, OBJECTNESS].size + numbers.size))

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

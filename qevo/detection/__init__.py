"""Object detection around a network: images in, objects out, and how good they are."""

from qevo.detection.accuracy import Precision, average_precision
from qevo.detection.agreement import Agreement, agreement, matches
from qevo.detection.anchors import anchor_sizes
from qevo.detection.arrays import Fitted, fitted
from qevo.detection.heads import YoloHead, decode
from qevo.detection.letterbox import Placement, place
from qevo.detection.suppression import Detections, overlaps, suppress
from qevo.detection.targets import YoloLoss, responsible, yolo_loss

__all__ = [
    "Agreement",
    "Detections",
    "Fitted",
    "Placement",
    "Precision",
    "YoloHead",
    "YoloLoss",
    "agreement",
    "anchor_sizes",
    "average_precision",
    "decode",
    "fitted",
    "matches",
    "overlaps",
    "place",
    "responsible",
    "suppress",
    "yolo_loss",
]

"""Object detection around a network: images in, objects out, and how good they are."""

from qevo.detection.accuracy import Precision, average_precision
from qevo.detection.agreement import Agreement, agreement, matches
from qevo.detection.heads import YoloHead, decode
from qevo.detection.letterbox import Placement, place
from qevo.detection.suppression import Detections, overlaps, suppress

__all__ = [
    "Agreement",
    "Detections",
    "Placement",
    "Precision",
    "YoloHead",
    "agreement",
    "average_precision",
    "decode",
    "matches",
    "overlaps",
    "place",
    "suppress",
]

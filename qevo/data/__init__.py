"""Real data as uint8 arrays, split once into search, validation and test."""

from qevo.data.boxes import DetectionSet
from qevo.data.dataset import Dataset, Split, shuffled
from qevo.data.folders import is_unlabelled, read_unlabelled
from qevo.data.load import load
from qevo.data.load_boxes import load_detection
from qevo.data.one_class import one_class
from qevo.data.swat import read_swat

__all__ = [
    "Dataset",
    "DetectionSet",
    "Split",
    "is_unlabelled",
    "load",
    "load_detection",
    "one_class",
    "read_swat",
    "read_unlabelled",
    "shuffled",
]

"""Detectors from darknet's files: ``.cfg`` is an architecture, ``.weights`` its variables."""

from qevo.quantize.importing.darknet.architecture import load_cfg
from qevo.quantize.importing.darknet.detector import Detector
from qevo.quantize.importing.darknet.sections import Section, read_cfg
from qevo.quantize.importing.darknet.weights import (
    load_darknet,
    read_weights,
    write_weights,
)

__all__ = [
    "Detector",
    "Section",
    "load_cfg",
    "load_darknet",
    "read_cfg",
    "read_weights",
    "write_weights",
]

"""Quantized networks in other words: ONNX, C and packed weights, with the same integers."""

from qevo.export.c_source import CSource, c_source
from qevo.export.check import Outputs, first_difference, run_c, run_onnx
from qevo.export.onnx_model import onnx_model
from qevo.export.packed import packed_difference, packed_file, read_packed
from qevo.export.steps import Step, Tensor, steps_of

__all__ = [
    "CSource",
    "Outputs",
    "Step",
    "Tensor",
    "c_source",
    "first_difference",
    "onnx_model",
    "packed_difference",
    "packed_file",
    "read_packed",
    "run_c",
    "run_onnx",
    "steps_of",
]

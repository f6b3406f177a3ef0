"""Exact integer arithmetic: requantization, products, fixed-point losses, and the audit."""

from qevo.integer.audit import AuditReport, ExactProduct, Finding, audit
from qevo.integer.loss import (
    BATCH_LIMIT,
    CLASS_LIMIT,
    LOSS_LIMIT,
    TARGET_TOTAL,
    UNIT,
    cross_entropy,
    error_count,
    soft_cross_entropy,
    softmax,
    squared_error,
    squared_error_shift,
)
from qevo.integer.products import Path, choose_path, conv, dot
from qevo.integer.requantize import requantize, shift_round

__all__ = [
    "BATCH_LIMIT",
    "CLASS_LIMIT",
    "LOSS_LIMIT",
    "TARGET_TOTAL",
    "UNIT",
    "AuditReport",
    "ExactProduct",
    "Finding",
    "Path",
    "audit",
    "choose_path",
    "conv",
    "cross_entropy",
    "dot",
    "error_count",
    "requantize",
    "shift_round",
    "soft_cross_entropy",
    "softmax",
    "squared_error",
    "squared_error_shift",
]

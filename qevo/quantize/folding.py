"""Batch norm folded into the kernel and bias before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qevo.nets.float_numerics import BATCH_NORM_EPSILON


def fold_batch_norm(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The ``params`` that `Calibrating` reads: every layer a kernel and a bias, float32.

    ``y = g (w x - m) / sqrt(v + e) + b`` becomes a kernel ``w g / sqrt(v + e)`` and a bias
    ``b - m g / sqrt(v + e)``, per output channel; computed in float64.

    Args:
      variables: of a `Float` network: ``params`` and, where it normalises, ``batch_stats``.
    """
    return _fold(variables["params"], variables.get("batch_stats", {}))


def _fold(params: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    if "kernel" not in params:
        return {name: _fold(part, statistics.get(name, {})) for name, part in params.items()}
    kernel = np.asarray(params["kernel"], np.float64)
    if "norm" not in params:
        return {"kernel": np.float32(kernel), "bias": np.asarray(params["bias"], np.float32)}
    norm = {k: np.asarray(v, np.float64) for k, v in params["norm"].items()}
    mean, var = (np.asarray(statistics["norm"][k], np.float64) for k in ("mean", "var"))
    gain = norm["scale"] / np.sqrt(var + BATCH_NORM_EPSILON)
    return {"kernel": np.float32(kernel * gain), "bias": np.float32(norm["bias"] - mean * gain)}

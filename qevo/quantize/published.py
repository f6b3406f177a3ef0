"""Published float weights, brought into the tree of our architectures."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from qevo.errors import QevoError
from qevo.nets.float_numerics import BATCH_NORM_EPSILON, Float
from qevo.nets.images import RAW_PIXELS
from qevo.nets.resnet import ResNet8

_KERAS_EPSILON = 1e-3
_RESNET8_LAYERS = (  # in the order of the keras names conv2d, conv2d_1, ...
    "stem",
    "block_0_0/conv_0",
    "block_0_0/conv_1",
    "block_1_0/conv_0",
    "block_1_0/conv_1",
    "block_1_0/shortcut",
    "block_2_0/conv_0",
    "block_2_0/conv_1",
    "block_2_0/shortcut",
)


def load_resnet8(path: str | os.PathLike[str]) -> tuple[ResNet8, dict[str, Any]]:
    """MLPerf Tiny's float ResNet-8 for CIFAR-10, from an npz with its keras names.

    The convolutions' own biases are absorbed into the means of the batch norms behind them, and the
    difference of the two epsilons into the variances, so that the function is the same.

    Returns:
      The architecture, which takes raw pixels, and its variables.

    Raises:
      QevoError: if the file does not exist, is no npz, or lacks an array.
    """
    if not Path(path).is_file():
        raise QevoError(f"no such file: {path}")
    try:
        with open(path, "rb") as file, np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return ResNet8(Float(scaling=RAW_PIXELS)), _resnet8_variables(arrays)
    except KeyError as error:
        raise QevoError(f"{path}: no array {error} of MLPerf Tiny's ResNet-8") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise QevoError(f"{path}: not a readable npz: {error}") from None


def _resnet8_variables(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    params: dict[str, Any] = {
        "logits": {"kernel": arrays["dense.kernel"], "bias": arrays["dense.bias"]}
    }
    statistics: dict[str, Any] = {}
    norms = 0
    for i, layer in enumerate(_RESNET8_LAYERS):
        conv, (*block, name) = _keras("conv2d", i), layer.split("/")
        kernel, bias = arrays[f"{conv}.kernel"], arrays[f"{conv}.bias"]
        place, statistics_place = params, statistics
        for part in block:
            place = place.setdefault(part, {})
            statistics_place = statistics_place.setdefault(part, {})
        if name == "shortcut":
            place[name] = {"kernel": kernel, "bias": bias}
            continue
        norm = _keras("batch_normalization", norms)
        norms += 1
        variance = arrays[f"{norm}.moving_variance"] + (_KERAS_EPSILON - BATCH_NORM_EPSILON)
        place[name] = {
            "kernel": kernel,
            "norm": {"scale": arrays[f"{norm}.gamma"], "bias": arrays[f"{norm}.beta"]},
        }
        statistics_place[name] = {
            "norm": {"mean": arrays[f"{norm}.moving_mean"] - bias, "var": np.float32(variance)}
        }
    return {"params": params, "batch_stats": statistics}


def _keras(kind: str, index: int) -> str:
    return f"{kind}_{index}" if index else kind

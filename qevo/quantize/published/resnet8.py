"""MLPerf Tiny's ResNet-8, in keras names and layouts."""

from __future__ import annotations

import os
from typing import Any

from flax.traverse_util import unflatten_dict

from qevo.nets.float_numerics import Float
from qevo.nets.images import RAW_PIXELS
from qevo.nets.resnet import ResNet8
from qevo.quantize.published.archive import Archive, batch_norm
from qevo.quantize.variables import variable_shapes

_EPSILON = 1e-3
_LAYERS = (  # in the order of the keras names conv2d, conv2d_1, ...
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
    """MLPerf Tiny's float ResNet-8 for CIFAR-10, from a file with its keras names.

    The convolutions' own biases are absorbed into the means of the batch norms behind them, and the
    difference of the two epsilons into the variances, so that the function is the same.

    Returns:
      The architecture, which takes raw pixels, and its variables.

    Raises:
      QevoError: if the file does not exist or cannot be read, or an array is missing, left over, of
        another shape, or not finite.
    """
    archive = Archive(path, "MLPerf Tiny's ResNet-8")
    module = ResNet8(Float(scaling=RAW_PIXELS))
    shape = variable_shapes(module, (32, 32, 3))
    flat = {
        f"params/logits/{key}": archive.take(f"dense.{key}", shape[f"params/logits/{key}"])
        for key in ("kernel", "bias")
    }
    norms = 0
    for i, layer in enumerate(_LAYERS):
        conv, kernel = _keras("conv2d", i), f"params/{layer}/kernel"
        channels = shape[kernel][-1:]
        flat[kernel] = archive.take(f"{conv}.kernel", shape[kernel])
        bias = archive.take(f"{conv}.bias", channels)
        if layer.endswith("shortcut"):
            flat[f"params/{layer}/bias"] = bias
            continue
        norm = _keras("batch_normalization", norms)
        norms += 1
        flat |= batch_norm(
            layer,
            scale=archive.take(f"{norm}.gamma", channels),
            bias=archive.take(f"{norm}.beta", channels),
            mean=archive.take(f"{norm}.moving_mean", channels) - bias,
            variance=archive.take(f"{norm}.moving_variance", channels),
            epsilon=_EPSILON,
        )
    archive.finish()
    return module, unflatten_dict(flat, sep="/")


def _keras(kind: str, index: int) -> str:
    return f"{kind}_{index}" if index else kind

"""Every way to round a network, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.baselines.adaround import AdaRound
from qevo.quantize.baselines.gptq import GPTQ
from qevo.quantize.bits import BitsByPattern
from qevo.quantize.convert import FloatTeacher
from qevo.quantize.evolutionary import EvolutionaryRounding
from qevo.quantize.layerwise import LayerwiseFit
from qevo.quantize.rounding import Rounding, round_max_abs, round_squared_error

Method = Literal["nearest", "gptq", "adaround", "layerwise", "evolutionary"] | Rounding

ROUNDINGS: dict[str, Rounding] = {
    "gptq": GPTQ(),
    "adaround": AdaRound(),
    "layerwise": LayerwiseFit(),
    "evolutionary": EvolutionaryRounding(),
}


def quantize_network(
    module: nn.Module,
    variables: Mapping[str, Any],
    images: np.ndarray,
    *,
    bits: BitsByPattern,
    activation_bits: int = 8,
    method: Method = "nearest",
    fit_bias: bool = True,
) -> QuantizedNetwork:
    """Fold, calibrate, choose scales, round.

    Args:
      module, variables, images, activation_bits: as `FloatTeacher` takes them.
      bits, method, fit_bias: as `round_network` takes them.

    Raises:
      QevoError: as those two.
    """
    teacher = FloatTeacher(module, variables, images, activation_bits=activation_bits)
    return round_network(teacher, bits=bits, method=method, fit_bias=fit_bias)


def round_network(
    teacher: FloatTeacher,
    *,
    bits: BitsByPattern,
    method: Method = "nearest",
    fit_bias: bool = True,
) -> QuantizedNetwork:
    """A quantized network of a calibrated float one.

    Args:
      teacher: the float network; several roundings of it share its calibration.
      bits: "ternary" or 2 to 8, for all layers or by name pattern; see `bits_per_layer`.
      method: "nearest" rounds to the nearest level at max-abs or squared-error scales, with fitted
        or float biases, whichever network stays closest to the float one on the images; "gptq",
        "adaround", "layerwise" and "evolutionary" are `GPTQ`, `AdaRound`, `LayerwiseFit` and
        `EvolutionaryRounding` as they come; or any `Rounding`.
      fit_bias: match each channel's mean output to the float layer's on the images.

    Raises:
      QevoError: an unknown method, or as `FloatTeacher.convert`.
    """
    if method == "nearest":
        candidates = [
            teacher.convert(bits=bits, rounding=rounding, fit_bias=fitted)
            for rounding in (round_squared_error, round_max_abs)
            for fitted in {fit_bias, False}
        ]
        return min(candidates, key=teacher.divergence)
    rounding = ROUNDINGS.get(method) if isinstance(method, str) else method
    if not callable(rounding):
        known = ", ".join(map(repr, ("nearest", *ROUNDINGS)))
        raise QevoError(f"method must be {known} or a function, not {method!r}")
    return teacher.convert(bits=bits, rounding=rounding, fit_bias=fit_bias)

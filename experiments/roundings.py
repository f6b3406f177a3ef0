"""Every rounding of a float network by its name, for the scripts beside it."""

from __future__ import annotations

from typing import Literal

from qevo import QuantizedNetwork
from qevo.quantize import FloatTeacher, LayerwiseFit, best_of_n, round_network
from qevo.quantize.bits import BitsByPattern
from qevo.quantize.methods import ROUNDINGS
from qevo.quantize.rounding import Rounding

Method = Literal["nearest", "best_of_n", "gptq", "adaround", "layerwise", "evolutionary"]


def rounded(
    teacher: FloatTeacher, method: Method, *, bits: BitsByPattern, draws: int, seed: int
) -> QuantizedNetwork:
    """A calibrated network rounded by a method; ``draws`` and ``seed`` are for "best_of_n".

    Depthwise layers have the layer-wise fit in all methods that go layer by layer.
    """
    if method == "best_of_n":
        return best_of_n(teacher, bits=bits, draws=draws, seed=seed).network
    if method == "nearest":
        return round_network(teacher, bits=bits)
    return round_network(teacher, bits=bits, method=_beside_depthwise(ROUNDINGS[method]))


def _beside_depthwise(rounding: Rounding) -> Rounding:
    return lambda layer: (LayerwiseFit() if layer.depthwise else rounding)(layer)

"""GPTQ-style rounding: one pass, each rounding error made up for by the weights after it."""

from __future__ import annotations

import dataclasses

from qevo.quantize.layerwise import damping, round_with_feedback
from qevo.quantize.rounding import FloatLayer, Rounded, each_channel
from qevo.quantize.scales import squared_error_scale


@dataclasses.dataclass(frozen=True)
class GPTQ:
    """Round the float weights row after row at the scale of the least squared error.

    Frantar et al. 2022 (GPTQ), after Frantar and Alistarh 2022 (OBQ), with the rows in the order of
    falling diagonal and inputs from the already quantized layers. Its Gram matrix is centred here,
    since the bias that all methods fit takes the mean.

    Attributes:
      damping: added to the Gram matrix's diagonal, relative to its mean; the authors' default.
    """

    damping: float = 1e-2

    def __call__(self, layer: FloatLayer) -> Rounded:
        if layer.depthwise:
            return each_channel(self, layer)
        scale = squared_error_scale(layer.kernel, layer.low, layer.high, layer.grid)
        gram = layer.moments().gram
        gram = gram + damping(gram, self.damping)
        levels = round_with_feedback(layer.kernel / scale, gram, layer.low, layer.high)
        return Rounded(levels.astype("int8"), scale)

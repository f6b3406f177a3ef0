"""The interface of a rounding method: from a float layer to levels and dyadic scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from qevo.quantize.gram import InputRows, Moments
from qevo.quantize.scales import ScaleGrid, max_abs_scale, round_to_levels, squared_error_scale


@dataclasses.dataclass(frozen=True)
class FloatLayer:
    """What a rounding method is given of one layer.

    Attributes:
      name: of the layer.
      kernel: float64 ``[K, C]``, batch norm folded; a convolution's rows are (height, width,
        channel), and those of a depthwise layer (height, width).
      low, high: lowest and highest level.
      grid: the scales that the layer can express.
      rows: the layer's quantized inputs on the calibration images.
      outputs: float32 ``[..., C]``, what the layer is to give, before the activation: what the
        float layer makes of its own inputs and, of a summand, what the other summand lacks.
    """

    name: str
    kernel: np.ndarray
    low: int
    high: int
    grid: ScaleGrid
    rows: InputRows
    outputs: np.ndarray

    def moments(self) -> Moments:
        """Moments of the quantized inputs and the wanted outputs."""
        return self.rows.moments(self.outputs)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean input ``[K]`` and mean output ``[C]``, over all rows.

        Each channel of a depthwise layer has inputs of its own, ``[K, C]``.
        """
        axes = tuple(range(self.outputs.ndim - 1))
        return self.rows.mean(), self.outputs.mean(axes, dtype=np.float64)

    @property
    def depthwise(self) -> bool:
        """Whether each output channel has inputs of its own: `each_channel`."""
        return self.rows.layer.depthwise

    def channels(self) -> Iterator[FloatLayer]:
        """A depthwise layer as layers of one output channel."""
        for channel, rows in enumerate(self.rows.channels()):
            one = slice(channel, channel + 1)
            grid = dataclasses.replace(self.grid, floor=self.grid.floor[one])
            yield dataclasses.replace(
                self,
                kernel=self.kernel[:, one],
                grid=grid,
                rows=rows,
                outputs=self.outputs[..., one],
            )


class Rounded(NamedTuple):
    """Levels int8 ``[K, C]`` and the scale of each channel ``[C]``, a point of the layer's grid."""

    levels: np.ndarray
    scale: np.ndarray


Rounding = Callable[[FloatLayer], Rounded]


def fitted_bias(values: np.ndarray, mean_input: np.ndarray, mean_output: np.ndarray) -> np.ndarray:
    """The bias ``[C]`` at which weights ``[K, C]`` keep the mean output of `FloatLayer.means`."""
    if mean_input.ndim == 2:
        return mean_output - (mean_input * values).sum(0)
    return mean_output - mean_input @ values


def each_channel(rounding: Rounding, layer: FloatLayer) -> Rounded:
    """A depthwise layer rounded one channel after the other."""
    levels, scales = zip(*map(rounding, layer.channels()), strict=True)
    return Rounded(np.concatenate(levels, axis=1), np.concatenate(scales))


def round_max_abs(layer: FloatLayer) -> Rounded:
    """Nearest level at the smallest scale that saturates nothing."""
    scale = layer.grid.above(max_abs_scale(layer.kernel, layer.low, layer.high))
    return round_at(layer, scale)


def round_squared_error(layer: FloatLayer) -> Rounded:
    """Nearest level at the scale of the least squared error."""
    return round_at(layer, squared_error_scale(layer.kernel, layer.low, layer.high, layer.grid))


def round_at(layer: FloatLayer, scale: np.ndarray) -> Rounded:
    """Nearest level at the grid's point next to ``scale`` ``[C]``."""
    scale = layer.grid.nearest(scale)
    levels = round_to_levels(layer.kernel / scale, layer.low, layer.high)
    return Rounded(levels.astype(np.int8), scale)

"""Second moments of a layer's inputs and outputs, accumulated in batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from jax import lax

from qevo.nets.float_numerics import sampling_stride
from qevo.nets.numerics import Product

MEAN_BATCH = 64  # images whose rows are summed at once
ROWS = 1 << 16  # of the input matrix held at once
MAX_ROWS = 1 << 18  # of the input matrix used in all; an even sample of a convolution's positions


@dataclasses.dataclass(frozen=True)
class Moments:
    """Means and centred second moments over n rows.

    A row is one image (dense) or one output position of one image (convolution). Inputs are real
    numbers as the integer network holds them: input scale times int8.
    """

    mean_input: np.ndarray  # float64 [K]
    mean_output: np.ndarray  # float64 [C], of the outputs that are wanted
    gram: np.ndarray  # float64 [K, K], covariance of the inputs
    cross: np.ndarray  # float64 [K, C], covariance of inputs and outputs


@dataclasses.dataclass(frozen=True)
class InputRows:
    """The matrix ``[rows, K]`` of a layer's inputs, formed a batch of images at a time.

    Attributes:
      inputs: int8, ``[n, K]`` or NHWC.
      layer: how the layer sees them.
      kernel_shape: ``[K, C]`` or HWIO; a convolution's columns are (height, width, channel).
      scale: the real number that one unit of the inputs stands for.
    """

    inputs: np.ndarray
    layer: Product
    kernel_shape: tuple[int, ...]
    scale: float

    @property
    def fan_in(self) -> int:
        """K."""
        return math.prod(self.kernel_shape[:-1])

    def channels(self) -> Iterator[InputRows]:
        """Of a depthwise layer: what each of its channels sees."""
        layer = dataclasses.replace(self.layer, features=1, depthwise=False)
        shape = (*self.kernel_shape[:-1], 1)
        for channel in range(self.kernel_shape[-1]):
            inputs = self.inputs[..., channel : channel + 1]
            yield dataclasses.replace(self, inputs=inputs, layer=layer, kernel_shape=shape)

    def mean(self) -> np.ndarray:
        """The mean row, float64 ``[K]``; of a depthwise layer ``[K, C]``."""
        if self.layer.depthwise:
            return np.stack([rows.mean() for rows in self.channels()], axis=1)
        total, count = np.zeros(self.fan_in), 0
        for _, rows in self._batches(MEAN_BATCH):
            total += rows.sum(0, dtype=np.int64)
            count += len(rows)
        return total / count * self.scale

    def moments(self, outputs: np.ndarray) -> Moments:
        """Moments against float32 outputs ``[n, C]`` or ``[n, H', W', C]``."""
        channels = outputs.shape[-1]
        gram, cross = np.zeros((self.fan_in, self.fan_in)), np.zeros((self.fan_in, channels))
        sum_input, sum_output, count = np.zeros(self.fan_in), np.zeros(channels), 0
        for rows, z in self.pairs(outputs, MAX_ROWS):
            x = rows.astype(np.float32)
            count += len(x)
            gram += x.T @ x
            cross += x.T @ z
            sum_input += x.sum(0, dtype=np.float64)
            sum_output += z.sum(0, dtype=np.float64)
        mean_input, mean_output = sum_input / count, sum_output / count
        return Moments(
            mean_input * self.scale,
            mean_output,
            (gram / count - np.outer(mean_input, mean_input)) * self.scale**2,
            (cross / count - np.outer(mean_input, mean_output)) * self.scale,
        )

    def pairs(self, outputs: np.ndarray, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """An even sample of at most ``limit`` rows, in parts.

        Yields:
          Rows int8 ``[n, K]`` and their outputs float32 ``[n, C]``, out of ``[n, C]`` or
          ``[n, H', W', C]``.
        """
        channels, positions = outputs.shape[-1], math.prod(outputs.shape[1:-1])
        stride = sampling_stride(len(self.inputs) * positions, limit, positions)
        for part, rows in self._batches(max(1, ROWS // positions)):
            first = -part.start * positions % stride
            yield rows[first::stride], outputs[part].reshape(-1, channels)[first::stride]

    def _batches(self, images: int) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(self.inputs), images):
            part = slice(start, start + images)
            yield part, self._rows(self.inputs[part])

    def _rows(self, x: np.ndarray) -> np.ndarray:
        layer = self.layer
        if layer.kind == "dense":
            return x
        height, width = self.kernel_shape[:2]
        padding = layer.padding
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(x.shape[1:3], (height, width), layer.strides, padding)
        x = np.pad(x, ((0, 0), *padding, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
        windows = windows[:, :: layer.strides[0], :: layer.strides[1]]  # [n, H', W', C, h, w]
        return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, self.fan_in)

"""Weight scales on the dyadic grid that an integer layer can express exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

_FRACTIONS = np.append(
    np.geomspace(0.04, 1.2, 60), 1.0
)  # of the scale at which no weight saturates
_REFINEMENT = np.linspace(0.95, 1.05, 21)  # of the best of those


@dataclasses.dataclass(frozen=True)
class ScaleGrid:
    """The weight scales ``multiplier / 2**shift / unit`` of one layer.

    Attributes:
      unit: input scale over output scale, so that a weight of one level moves the output by
        ``scale * unit`` of its units.
      limit: the largest multiplier to start from.
      max_shift: the largest right shift; 0 for the last layer.
      floor: smallest scale of each channel ``[C]``, at which its bias still fits.
      input_scale: the real number that one unit of the input stands for.
      last: whether the bias is added to the fixed-point output instead of the accumulator.
    """

    unit: float
    limit: int
    max_shift: int
    floor: np.ndarray
    input_scale: float = 1.0
    last: bool = False

    def snap(
        self, scale: np.ndarray, rounding: Callable[[np.ndarray], np.ndarray] = np.rint
    ) -> tuple[np.ndarray, np.ndarray]:
        """Multiplier and shift, int64 ``[C]``, of the grid point next to each scale ``[C]``."""
        ratio = np.maximum(np.maximum(scale, self.floor) * self.unit, 2.0**-40)
        shift = np.clip(np.floor(np.log2(self.limit / ratio)), 0, self.max_shift).astype(np.int64)
        multiplier = np.clip(rounding(ratio * 2.0**shift), 1, self.limit).astype(np.int64)
        return multiplier, shift

    def scale(self, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The exact scale ``[C]`` of a grid point."""
        return multiplier / 2.0**shift / self.unit

    def bias_unit(self, scale: np.ndarray) -> np.ndarray | float:
        """The real number that one unit of an integer bias stands for, for each scale ``[C]``."""
        return self.input_scale / self.unit if self.last else scale * self.input_scale

    def nearest(self, scale: np.ndarray) -> np.ndarray:
        """The exact scale of the grid point nearest to each scale ``[C]``."""
        return self.scale(*self.snap(scale))

    def above(self, scale: np.ndarray) -> np.ndarray:
        """The exact scale of the next grid point at or above each scale ``[C]``."""
        return self.scale(*self.snap(scale, np.ceil))


def max_abs_scale(kernel: np.ndarray, low: int, high: int) -> np.ndarray:
    """The smallest scale ``[C]`` at which no weight of ``[K, C]`` saturates."""
    return np.maximum(kernel.max(0) / high, kernel.min(0) / low).clip(1e-12)


def squared_error_scale(kernel: np.ndarray, low: int, high: int, grid: ScaleGrid) -> np.ndarray:
    """The grid's scale ``[C]`` that minimises the squared rounding error of each channel."""
    full = max_abs_scale(kernel, low, high)
    best, error = full, np.full(full.shape, np.inf)
    for fractions in (_FRACTIONS, _REFINEMENT):
        for scale in [grid.nearest(best * fraction) for fraction in fractions]:
            trial = np.square(scale * round_to_levels(kernel / scale, low, high) - kernel).sum(0)
            best, error = np.where(trial < error, scale, best), np.minimum(trial, error)
    return best


def round_to_levels(levels: np.ndarray, low: int, high: int) -> np.ndarray:
    """The nearest level, as floats."""
    return np.clip(np.rint(levels), low, high)

"""Layer-wise fit: levels and scales that reproduce a float layer's output from quantized inputs."""

from __future__ import annotations

import dataclasses

import numpy as np

from qevo.quantize.rounding import FloatLayer, Rounded
from qevo.quantize.scales import round_to_levels, squared_error_scale

_BLOCK = 32  # rows whose product with the Gram matrix is maintained step by step


@dataclasses.dataclass(frozen=True)
class LayerwiseFit:
    """Minimise ``(s q - w)ᵀ H (s q - w)`` per output channel, over integer q and dyadic s.

    H is the covariance of the layer's inputs as the integer layers before it give them (the mean is
    the bias's business), and w the ridge regression that best reproduces the float layer's output
    from those inputs, drawn toward the float weights. Starts from sequential rounding with error
    feedback and alternates between the best scale for the levels and integer coordinate descent,
    all channels at once, with the product H·(s q - w) maintained.

    Nagel et al. 2020 (AdaRound) and Frantar et al. 2022 (Optimal Brain Compression) state the
    objective.

    Attributes:
      ridge: added to H, relative to its mean diagonal.
      rounds: alternations of scale and levels.
      sweeps: passes of coordinate descent in each.
    """

    ridge: float = 1e-2
    rounds: int = 8
    sweeps: int = 2

    def __call__(self, layer: FloatLayer) -> Rounded:
        moments = layer.moments()
        diagonal = np.eye(len(moments.gram)) * self.ridge * max(np.diag(moments.gram).mean(), 1e-12)
        gram = moments.gram + diagonal
        target = np.linalg.solve(gram, moments.cross + diagonal @ layer.kernel)
        scale = squared_error_scale(target, layer.low, layer.high, layer.grid)
        levels = round_to_levels(target / scale, layer.low, layer.high)
        gram_target = gram @ target
        for _ in range(self.rounds):
            levels = descend(levels, scale, target, gram, layer.low, layer.high, self.sweeps)
            scale = layer.grid.nearest(best_scale(levels, gram, gram_target, scale))
        levels = descend(levels, scale, target, gram, layer.low, layer.high, self.sweeps)
        return Rounded(levels.astype(np.int8), scale)


def best_scale(
    levels: np.ndarray, gram: np.ndarray, gram_target: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """The scale ``[C]`` of least quadratic error for levels ``[K, C]``, or ``scale`` if none is."""
    numerator = (levels * gram_target).sum(0)
    denominator = (levels * (gram @ levels)).sum(0)
    good = (numerator > 0) & (denominator > 0)
    return np.where(good, numerator / np.where(good, denominator, 1), scale)


def descend(
    levels: np.ndarray,
    scale: np.ndarray,
    target: np.ndarray,
    gram: np.ndarray,
    low: int,
    high: int,
    sweeps: int,
) -> np.ndarray:
    """Integer coordinate descent: each level in turn to its best value with the others fixed.

    Args:
      levels: ``[K, C]``.
      scale: ``[C]``.
      target: ``[K, C]``, real weights.
      gram: ``[K, K]``, positive definite.
      low, high: of the levels.
      sweeps: passes over K; ends early when a pass changes nothing.

    Returns:
      float64 ``[K, C]``, integers.

    Within a block of rows the product with the Gram matrix is kept up to date row by row; the rest
    of it follows once per block as one matrix product.
    """
    levels = levels.copy()
    gradient = gram @ (levels - target / scale)  # H r in units of one level
    curvature = np.diag(gram)
    for _ in range(sweeps):
        before = levels.copy()
        for start in range(0, len(levels), _BLOCK):
            block = slice(start, min(start + _BLOCK, len(levels)))
            local, inner = gradient[block].copy(), gram[block, block]
            change = np.zeros_like(local)
            for i in range(len(local)):
                row = levels[start + i]
                best = np.clip(np.rint(row - local[i] / curvature[start + i]), low, high)
                change[i] = best - row
                levels[start + i] = best
                local[i:] += np.outer(inner[i:, i], change[i])
            if change.any():
                gradient += gram[:, block] @ change
        if np.array_equal(levels, before):
            break
    return levels

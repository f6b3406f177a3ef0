"""Layer-wise fit: levels and scales that reproduce a float layer's output from quantized inputs."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from qevo.quantize.rounding import FloatLayer, Rounded, each_channel
from qevo.quantize.scales import squared_error_scale

_BLOCK = 32  # rows whose products are maintained step by step


class LeastSquares(NamedTuple):
    """A quadratic form of a layer's weights and where it is least."""

    gram: np.ndarray  # float64 [K, K], positive definite
    target: np.ndarray  # float64 [K, C]

    def error(self, levels: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """``(s q - w)ᵀ H (s q - w)`` of each channel ``[C]``."""
        residual = levels * scale - self.target
        return (residual * (self.gram @ residual)).sum(0)


def regression(layer: FloatLayer, ridge: float) -> LeastSquares:
    """The squared error of a layer's output, and the weights that reproduce it best.

    From quantized inputs to the outputs that are wanted, drawn toward the float weights by
    ``ridge`` times the mean diagonal of the inputs' covariance.
    """
    moments = layer.moments()
    diagonal = damping(moments.gram, ridge)
    gram = moments.gram + diagonal
    return LeastSquares(gram, np.linalg.solve(gram, moments.cross + diagonal @ layer.kernel))


def damping(gram: np.ndarray, share: float) -> np.ndarray:
    """A multiple of the identity ``[K, K]``: ``share`` of the mean diagonal."""
    return np.eye(len(gram)) * share * max(np.diag(gram).mean(), 1e-12)


@dataclasses.dataclass(frozen=True)
class LayerwiseFit:
    """Minimise ``(s q - w)ᵀ H (s q - w)`` per output channel, over integer q and dyadic s.

    H is the covariance of the layer's inputs as the integer layers before it give them (the mean is
    the bias's business), and w the ridge regression that best reproduces `FloatLayer.outputs` from
    those inputs, drawn toward the float weights. Every channel starts at several scales with
    sequential rounding, whose errors the weights not yet rounded make up for, and alternates
    between integer coordinate descent and the best scale for the levels; the best start stays. In a
    large layer it is chosen before the descent.

    Nagel et al. 2020 (AdaRound) state the objective; the sequential rounding is that of Frantar et
    al. 2022 (OPTQ), which is Babai's nearest plane algorithm.

    Attributes:
      ridge: added to H, relative to its mean diagonal.
      starts: scales to start from, relative to that of the least squared error.
      rounds: alternations of levels and scale.
      sweeps: passes of coordinate descent in each.
      large: weights beyond which a layer goes on from the best start alone, to save time.
    """

    ridge: float = 1e-2
    starts: tuple[float, ...] = (0.8, 1.0, 1.25, 1.5)
    rounds: int = 2
    sweeps: int = 2
    large: int = 1 << 20

    def __call__(self, layer: FloatLayer) -> Rounded:
        if layer.depthwise:
            return each_channel(self, layer)
        return self.solve(layer, regression(layer, self.ridge))

    def solve(
        self,
        layer: FloatLayer,
        problem: LeastSquares,
        *,
        mask: np.ndarray | None = None,
        values: np.ndarray | None = None,
    ) -> Rounded:
        """The fit, given the layer's quadratic form and the weights it is least at.

        Args:
          layer: its levels and scales.
          problem: its quadratic form.
          mask: the weights that are not 0, bool ``[K, C]``; all by default.
          values: the real weights to start from, ``[K, C]``; the form's target by default.
        """
        gram, target = problem
        channels = target.shape[1]
        exact = target if values is None else values
        base = squared_error_scale(exact, layer.low, layer.high, layer.grid)
        # All starts side by side: column i·C + c is channel c from start i.
        scale = layer.grid.nearest(np.outer(self.starts, base)).reshape(-1)
        low, high = _bounds(layer, mask, len(self.starts))
        levels = round_with_feedback(np.tile(exact, len(self.starts)) / scale, gram, low, high)
        if target.size > self.large:
            levels, scale = best_of(problem, levels, scale)
            low, high = _bounds(layer, mask, 1)
        target = np.tile(target, len(scale) // channels)
        gram_target = gram @ target
        for _ in range(self.rounds):
            levels = descend(levels, scale, target, gram, low, high, self.sweeps)
            scale = best_scale(levels, gram, gram_target, scale)
            scale = layer.grid.nearest(scale.reshape(-1, channels)).reshape(-1)
        levels = descend(levels, scale, target, gram, low, high, self.sweeps)
        levels, scale = best_of(problem, levels, scale)
        return Rounded(levels.astype(np.int8), scale)


def _bounds(layer: FloatLayer, mask: np.ndarray | None, times: int) -> tuple[Any, Any]:
    """The least and the largest level of every weight, or of all."""
    if mask is None:
        return layer.low, layer.high
    return layer.low * np.tile(mask, times), layer.high * np.tile(mask, times)


def best_of(
    problem: LeastSquares, levels: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of several roundings side by side the one with the least error, channel by channel.

    Args:
      problem: of ``C`` channels.
      levels: ``[K, n * C]``.
      scale: ``[n * C]``.

    Returns:
      ``[K, C]`` and ``[C]``.
    """
    genes, channels = problem.target.shape
    starts = levels.reshape(genes, -1, channels), scale.reshape(-1, channels)
    errors = [problem.error(starts[0][:, i], starts[1][i]) for i in range(len(starts[1]))]
    best = np.argmin(errors, axis=0)
    each = np.arange(channels)
    return starts[0][:, best, each], starts[1][best, each]


def round_with_feedback(
    exact: np.ndarray, gram: np.ndarray, low: int | np.ndarray, high: int | np.ndarray
) -> np.ndarray:
    """Round row after row, moving the later rows to where they best make up for the errors so far.

    Args:
      exact: ``[K, C]``, real levels.
      gram: ``[K, K]``, positive definite.
      low, high: of the levels, for all or ``[K, C]``.

    Returns:
      float64 ``[K, C]``, integers.
    """
    low, high = (np.broadcast_to(bound, exact.shape) for bound in (low, high))
    order = np.argsort(-np.diag(gram), kind="stable")  # what matters most has most to correct it
    # The upper factor U of the inverse Uᵀ U: that of the matrix itself in reversed order, inverted.
    reverse = order[::-1]
    lower = np.linalg.cholesky(gram[np.ix_(reverse, reverse)])[::-1, ::-1]
    (invert,) = scipy.linalg.get_lapack_funcs(("trtri",), (lower,))
    factor = invert(lower)[0]
    exact = exact[order]
    rounded, error = np.empty_like(exact), np.empty_like(exact)

    def solve(start: int, stop: int) -> None:
        """Round these rows; the later of them make up for the earlier in one matrix product."""
        if stop - start > _BLOCK:
            middle = (start + stop) // 2
            solve(start, middle)
            exact[middle:stop] -= factor[start:middle, middle:stop].T @ error[start:middle]
            solve(middle, stop)
            return
        for i in range(start, stop):
            place = order[i]
            rounded[i] = np.clip(np.rint(exact[i]), low[place], high[place])
            error[i] = (exact[i] - rounded[i]) / factor[i, i]
            exact[i + 1 : stop] -= np.outer(factor[i, i + 1 : stop], error[i])

    solve(0, len(exact))
    levels = np.empty_like(rounded)
    levels[order] = rounded
    return levels


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
    low: int | np.ndarray,
    high: int | np.ndarray,
    sweeps: int,
) -> np.ndarray:
    """Integer coordinate descent: each level in turn to its best value with the others fixed.

    Args:
      levels: ``[K, C]``.
      scale: ``[C]``.
      target: ``[K, C]``, real weights.
      gram: ``[K, K]``, positive definite.
      low, high: of the levels, for all or ``[K, C]``.
      sweeps: passes over K; ends early when a pass changes nothing.

    Returns:
      float64 ``[K, C]``, integers.

    Within a block of rows the product with the Gram matrix is kept up to date row by row; the rest
    of it follows once per block as one matrix product.
    """
    levels = levels.copy()
    low, high = (np.broadcast_to(bound, levels.shape) for bound in (low, high))
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
                best = np.rint(row - local[i] / curvature[start + i])
                best = np.clip(best, low[start + i], high[start + i])
                change[i] = best - row
                levels[start + i] = best
                local[i:] += np.outer(inner[i:, i], change[i])
            if change.any():
                gradient += gram[:, block] @ change
        if np.array_equal(levels, before):
            break
    return levels

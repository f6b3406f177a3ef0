"""Sparse layers: which weights to zero, what that costs, and what the others should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from qevo.errors import QevoError
from qevo.quantize.layerwise import LeastSquares, damping
from qevo.quantize.rounding import FloatLayer, Rounded

RIDGE = 1e-3  # of a layer's Gram matrix, as in `LayerwiseFit`
_ROUNDS = 8  # in which the weights that are too many go, about
_KEPT = 0.7  # of the survivors, by a round of `pruned`; 0.5 while there are more than a third
_FEW = 0.35  # share gone, below which the inverse of the others is that of all, corrected
_DEAD = 1e-9  # variance of an input, relative to the mean one, that is none
_NOISE = 4e-6  # or relative to its squared mean, of sums in float32


def layer_problem(layer: FloatLayer, ridge: float) -> tuple[LeastSquares, np.ndarray]:
    """The least squares problem of a layer's output, and which inputs ever vary (bool ``[K]``).

    As `qevo.quantize.layerwise.regression`, but an input that is constant on all images has the
    target 0: what it adds is the bias's business.
    """
    moments = layer.moments()
    variance = np.diag(moments.gram)
    least = _DEAD * max(variance.mean(), 1e-12)
    alive = variance > np.maximum(least, _NOISE * moments.mean_input**2)
    diagonal = damping(moments.gram, ridge)
    gram = moments.gram + diagonal
    wanted = moments.cross + diagonal @ (layer.kernel * alive[:, None])
    wanted[~alive] = 0
    return LeastSquares(gram, np.linalg.solve(gram, wanted)), alive


def largest(score: np.ndarray, mask: np.ndarray, zeros: float) -> np.ndarray:
    """Of the weights in a mask those of the largest score, so many that a share is zero."""
    kept = min(round((1 - zeros) * mask.size), int(np.count_nonzero(mask)))
    order = np.argsort(np.where(mask, -score, np.inf).ravel(), kind="stable")
    found = np.zeros(mask.size, bool)
    found[order[:kept]] = True
    return found.reshape(mask.shape)


def largest_in_groups(score: np.ndarray, mask: np.ndarray, kept: int, of: int) -> np.ndarray:
    """Of the weights in a mask those of the largest score, so many in each run of rows.

    Args:
      score: ``[K, C]``.
      mask: bool ``[K, C]``.
      kept, of: at most so many survivors of so many consecutive rows of a column; the last run may
        be shorter.
    """
    rows, columns = mask.shape
    short = -rows % of
    padded = np.pad(np.where(mask, score, -np.inf), ((0, short), (0, 0)), constant_values=-np.inf)
    groups = padded.reshape(-1, of, columns)
    rank = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1, kind="stable")
    return (rank < kept).reshape(-1, columns)[:rows] & mask


def pruned_groups(
    problem: LeastSquares, alive: np.ndarray, kept: int, of: int
) -> tuple[np.ndarray, np.ndarray]:
    """Zero all but so many weights of each run of rows, in rounds of the cheapest, with refits.

    Args:
      problem, alive: as `layer_problem` gives them.
      kept, of: as `largest_in_groups` takes them; 2 of 4 is what sparse tensor cores multiply.

    Returns:
      The mask bool ``[K, C]`` and the refitted weights float64 ``[K, C]``.
    """
    mask = alive[:, None] & np.ones(problem.target.shape, bool)
    first = 0
    while True:
        values, costs = refit(problem, mask)
        # Of what is too much in some run, the cheapest half goes.
        rest = largest_in_groups(costs, mask, kept, of)
        over = int(np.count_nonzero(mask & ~rest))
        if not over:
            return mask, values
        first = first or over
        going = min(over, max(over // 2, first // _ROUNDS, 1))
        cheapest = np.argsort(np.where(mask & ~rest, costs, np.inf), axis=None)[:going]
        mask.reshape(-1)[cheapest] = False


def strongest_filters(problem: LeastSquares, values: np.ndarray, zeros: float) -> np.ndarray:
    """The output channels that stay, bool ``[C]``, where a share of the weakest goes.

    Strength is the variance of a channel's output ``wᵀ H w``; at least one stays.
    """
    strength = (values * (problem.gram @ values)).sum(0)
    kept = max(round((1 - zeros) * len(strength)), 1)
    found = np.zeros(len(strength), bool)
    found[np.argsort(-strength, kind="stable")[:kept]] = True
    return found


def refit(problem: LeastSquares, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best real values of the weights that stay, and what zeroing each one more would cost.

    Args:
      problem: of the layer.
      mask: bool ``[K, C]``.

    Returns:
      The least squares solution on each channel's mask, float64 ``[K, C]``; and the rise of the
      quadratic error where one weight more is zeroed and the others make up for it, float64
      ``[K, C]``, infinite outside the mask: ``w² / [H_SS⁻¹]_ii``. Hassibi and Stork 1993 (Optimal
      Brain Surgeon).
    """
    values, costs = np.zeros(mask.shape), np.full(mask.shape, np.inf)
    wanted = problem.gram @ problem.target
    for channel, kept, inverse in _inverses(problem.gram, mask):
        found = inverse.times(wanted[kept, channel])
        values[kept, channel] = found
        costs[kept, channel] = found**2 / inverse.diagonal
    return values, costs


def removal_costs(
    layer: FloatLayer, rounded: Rounded, *, made_up: bool = True, ridge: float = RIDGE
) -> np.ndarray:
    """What zeroing each weight costs in its layer's output, divided by the square of its level.

    The bias makes up for the mean, as it does in `FloatTeacher.convert`.

    Args:
      layer: of the float network, with the inputs that it gets.
      rounded: what became of it.
      made_up: whether the other survivors of the channel make up for it, as in `refit`; if not,
        each weight goes alone, and costs can be added up, as for a filter. LeCun, Denker and Solla
        1990 (Optimal Brain Damage).
      ridge: as in `LayerwiseFit`.

    Returns:
      float64 ``[K, C]``, in squared units of the output; 0 where the level is 0.
    """
    if layer.depthwise:
        parts = zip(layer.channels(), rounded.levels.T, rounded.scale, strict=True)
        found = [
            removal_costs(one, Rounded(levels[:, None], scale[None]), made_up=made_up, ridge=ridge)
            for one, levels, scale in parts
        ]
        return np.concatenate(found, axis=1)
    gram, mask = layer.moments().gram, rounded.levels != 0
    gram = gram + damping(gram, ridge)
    if not made_up:
        return mask * np.diag(gram)[:, None] * rounded.scale**2
    costs = np.zeros(mask.shape)
    for channel, kept, inverse in _inverses(gram, mask):
        costs[kept, channel] = rounded.scale[channel] ** 2 / inverse.diagonal
    return costs


class _Inverse(NamedTuple):
    """What is asked of the inverse of a matrix ``[S, S]``."""

    diagonal: np.ndarray  # [S]
    times: Callable[[np.ndarray], np.ndarray]  # with a vector [S]


def _inverses(gram: np.ndarray, mask: np.ndarray) -> Iterator[tuple[int, np.ndarray, _Inverse]]:
    """Of each channel with survivors: which these are, and the inverse of their Gram matrix."""
    whole: np.ndarray | None = None
    known: dict[bytes, _Inverse] = {}  # neighbours with the same mask share an inverse
    for channel in range(mask.shape[1]):
        (kept,) = mask[:, channel].nonzero()
        if not len(kept):
            continue
        name = kept.tobytes()
        if name not in known:
            (gone,) = (~mask[:, channel]).nonzero()
            if len(gone) < _FEW * len(mask):
                whole = _whole_inverse(gram) if whole is None else whole
                known = {name: _inverse_without(whole, kept, gone)}
            else:
                known = {name: _inverse(gram[np.ix_(kept, kept)])}
        yield channel, kept, known[name]


def _inverse(matrix: np.ndarray) -> _Inverse:
    root = _inverse_root(matrix)
    return _Inverse(np.square(root).sum(0), lambda vector: root.T @ (root @ vector))


def _whole_inverse(matrix: np.ndarray) -> np.ndarray:
    root = _inverse_root(matrix)
    return root.T @ root


def _inverse_without(whole: np.ndarray, kept: np.ndarray, gone: np.ndarray) -> _Inverse:
    """The inverse of a part of a matrix, from the inverse A of all of it and what is not there.

    By the inverse of a block matrix it is ``A_SS - A_SR A_RR⁻¹ A_RS``: the fewer are gone, the less
    there is to do.
    """
    root = _inverse_root(whole[np.ix_(gone, gone)])
    half = root @ whole[np.ix_(gone, kept)]

    def times(vector: np.ndarray) -> np.ndarray:
        spread = np.zeros(len(whole))
        spread[kept] = vector
        return (whole @ spread)[kept] - half.T @ (half @ vector)

    return _Inverse(np.diag(whole)[kept] - np.square(half).sum(0), times)


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """The lower triangular ``L⁻¹`` of ``matrix = L Lᵀ``."""
    if not matrix.size:
        return matrix
    factorize, invert = scipy.linalg.get_lapack_funcs(("potrf", "trtri"), (matrix,))
    lower, bad = factorize(matrix, lower=True)
    if bad:
        raise QevoError("a Gram matrix that is not positive definite: raise the ridge")
    return invert(lower, lower=True)[0]


def pruned(
    problem: LeastSquares, alive: np.ndarray, zeros: Sequence[float]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Zero more and more weights of a layer in the order of their cost, refitting all others.

    In rounds: the survivors of every channel are refitted, then those of the whole layer that cost
    least are zeroed. A one-at-a-time Optimal Brain Surgeon would be the limit of many rounds.

    Args:
      problem, alive: as `layer_problem` gives them.
      zeros: ascending shares of the layer's weights.

    Yields:
      For each share the mask bool ``[K, C]`` and the refitted weights float64 ``[K, C]``.
    """
    if not len(zeros) or list(zeros) != sorted(zeros) or not 0 <= zeros[0] <= zeros[-1] < 1:
        raise QevoError(f"zeros must ascend within 0..1, below 1, got {list(zeros)}")
    mask = alive[:, None] & np.ones(problem.target.shape, bool)
    for share in zeros:
        goal = round((1 - share) * mask.size)
        while True:
            values, costs = refit(problem, mask)
            left = np.count_nonzero(mask)
            if left <= goal:
                break
            kept = round(left * (_KEPT if left < mask.size / 3 else 0.5))
            kept = max(goal, min(kept, left - 1))
            mask = largest(np.where(mask, costs, 0), mask, 1 - kept / mask.size)
        yield mask, values

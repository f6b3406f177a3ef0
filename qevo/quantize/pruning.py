"""Sparse layers: which weights to zero, what the others should be, and integer levels for these."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import jax
import numpy as np
import scipy.linalg

from qevo.algorithms.least_squares import ColumnSearch, evolve_columns, integer_columns
from qevo.algorithms.zero_patterns import Pattern
from qevo.errors import QevoError
from qevo.quantize.convert import FloatTeacher
from qevo.quantize.layerwise import LayerwiseFit, LeastSquares, best_of, best_scale, damping
from qevo.quantize.rounding import FloatLayer, Rounded, round_squared_error
from qevo.quantize.sensitivity import OneRounded

Order = Literal["second_order", "magnitude", "random"]

_FIT = LayerwiseFit(ridge=1e-3, starts=(0.7, 0.85, 1.0, 1.2), sweeps=3)
_ROUNDS = 8  # in which the weights that are too many go, about
_DEAD = 1e-9  # variance of an input, relative to the mean, that is none


def layer_problem(layer: FloatLayer, ridge: float) -> tuple[LeastSquares, np.ndarray]:
    """The least squares problem of a layer's output, and which inputs ever vary (bool ``[K]``).

    As `qevo.quantize.layerwise.regression`, but an input that is constant on all images has the
    target 0: what it adds is the bias's business.
    """
    moments = layer.moments()
    variance = np.diag(moments.gram)
    alive = variance > _DEAD * max(variance.mean(), 1e-12)
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
        found = inverse @ wanted[kept, channel]
        values[kept, channel] = found
        costs[kept, channel] = found**2 / np.diag(inverse)
    return values, costs


def removal_costs(
    layer: FloatLayer, rounded: Rounded, *, made_up: bool = True, ridge: float = _FIT.ridge
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
        costs[kept, channel] = rounded.scale[channel] ** 2 / np.diag(inverse)
    return costs


def _inverses(gram: np.ndarray, mask: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of each channel with survivors: which these are, and the inverse of their Gram matrix."""
    known: dict[bytes, np.ndarray] = {}  # neighbours with the same mask share an inverse
    for channel in range(mask.shape[1]):
        (kept,) = mask[:, channel].nonzero()
        if not len(kept):
            continue
        name = kept.tobytes()
        if name not in known:
            known = {name: _inverse(gram[np.ix_(kept, kept)])}
        yield channel, kept, known[name]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    factorize, invert = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (matrix,))
    upper, bad = factorize(matrix)
    if bad:
        raise QevoError("a Gram matrix that is not positive definite: raise the ridge")
    found = np.triu(invert(upper)[0])
    return found + np.triu(found, 1).T


def pruned(
    problem: LeastSquares,
    alive: np.ndarray,
    zeros: Sequence[float],
    *,
    importance: np.ndarray | float = 1.0,
    keep: float = 0.7,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Zero more and more weights of a layer in the order of their cost, refitting all others.

    In rounds: the survivors of every channel are refitted, then those of the whole layer that cost
    least are zeroed. A one-at-a-time Optimal Brain Surgeon would be the limit of many rounds.

    Args:
      problem, alive: as `layer_problem` gives them.
      zeros: ascending shares of the layer's weights.
      importance: of an error of each channel ``[C]``.
      keep: share of the survivors that a round leaves, at least; half of them while there are more
        than a third, to save time where it matters least.

    Yields:
      For each share the mask bool ``[K, C]`` and the refitted weights float64 ``[K, C]``.
    """
    if not 0 < keep < 1 or list(zeros) != sorted(zeros) or not 0 <= min(zeros) <= max(zeros) < 1:
        raise QevoError(f"zeros must ascend within 0..1, below 1, and keep lie there, got {zeros}")
    mask = alive[:, None] & np.ones(problem.target.shape, bool)
    for share in zeros:
        while True:
            values, costs = refit(problem, mask)
            left = np.count_nonzero(mask) / mask.size
            if np.count_nonzero(mask) <= round((1 - share) * mask.size):
                break
            left = max(1 - share, left * (keep if left < 1 / 3 else min(keep, 0.5)))
            score = np.where(mask, costs * importance, 0)
            mask = largest(score, mask, 1 - left)
        yield mask, values


@dataclasses.dataclass(frozen=True)
class SparseFit:
    """A rounding that zeroes a share of each layer and fits levels of the others in integers.

    The survivors, wherever they are, get the levels and the scale of the least error in their
    layer's output by `LayerwiseFit`, and perhaps the search of `evolve_columns`, with the bounds of
    a zeroed weight at 0.

    Attributes:
      zeros: share of each layer's weights, by its name.
      order: which weights go: "second_order" by `pruned`, those of the least "magnitude" in the
        float network, or "random" ones. Of a depthwise layer, whose channels have too few weights
        to make up for one another, the second order is that of magnitude.
      pattern: "free"; ``(n, m)``, at most n survivors in each run of m consecutive rows of a
        column, whatever ``zeros`` says; or "filters", whole output channels, by the order
        "second_order" those whose output varies least, and the share is one of channels. What a
        layer loses of its inputs so is zeroed too. The last layer keeps its channels, a depthwise
        layer is "free".
      masks: of layers whose survivors are known, bool ``[..., C]``; other layers follow ``zeros``.
      fit: how survivors get their levels, and the ridge that masks are chosen with.
      search: of `evolve_columns`; ``None`` for none.
      seed: of the search and the random order.
    """

    zeros: Mapping[str, float] = dataclasses.field(default_factory=dict)
    order: Order = "second_order"
    pattern: Pattern = "free"
    masks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    fit: LayerwiseFit = _FIT
    search: ColumnSearch | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise QevoError(f"order must be one of {', '.join(get_args(Order))}: {self.order!r}")
        if isinstance(self.pattern, str):
            good = self.pattern in ("free", "filters")
        else:
            kept, of = self.pattern
            good = 1 <= kept < of
        if not good:
            raise QevoError(
                f"pattern must be 'free', 'filters' or (n, m) with 1 <= n < m: {self.pattern!r}"
            )

    def __call__(self, layer: FloatLayer) -> Rounded:
        if layer.depthwise:
            return self._each_channel(layer)
        problem, alive = layer_problem(layer, self.fit.ridge)
        return self._fit(layer, problem, *self._prune(layer, problem, alive))

    def _prune(
        self, layer: FloatLayer, problem: LeastSquares, alive: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mask bool ``[K, C]``, and the real weights that fit best on it."""
        if layer.name in self.masks:
            mask = self.masks[layer.name].reshape(layer.kernel.shape)
            return mask, refit(problem, mask)[0]
        if self.pattern == "filters":
            mask = self._filters(layer, problem, alive)
            return mask, refit(problem, mask)[0]
        if self.order == "second_order":
            if not isinstance(self.pattern, str):
                return pruned_groups(problem, alive, *self.pattern)
            return next(pruned(problem, alive, [self._share(layer)]))
        mask = self._mask(layer, alive)
        return mask, refit(problem, mask)[0]

    def _share(self, layer: FloatLayer) -> float:
        if layer.name not in self.zeros:
            known = ", ".join((*self.zeros, *self.masks)) or "no layer"
            raise QevoError(f"{layer.name}: no share of zeros and no mask; there are of {known}")
        return self.zeros[layer.name]

    def _filters(self, layer: FloatLayer, problem: LeastSquares, alive: np.ndarray) -> np.ndarray:
        """The weights of the channels that stay, bool ``[K, C]``."""
        mask = alive[:, None] & np.ones(layer.kernel.shape, bool)
        if layer.grid.last:
            return mask
        if self.order == "second_order":
            return mask & strongest_filters(problem, problem.target, self._share(layer))
        norm = np.square(layer.kernel).sum(0, keepdims=True)
        score = self._score(layer, norm)
        return mask & largest(score, np.ones(score.shape, bool), self._share(layer))

    def _mask(self, layer: FloatLayer, alive: np.ndarray) -> np.ndarray:
        """The survivors at random or by magnitude, bool ``[K, C]``."""
        mask = alive[:, None] & np.ones(layer.kernel.shape, bool)
        score = self._score(layer, np.abs(layer.kernel) + 1.0)
        if isinstance(self.pattern, str) or layer.depthwise:
            return largest(score, mask, self._share(layer))
        return largest_in_groups(score, mask, *self.pattern)

    def _score(self, layer: FloatLayer, values: np.ndarray) -> np.ndarray:
        """The values, or as many draws where the order is random."""
        if self.order != "random":
            return values
        seed = zlib.crc32(f"{layer.name} {self.seed}".encode())
        return np.random.RandomState(seed).uniform(1, 2, values.shape)

    def _each_channel(self, layer: FloatLayer) -> Rounded:
        if layer.name in self.masks:
            mask = self.masks[layer.name].reshape(layer.kernel.shape)
        else:
            mask = self._mask(layer, np.ones(len(layer.kernel), bool))

        def fitted(one: FloatLayer, kept: np.ndarray) -> Rounded:
            problem, _ = layer_problem(one, self.fit.ridge)
            return self._fit(one, problem, kept, refit(problem, kept)[0])

        pairs = zip(layer.channels(), mask.T[:, :, None], strict=True)
        levels, scales = zip(*(fitted(*pair) for pair in pairs), strict=True)
        return Rounded(np.concatenate(levels, axis=1), np.concatenate(scales))

    def _fit(
        self, layer: FloatLayer, problem: LeastSquares, mask: np.ndarray, values: np.ndarray
    ) -> Rounded:
        best = self.fit.solve(layer, problem, mask=mask, values=values)
        if self.search is None:
            return best
        gram, target = problem
        key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(layer.name.encode()))
        columns = integer_columns(
            best.levels.astype(np.int64),
            target / best.scale,
            gram,
            low=layer.low * mask,
            high=layer.high * mask,
        )
        levels = np.asarray(evolve_columns(key, columns, self.search)).T
        scale = layer.grid.nearest(best_scale(levels, gram, gram @ target, best.scale))
        both = (np.concatenate(parts, axis=-1) for parts in zip(best, (levels, scale), strict=True))
        return Rounded(*best_of(problem, *both))


class SparsityCost(NamedTuple):
    """What a share of zeros in one layer costs and takes.

    Attributes:
      zeros: the share.
      divergence: of the float network with this layer pruned and refitted from the float network,
        as `LayerCost.sensitivity`.
      bytes: about what the layer takes coded: the entropy of its mask, and the bits less one for
        each survivor.
    """

    zeros: float
    divergence: float
    bytes: float


def sparsity_costs(
    teacher: FloatTeacher, zeros: Sequence[float], *, bits: int, ridge: float = 1e-3
) -> dict[str, list[SparsityCost]]:
    """What every layer costs and takes at ascending shares of zeros, with no gradient.

    Weights go by `pruned` and the others are refitted as real numbers; the inputs are those of an
    8-bit network. Depthwise layers have few weights and stay as they are: one cost, at no zeros.
    Choose a share for each layer with `qevo.compress.allocate`.
    """
    one = OneRounded(teacher)
    costs: dict[str, list[SparsityCost]] = {}

    def note(layer: FloatLayer) -> Rounded:
        if layer.depthwise:
            costs[layer.name] = [SparsityCost(0.0, 0.0, layer.kernel.size * bits / 8)]
            return round_squared_error(layer)
        problem, alive = layer_problem(layer, ridge)
        mean_input, mean_output = layer.means()
        costs[layer.name] = []
        for share, (mask, values) in zip(zeros, pruned(problem, alive, zeros), strict=True):
            bias = mean_output - mean_input @ values
            kept = np.count_nonzero(mask)
            size = (mask.size * _entropy(kept / mask.size) + kept * (bits - 1)) / 8
            cost = SparsityCost(share, one.divergence(layer.name, values, bias), size)
            costs[layer.name].append(cost)
        return round_squared_error(layer)

    teacher.convert(bits=8, rounding=note)
    return costs


def _entropy(share: float) -> float:
    """Of a bit, in bits."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p)

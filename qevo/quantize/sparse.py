"""Sparse networks: a rounding that zeroes weights and fits the others, and what zeros cost."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import jax
import numpy as np

from qevo.algorithms.least_squares import ColumnSearch, integer_columns
from qevo.algorithms.zero_patterns import Pattern, check_pattern
from qevo.errors import QevoError
from qevo.quantize.convert import FloatTeacher
from qevo.quantize.evolutionary import search_columns
from qevo.quantize.layerwise import LayerwiseFit, LeastSquares, best_of, best_scale
from qevo.quantize.pruning import (
    RIDGE,
    largest,
    largest_in_groups,
    layer_problem,
    pruned,
    pruned_groups,
    refit,
    strongest_filters,
)
from qevo.quantize.rounding import FloatLayer, Rounded, round_squared_error
from qevo.quantize.sensitivity import Distance, OneRounded

Order = Literal["second_order", "magnitude", "random"]

_FIT = LayerwiseFit(ridge=RIDGE, starts=(0.7, 0.85, 1.0, 1.2), sweeps=3)


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
        check_pattern(self.pattern)

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
        share = self.zeros[layer.name]
        if not 0 <= share < 1:
            raise QevoError(f"{layer.name}: a share of zeros of 0 to 1, below 1, got {share}")
        return share

    def _filters(self, layer: FloatLayer, problem: LeastSquares, alive: np.ndarray) -> np.ndarray:
        """The weights of the channels that stay, bool ``[K, C]``."""
        mask = alive[:, None] & np.ones(layer.kernel.shape, bool)
        if layer.grid.last:
            return mask
        if self.order == "second_order":
            return mask & strongest_filters(problem, problem.target, self._share(layer))
        norm = np.square(layer.kernel).sum(0, keepdims=True)
        score = self._score(layer, norm)
        share = min(self._share(layer), 1 - 1 / score.size)  # one channel stays
        return mask & largest(score, np.ones(score.shape, bool), share)

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
            values / best.scale,  # on the mask the same problem, but for a constant
            gram,
            low=layer.low * mask,
            high=layer.high * mask,
        )
        levels = search_columns(key, columns, self.search)
        scale = layer.grid.nearest(best_scale(levels, gram, gram @ target, best.scale))
        both = (np.concatenate(parts, axis=-1) for parts in zip(best, (levels, scale), strict=True))
        return Rounded(*best_of(problem, *both))


class SparsityCost(NamedTuple):
    """What a share of zeros in one layer costs and takes.

    Attributes:
      zeros: the share.
      divergence: of the float network with this layer pruned and refitted from the float network,
        as `LayerCost.sensitivity` or by another distance.
      bytes: about what the layer takes coded: the entropy of its mask, and the bits less one for
        each survivor.
    """

    zeros: float
    divergence: float
    bytes: float


def sparsity_costs(
    teacher: FloatTeacher,
    zeros: Sequence[float],
    *,
    bits: int,
    ridge: float = RIDGE,
    images: np.ndarray | None = None,
    distance: Distance | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> dict[str, list[SparsityCost]]:
    """What every layer costs and takes at ascending shares of zeros, with no gradient.

    Weights go by `pruned` and the others are refitted as real numbers; the inputs are those of an
    8-bit network. Depthwise layers have few weights and stay as they are: one cost, at no zeros.
    Choose a share for each layer with `qevo.compress.allocate`.

    Args:
      teacher: the float network, whose images layers are refitted to.
      zeros: ascending shares, 0 to 1.
      bits: of the survivors, for what they take.
      ridge: of the refits.
      images: uint8 ``[n, H, W, C]``, on which divergences are measured. The teacher's, by default,
        are right where it has many; to a few, layers are refitted so closely that zeros seem free.
      distance: of outputs ``[n, ...]`` from the float network's, which come first; by default the
        mean divergence of classes, or the mean squared difference of images or maps.
      progress: called with how many layers have been measured, and the name of the last.

    Returns:
      For each layer its cost at each share.

    Raises:
      QevoError: no image to measure on.
    """
    if images is not None and not len(images):
        raise QevoError("zeros are measured on images, but there are none")
    one = OneRounded(teacher, images, distance)
    costs: dict[str, list[SparsityCost]] = {}

    def measured(layer: FloatLayer) -> Iterator[SparsityCost]:
        if layer.depthwise:
            yield SparsityCost(0.0, 0.0, layer.kernel.size * bits / 8)
            return
        problem, alive = layer_problem(layer, ridge)
        mean_input, mean_output = layer.means()
        for share, (mask, values) in zip(zeros, pruned(problem, alive, zeros), strict=True):
            bias = mean_output - mean_input @ values
            kept = np.count_nonzero(mask)
            size = (mask.size * _entropy(kept / mask.size) + kept * (bits - 1)) / 8
            yield SparsityCost(share, one.divergence(layer.name, values, bias), size)

    def note(layer: FloatLayer) -> Rounded:
        costs[layer.name] = list(measured(layer))
        if progress:
            progress(len(costs), layer.name)
        return round_squared_error(layer)

    teacher.convert(bits=8, rounding=note, make_up=False)
    return costs


def _entropy(share: float) -> float:
    """Of a bit, in bits."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p)

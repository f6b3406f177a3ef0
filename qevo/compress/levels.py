"""Few int8 levels for the weights of a layer, for the least error and the fewest coded bits.

A weight is given in units of one int8 step, ``kernel / scale`` with the layer's scale per channel,
so that a codebook of int8 levels keeps inference as it is. An existing int8 layer is its own
values. Zeros, as pruning leaves them, stay zero: zero is a level of every codebook.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np

from qevo.compress.coder import model_bits
from qevo.compress.integer_levels import integer_levels
from qevo.compress.model import OFF, exponents
from qevo.errors import QevoError

Kind = Literal["uniform", "two_sided", "power_of_two", "optimal"]

_ROUNDS = 8  # of assignment and rates; more change little
_HALVINGS = 16  # of the range of prices, on a log scale
_MANY = 1 << 15  # points, above which a histogram stands for them
_BINS = 32  # of a step
_FINEST = 1e-9  # least share that a rate is computed from


@dataclasses.dataclass(frozen=True)
class LayerValues:
    """The weights to be given levels.

    Attributes:
      values: float64 ``[K, C]``, in int8 steps; 0 where pruned.
      importance: float64, what a squared error of one step costs; broadcasts to ``[K, C]``. With
        the diagonal of the inputs' second moments ``[K, 1]`` times the squared scale ``[C]``, the
        error is that of the layer's output, its inputs taken as uncorrelated.
      low, high: the range that the layer's arithmetic is proved for, such as -127 and 127.
    """

    values: np.ndarray
    importance: np.ndarray
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not self.values.size or not np.isfinite(self.values).all():
            raise QevoError(f"values must be finite and [K, C], not {self.values.shape}")
        try:
            weights = np.broadcast_to(np.asarray(self.importance, np.float64), self.values.shape)
        except ValueError:
            weights = np.array(np.nan)
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise QevoError(
                f"importance must be finite, not negative, and broadcast to {self.values.shape},"
                f" not {np.shape(self.importance)}"
            )
        if not -128 <= self.low <= 0 <= self.high <= 127:
            raise QevoError(f"levels {self.low}..{self.high} must be int8 with zero among them")
        object.__setattr__(self, "importance", weights)

    @classmethod
    def of_integers(
        cls, kernel: np.ndarray, importance: np.ndarray | float = 1.0, *, low: int, high: int
    ) -> LayerValues:
        """An int8 layer ``[..., C]`` that is to have fewer levels."""
        values = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
        return cls(values, np.asarray(importance, np.float64), low, high)


class Levels(NamedTuple):
    """What was chosen for a layer.

    Attributes:
      indices: uint8 ``[K, C]``, places in the codebook.
      codebook: int8 ``[L]``, ascending, zero among them.
      error: the sum of importance times squared error.
      bits: what the coder's model takes for these weights, in all.
    """

    indices: np.ndarray
    codebook: np.ndarray
    error: float
    bits: float

    @property
    def weights(self) -> np.ndarray:
        """int8 ``[K, C]``."""
        return self.codebook[self.indices]


def codebook(layer: LayerValues, kind: Kind, count: int) -> np.ndarray:
    """At most ``count`` int8 levels of one kind, ascending, zero among them.

    - "uniform": multiples of a step, one more below zero than above for an even count, as two's
      complement has it. The step of the least error.
    - "two_sided": on each side of zero, levels from a first one in equal steps: pruning leaves a
      gap around zero that needs none. First level and step of the least error, for each side.
    - "power_of_two": on each side a run of 1, 2, 4, ..., 64, of the least error.
    - "optimal": the integers of the least error, whatever they are (`integer_levels`).

    Raises:
      QevoError: fewer than two levels, more than 256, or an unknown kind.
    """
    if kind not in get_args(Kind):
        raise QevoError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    if not 2 <= count <= 256:
        raise QevoError(f"a codebook has 2 to 256 levels, not {count}")
    there = layer.values != 0
    points, weights = _histogram(layer.values[there], layer.importance[there])
    low, high = layer.low, layer.high
    if kind == "optimal":
        return integer_levels(points, weights, count, low=low, high=high).astype(np.int8)
    below, above = count // 2, (count - 1) // 2
    error = _Error(points, weights)
    if kind == "uniform":
        steps = [np.arange(-below, above + 1) * step for step in range(1, max(high, -low, 1) + 1)]
        found = min((s[(s >= low) & (s <= high)] for s in steps), key=error)
    elif kind == "power_of_two":
        powers = 1 << np.arange(8)
        found = min(
            (
                np.array([*-b[::-1], 0, *a])
                for a in _runs(powers[powers <= high], above)
                for b in _runs(powers[powers <= -low], below)
            ),
            key=error,
        )
    else:
        sides = [
            (np.concatenate([[0], side]) for side in _steps(n, top))
            for n, top in ((above, high), (below, -low))
        ]
        up = min(sides[0], key=error)
        down = min((-side[::-1] for side in sides[1]), key=error)
        found = np.concatenate([down[:-1], up])
    return found.astype(np.int8)


def _runs(levels: np.ndarray, count: int) -> list[np.ndarray]:
    """Runs of ``count`` levels, or all of them."""
    return [levels[i : i + count] for i in range(max(len(levels) - count, 0) + 1)]


def _steps(count: int, top: int) -> Iterator[np.ndarray]:
    """A first level and equal steps up to at most ``top``, ``count`` levels or as many as fit."""
    if not count or not top:
        yield np.zeros(0, int)
    for first in range(1, top + 1):
        for step in range(1, max((top - first) // max(count - 1, 1), 1) + 1):
            side = first + step * np.arange(count)
            yield side[side <= top]


class _Error:
    """The error of weighted points at the nearest of ascending levels, from prefix sums."""

    def __init__(self, points: np.ndarray, weights: np.ndarray):
        order = np.argsort(points)
        self._points, weights = points[order], weights[order]
        terms = weights * self._points ** np.arange(3)[:, None]
        self._sums = np.concatenate([np.zeros((3, 1)), np.cumsum(terms, 1)], 1)

    def __call__(self, levels: np.ndarray) -> float:
        middles = (levels[1:] + levels[:-1]) / 2
        ends = np.concatenate([[0], self._points.searchsorted(middles), [len(self._points)]])
        mass, first, second = np.diff(self._sums[:, ends])
        return float((second - 2 * levels * first + levels * levels * mass).sum())


def assign(layer: LayerValues, levels: np.ndarray, *, price: float = 0.0) -> Levels:
    """Give every weight a level: the least error plus ``price`` for each bit of the code.

    Entropy-constrained quantization (Chou, Lookabaugh and Gray 1989): levels are chosen at the
    current rates and rates follow from the chosen levels, in turn. The rate of a zero is that of
    its row and column as the coder's model has it, so zeros gather where zeros are; the dead zone
    around zero comes of itself.

    Args:
      layer: the values.
      levels: int8 ``[L]``, ascending, zero among them, within the layer's range.
      price: error that one bit is worth; 0 is the nearest level.

    Raises:
      QevoError: other levels.
    """
    levels = np.asarray(levels)
    if (
        0 not in levels
        or len(np.unique(levels)) != len(levels)
        or (np.diff(levels.astype(int)) < 0).any()
    ):
        raise QevoError(f"levels must ascend and hold zero: {levels.tolist()}")
    if levels.min() < layer.low or levels.max() > layer.high:
        raise QevoError(
            f"levels {levels.min()}..{levels.max()} leave the layer's {layer.low}..{layer.high}"
        )
    indices = _nearest(layer, levels, None, price)
    for _ in range(_ROUNDS if price else 0):
        rates = _rates(levels[indices].astype(np.int8), levels)
        indices = _nearest(layer, levels, rates, price)
    weights = levels[indices].astype(np.int8)
    error = float((layer.importance * (layer.values - weights) ** 2).sum())
    return Levels(indices, levels.astype(np.int8), error, model_bits(weights))


def choose_levels(
    layer: LayerValues,
    kind: Kind,
    count: int,
    *,
    max_bits: float | None = None,
    max_error: float | None = None,
) -> Levels:
    """Levels of one kind under a budget: the least error within ``max_bits``, or the reverse.

    The price of a bit is found by halving. Without a budget every weight takes its nearest level.

    Args:
      layer: the values.
      kind, count: as for `codebook`.
      max_bits: of the coded layer.
      max_error: in the units of `Levels.error`.

    Raises:
      QevoError: both budgets, or one that these levels cannot keep, with the nearest that they can.
    """
    if max_bits is not None and max_error is not None:
        raise QevoError("give a budget of bits or of error, not both")
    levels = codebook(layer, kind, count)
    nearest = assign(layer, levels)
    if max_bits is None and max_error is None:
        return nearest
    if max_error is not None and nearest.error > max_error:
        raise QevoError(
            f"the least error of {len(levels)} levels is {nearest.error:.4g}, above {max_error:.4g}"
        )
    if max_bits is not None and nearest.bits <= max_bits:
        return nearest

    def fits(found: Levels) -> bool:
        if max_bits is not None:
            return found.bits <= max_bits
        return max_error is None or found.error <= max_error

    # Below `cheap` little is saved, above `dear` everything is zero.
    dear = max(float((layer.importance * layer.values**2).max()), 1e-30)
    cheap = dear * 2.0**-24
    found = [nearest]
    for _ in range(_HALVINGS):
        price = float(np.sqrt(cheap * dear))
        trial = assign(layer, levels, price=price)
        found.append(trial)
        too_dear = fits(trial) if max_bits is not None else not fits(trial)
        cheap, dear = (cheap, price) if too_dear else (price, dear)
    nothing = np.full(layer.values.shape, int(np.flatnonzero(levels == 0)[0]), np.uint8)
    weights = np.zeros(layer.values.shape, np.int8)
    error = float((layer.importance * layer.values**2).sum())
    found.append(Levels(nothing, levels, error, model_bits(weights)))
    kept = [trial for trial in found if fits(trial)]
    if not kept:
        raise QevoError(f"even zeros take {found[-1].bits:.0f} bits, more than {max_bits:.0f}")
    return min(kept, key=lambda f: (f.error, f.bits) if max_bits is not None else (f.bits, f.error))


def _histogram(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bins of 1/32 step where there are very many points, each with its mean; only what matters."""
    points, weights = points[weights > 0], weights[weights > 0]
    if len(points) <= _MANY:
        return points, weights
    bins = np.rint(points * _BINS).astype(np.int64)
    bins = np.clip(bins, -256 * _BINS, 256 * _BINS) + 256 * _BINS
    mass = np.bincount(bins, weights)
    mean = np.bincount(bins, weights * points)
    there = mass > 0
    return mean[there] / mass[there], mass[there]


class _Rates(NamedTuple):
    """Bits of the code: for each weight of being zero and of not being so, and of each level."""

    zero: np.ndarray  # [K, C]
    other: np.ndarray  # [K, C]
    level: np.ndarray  # [L]


def _rates(weights: np.ndarray, levels: np.ndarray) -> _Rates:
    """What the model will take to code such weights, from their own counts."""
    nonzero = weights != 0
    rows, columns = nonzero.shape
    share = (np.count_nonzero(nonzero) + 0.5) / (nonzero.size + 1)
    odds = np.ones((rows, columns)) * (1 - share) / share
    for axis, exponent in enumerate(exponents(nonzero)):
        if exponent != OFF:
            seen = np.count_nonzero(nonzero, 1 - axis)
            strength = 2.0**exponent
            near = (nonzero.shape[1 - axis] - seen + strength * (1 - share)) / (
                seen + strength * share
            )
            odds *= np.expand_dims(near * share / (1 - share), 1 - axis)
    counts = np.array([np.count_nonzero(weights == level) for level in levels]) + 0.5
    counts[levels == 0] = 0
    value = -np.log2(np.maximum(counts, _FINEST) / counts.sum())
    return _Rates(np.log2(1 + 1 / odds), np.log2(1 + odds), value)


def _nearest(
    layer: LayerValues, levels: np.ndarray, rates: _Rates | None, price: float
) -> np.ndarray:
    """Places of the levels of the least error plus price, uint8 ``[K, C]``; zeros stay zero."""
    zero = int(np.flatnonzero(levels == 0)[0])
    indices = np.full(layer.values.shape, zero, np.uint8)
    there = layer.values != 0
    x, h = layer.values[there], layer.importance[there]
    least, other = h * x * x, np.zeros(len(x))
    if rates is not None:
        least += price * rates.zero[there]
        other = price * rates.other[there]
    found = np.full(len(x), zero, np.uint8)
    for place, level in enumerate(levels.tolist()):
        if level:
            cost = h * (x - level) ** 2 + other
            if rates is not None:
                cost += price * rates.level[place]
            better = cost < least
            found[better], least = place, np.minimum(cost, least)
    indices[there] = found
    return indices

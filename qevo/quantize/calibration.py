"""Activation scales from calibration images, by squared error."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from qevo.nets.arithmetic import activation_range
from qevo.nets.float_numerics import Calibrating, Observation, sampling_stride
from qevo.nets.images import PixelScaling, image_rule
from qevo.quantize.batches import batches

_VALUES = 1 << 17  # of one site that the search for its scale looks at
_FRACTIONS = np.geomspace(0.1, 1.0, 64)  # of the scale at which nothing saturates


class Site(NamedTuple):
    """An int8 activation of the integer network: ``real = scale * int8``."""

    scale: float
    low: int
    high: int


def calibrate(
    module: nn.Module,
    folded: Mapping[str, Any],
    images: np.ndarray,
    *,
    scaling: PixelScaling,
    activation_bits: int = 8,
) -> dict[str, Site]:
    """Scale and range of every site of a network, by name.

    Each scale minimises the squared error of clipping and rounding to ``activation_bits`` over
    evenly spaced values of the calibration images. The summands and the result of a residual sum
    get powers of two, so that the sum takes shifts only.

    Args:
      module: the architecture.
      folded: its ``params`` from `fold_batch_norm`.
      images: uint8 ``[n, H, W, C]``.
      scaling: the float network's pixel rule; the input site follows its `image_rule`.
      activation_bits: 8 or 4, for every site but the input, which has 8.
    """
    activation_range(activation_bits, signed=False)
    module = module.clone(numerics=Calibrating(scaling))
    observations: dict[str, list[Observation]] = {}
    for (batch,) in batches(images):
        for name, seen in _observe(module, folded, batch).items():
            observations.setdefault(name, []).append(seen)
    sums = {name: seen[0].summands for name, seen in observations.items() if seen[0].summands}
    shifted = {*sums, *(part for parts in sums.values() for part in parts)}
    sites = {}
    for name, seen in observations.items():
        low, high = activation_range(activation_bits, signed=seen[0].signed)
        values = np.concatenate([np.asarray(o.sample) for o in seen])
        values = values[:: sampling_stride(len(values), _VALUES)]
        maximum = max(float(o.maximum) for o in seen)
        scale = _best_scale(values, maximum, low, high, power_of_two=name in shifted)
        sites[name] = Site(scale, low, high)
    rule = image_rule(scaling)
    sites["input"] = Site(rule.scale, rule.low, rule.high)
    return sites


@functools.partial(jax.jit, static_argnums=0)
def _observe(module: nn.Module, folded: Any, images: jax.Array) -> dict[str, Observation]:
    _, state = module.apply({"params": folded}, images, mutable=["sites"])
    flat: dict[tuple[str, ...], Any] = flatten_dict(state["sites"])
    return {"/".join(path[:-1]): seen for path, seen in flat.items()}


def _best_scale(
    values: np.ndarray, maximum: float, low: int, high: int, *, power_of_two: bool
) -> float:
    full = max(maximum, 1e-6) / high
    candidates = full * _FRACTIONS
    if power_of_two:
        candidates = 2.0 ** np.arange(np.floor(np.log2(full)) - 3, np.ceil(np.log2(full)) + 1)
    errors = [
        np.square(np.clip(np.rint(values / s), low, high) * s - values).mean() for s in candidates
    ]
    return float(candidates[int(np.argmin(errors))])

"""Activation scales from calibration images, by squared error."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from qevo.errors import QevoError
from qevo.nets.arithmetic import activation_range
from qevo.nets.float_numerics import Calibrating, HeadObservation, Observation, sampling_stride
from qevo.nets.images import PixelScaling, image_rule
from qevo.nets.numerics import Head
from qevo.quantize.batches import batches

_VALUES = 1 << 17  # of one site that the search for its scale looks at
_FRACTIONS = np.geomspace(0.1, 1.0, 64)  # of the scale at which nothing saturates


class Site(NamedTuple):
    """An int8 activation of the integer network: ``real = scale * int8``."""

    scale: float
    low: int
    high: int


class Output(NamedTuple):
    """A layer that gives the network's output."""

    head: Head
    site: str  # of its input
    reach: float  # its largest absolute float output


class Calibration(NamedTuple):
    """What calibration images say of a network, by name."""

    sites: dict[str, Site]
    outputs: dict[str, Output]


def calibrate(
    module: nn.Module,
    folded: Mapping[str, Any],
    images: np.ndarray,
    *,
    scaling: PixelScaling,
    activation_bits: int = 8,
) -> Calibration:
    """Scale and range of every site of a network, and what its outputs reach.

    Each scale minimises the squared error of clipping and rounding to ``activation_bits`` over
    evenly spaced values of the calibration images. The summands and the result of a residual sum
    get powers of two, so that the sum takes shifts only; activations that are put together share a
    scale.

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
    outputs: dict[str, Output] = {}
    for (batch,) in batches(images):
        try:
            batch_sites, batch_heads = _observe(module, folded, batch)
        except (AttributeError, TypeError) as error:  # of what is no activation of the numerics
            raise QevoError(
                f"{type(module).__name__} must begin with n.input, for its numerics n, and compute"
                f" with nothing but operations of n: {str(error).splitlines()[0]}"
            ) from error
        for name, seen in batch_sites.items():
            observations.setdefault(name, []).append(seen)
        for name, seen in batch_heads.items():
            before = outputs[name].reach if name in outputs else 0.0
            outputs[name] = Output(seen.head, seen.site, max(before, float(seen.maximum)))
    if not outputs:
        raise QevoError(
            f"{type(module).__name__} must end with n.logits, n.image or n.map, and not with"
            f" {list(observations)[-1]}"
        )
    sums = {name: seen[0].summands for name, seen in observations.items() if seen[0].summands}
    shifted = {*sums, *(part for parts in sums.values() for part in parts)}
    if "input" in shifted:
        name = next(name for name, parts in sums.items() if "input" in parts)
        raise QevoError(
            f"{name}: the images themselves cannot be added to activations, whose scale is another;"
            " put a layer between them"
        )
    tied = {name: seen[0].parts for name, seen in observations.items() if seen[0].parts}
    rule = image_rule(scaling)
    sites = {}
    for group in _groups(observations, tied):
        if "input" in group:
            if len(group) > 1:
                raise QevoError(
                    f"{', '.join(group)}: the images themselves cannot be put together with"
                    " activations, whose scale is another"
                )
            sites["input"] = Site(rule.scale, rule.low, rule.high)
            continue
        ranges = {name: _range(observations[name], activation_bits) for name in group}
        for name in observations:  # in the network's order: what is put together may be of such
            if name in ranges and name in tied:
                parts = [ranges[part] for part in tied[name]]
                low, high = min(part.low for part in parts), max(part.high for part in parts)
                ranges[name] = ranges[name]._replace(low=low, high=high)
        scale = _best_scale([*ranges.values()], power_of_two=not shifted.isdisjoint(group))
        sites |= {name: Site(scale, one.low, one.high) for name, one in ranges.items()}
    return Calibration({name: sites[name] for name in observations}, outputs)


def _groups(names: Iterable[str], tied: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The names, those of one scale together."""
    group = {name: [name] for name in names}
    for name, parts in tied.items():
        for part in parts:
            first, second = group[name], group[part]
            if first is not second:
                first += second
                group |= dict.fromkeys(second, first)
    return list({id(found): found for found in group.values()}.values())


class _Range(NamedTuple):
    """Values of a site and the levels that they get."""

    values: np.ndarray  # float32, evenly spaced ones
    maximum: float  # the largest absolute one of all
    low: int
    high: int

    def error(self, scale: float) -> float:
        """Mean squared error of clipping and rounding at a scale."""
        levels = np.clip(np.rint(self.values / scale), self.low, self.high)
        return float(np.square(levels * scale - self.values).mean())


def _range(seen: Sequence[Observation], bits: int) -> _Range:
    low, high = activation_range(bits, signed=seen[0].signed)
    values = np.concatenate([np.asarray(o.sample) for o in seen])
    values = values[:: sampling_stride(len(values), _VALUES)]
    return _Range(values, max(float(o.maximum) for o in seen), low, high)


@functools.partial(jax.jit, static_argnums=0)
def _observe(
    module: nn.Module, folded: Any, images: jax.Array
) -> tuple[dict[str, Observation], dict[str, HeadObservation]]:
    _, state = module.apply({"params": folded}, images, mutable=["sites", "heads"])

    def by_name(collection: str) -> dict[str, Any]:
        flat: dict[tuple[str, ...], Any] = flatten_dict(state.get(collection, {}))
        return {"/".join(path[:-1]): seen for path, seen in flat.items()}

    return by_name("sites"), by_name("heads")


def _best_scale(ranges: Sequence[_Range], *, power_of_two: bool) -> float:
    """The scale at which the mean errors add up to the least."""
    full = max(max(one.maximum, 1e-6) / one.high for one in ranges)
    candidates = full * _FRACTIONS
    if power_of_two:
        candidates = 2.0 ** np.arange(np.floor(np.log2(full)) - 3, np.ceil(np.log2(full)) + 1)
    errors = [sum(one.error(scale) for one in ranges) for scale in candidates]
    return float(candidates[int(np.argmin(errors))])

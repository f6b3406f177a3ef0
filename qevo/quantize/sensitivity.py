"""How much each layer's rounding costs: in its own output, and in the network's."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from qevo.nets.arithmetic import levels
from qevo.nets.float_numerics import Calibrating
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.batches import over_batches
from qevo.quantize.convert import FloatTeacher
from qevo.quantize.gram import Moments
from qevo.quantize.outputs import divergence
from qevo.quantize.rounding import (
    FloatLayer,
    Rounded,
    Rounding,
    fitted_bias,
    round_squared_error,
)
from qevo.quantize.scales import ScaleGrid

Distance = Callable[[np.ndarray, np.ndarray], float]  # of expected outputs and found ones

IMAGES = 512  # of the teacher's that a layer's effect on the network is measured on

_FINE = 1 << 15  # largest multiplier of a layer that no integer layer comes before or after


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What rounding one layer alone costs.

    Attributes:
      error: of the layer's output, mean square relative to its variance.
      sensitivity: `divergence` of the output of the float network with this layer's weights rounded
        from that of the float network: nats for classes, mean squared difference for images.
    """

    error: float
    sensitivity: float


class BitsCost(NamedTuple):
    """What one layer costs and takes at some number of bits.

    Attributes:
      sensitivity: as `LayerCost` has it.
      packed: bytes of its weights side by side; see `packed_bytes`.
      coded: bytes of its weights by the entropy of their levels.
    """

    sensitivity: float
    packed: int
    coded: float


def layer_costs(
    teacher: FloatTeacher, networks: Mapping[str, QuantizedNetwork]
) -> dict[str, dict[str, LayerCost]]:
    """The cost of every layer of some roundings of one float network.

    Args:
      teacher: the float network.
      networks: conversions of it by name, with the calibration of ``teacher``.

    Returns:
      For each layer in the order of computation, its cost by the name of the network.

    All layers but one stay float. The one has a bias that keeps its mean output, as the networks
    have; its inputs, which decide that bias, are those of a network of 8 bits. Sensitivity in this
    sense: Wang et al. 2019 (HAQ) and many since.
    """
    one = OneRounded(teacher)
    costs: dict[str, dict[str, LayerCost]] = {}

    def note(layer: FloatLayer) -> Rounded:
        means = layer.means()
        moments = [one.moments() for one in (layer.channels() if layer.depthwise else [layer])]
        costs[layer.name] = {}
        for kind, network in networks.items():
            kernel = _kernel(layer, network)
            bias = fitted_bias(kernel, *means)
            costs[layer.name][kind] = LayerCost(
                _output_error(layer, moments, kernel), one.divergence(layer.name, kernel, bias)
            )
        return round_squared_error(layer)

    teacher.convert(bits=8, rounding=note, make_up=False)
    return costs


def bits_costs(
    teacher: FloatTeacher,
    bits: Sequence[str | int],
    *,
    rounding: Rounding = round_squared_error,
    progress: Callable[[int, str], None] | None = None,
) -> dict[str, dict[str | int, BitsCost]]:
    """What every layer costs and takes at each of some numbers of bits, with no gradient.

    A layer is rounded as if the layers before it had weights of 8 bits, so that it makes up for no
    errors but its own; its scales have 15 bits. The cost is that of `layer_costs`, on the first
    `IMAGES` of the teacher's images.

    Args:
      teacher: the float network.
      bits: each "ternary" or 2 to 8.
      rounding: the method.
      progress: called with how many roundings have been measured, and the name of the layer.

    Returns:
      For each layer in the order of computation, its cost by its bits.

    Raises:
      QevoError: other bits, or as `FloatTeacher.convert`.
    """
    limits = {value: levels(value) for value in bits}
    one = OneRounded(teacher)
    costs: dict[str, dict[str | int, BitsCost]] = {}

    def note(layer: FloatLayer) -> Rounded:
        means = layer.means()
        moments = functools.cache(layer.moments)
        grid = ScaleGrid(1.0, _FINE, 40, np.zeros(layer.kernel.shape[1]), layer.grid.input_scale)
        costs[layer.name] = row = {}
        for value, (low, high) in limits.items():
            fields = vars(layer) | {"low": low, "high": high, "grid": grid}
            if layer.depthwise:
                rounded = rounding(FloatLayer(**fields))
            else:
                rounded = rounding(_SharedMoments(**fields, shared=moments))
            kernel = rounded.levels * rounded.scale
            bias = fitted_bias(kernel, *means)
            row[value] = BitsCost(
                one.divergence(layer.name, kernel, bias),
                packed_bytes(rounded.levels.size, value),
                entropy_bytes(rounded.levels),
            )
            if progress:
                progress(sum(map(len, costs.values())), layer.name)
        return round_squared_error(layer)

    teacher.convert(bits=8, rounding=note, make_up=False)
    return costs


def packed_bytes(weights: int, bits: str | float) -> int:
    """Bytes of so many weights side by side; of ternary ones, five to a byte."""
    return math.ceil(weights / 5 if bits == "ternary" else weights * float(bits) / 8)


def entropy_bytes(weights: np.ndarray) -> float:
    """Bytes of int8 weights in the best code that knows how often each level occurs."""
    counts = np.bincount(weights.view(np.uint8).ravel())
    counts = counts[counts > 0]
    return abs(float((counts * np.log2(counts / weights.size)).sum())) / 8


@dataclasses.dataclass(frozen=True)
class _SharedMoments(FloatLayer):
    """A layer at one number of bits; the moments are the same for all, and computed once."""

    shared: Callable[[], Moments]

    def moments(self) -> Moments:
        return self.shared()


class OneRounded:
    """The float network with other weights in one layer.

    Args:
      teacher: the float network.
      images: to compare outputs on; the teacher's first `IMAGES` by default.
      distance: of found outputs from expected ones; `divergence` by default.
    """

    def __init__(
        self,
        teacher: FloatTeacher,
        images: np.ndarray | None = None,
        distance: Distance | None = None,
    ) -> None:
        self._images = teacher.images[:IMAGES] if images is None else images
        self._distance = distance or functools.partial(divergence, head=teacher.head)
        self._module = teacher.module.clone(numerics=Calibrating(teacher.scaling))
        self._params: dict[str, Any] = flatten_dict(teacher.folded, sep="/")
        self._expected = self._outputs(teacher.folded)

    def divergence(self, name: str, kernel: np.ndarray, bias: np.ndarray) -> float:
        """The distance from the float network, with a kernel ``[K, C]`` and bias ``[C]``."""
        kernel = kernel.reshape(self._params[f"{name}/kernel"].shape)
        swapped = {f"{name}/kernel": np.float32(kernel), f"{name}/bias": np.float32(bias)}
        found = self._outputs(unflatten_dict(self._params | swapped, sep="/"))
        return self._distance(self._expected, found)

    def _outputs(self, folded: Any) -> np.ndarray:
        return over_batches(functools.partial(_outputs, self._module, folded), self._images)


def _output_error(layer: FloatLayer, moments: Sequence[Moments], kernel: np.ndarray) -> float:
    """Of the layer's output, mean square relative to its variance.

    ``moments`` are one, or those of each channel of a depthwise layer.
    """
    error, variance = 0.0, 0.0
    for i, part in enumerate(moments):
        columns = slice(i, i + 1) if layer.depthwise else slice(None)
        exact = layer.kernel[:, columns]
        off = kernel[:, columns] - exact
        error += (off * (part.gram @ off)).sum()
        variance += (exact * (part.gram @ exact)).sum()
    return float(error / max(variance, 1e-12))


def _kernel(layer: FloatLayer, network: QuantizedNetwork) -> np.ndarray:
    """The real weights ``[K, C]`` that a network's integers stand for."""
    constants = {k: np.asarray(v) for k, v in network.constants[layer.name].items()}
    multiplier = constants["multiplier"]
    scale = layer.grid.scale(multiplier, constants.get("shift", np.zeros_like(multiplier)))
    kernel = np.asarray(network.weights[layer.name], np.float64)
    return kernel.reshape(layer.kernel.shape) * scale


@functools.partial(jax.jit, static_argnums=0)
def _outputs(module: nn.Module, folded: Any, images: jax.Array) -> Any:
    return module.apply({"params": folded}, images)

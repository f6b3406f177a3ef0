"""How much each layer's rounding costs: in its own output, and in the network's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from qevo.nets.float_numerics import Calibrating
from qevo.nets.network import QuantizedNetwork
from qevo.quantize.batches import over_batches
from qevo.quantize.convert import FloatTeacher, divergence
from qevo.quantize.gram import Moments
from qevo.quantize.rounding import FloatLayer, Rounded, round_squared_error

_IMAGES = 512  # of the teacher's that a layer's effect on the network is measured on


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What rounding one layer alone costs.

    Attributes:
      error: of the layer's output, mean square relative to its variance.
      sensitivity: mean Kullback-Leibler divergence, nats, of the classes of the float network with
        this layer's weights rounded from those of the float network.
    """

    error: float
    sensitivity: float


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
    have. Sensitivity in this sense: Wang et al. 2019 (HAQ) and many since.
    """
    alone: dict[str, dict[str, _Alone]] = {}

    def note(layer: FloatLayer) -> Rounded:
        moments = layer.moments()
        alone[layer.name] = {
            kind: _rounded_alone(layer, moments, network) for kind, network in networks.items()
        }
        return round_squared_error(layer)

    bits = next(iter(networks.values())).bits
    teacher.convert(bits=bits, rounding=note)
    images = teacher.images[:_IMAGES]
    module = teacher.module.clone(numerics=Calibrating(teacher.scaling))
    params: dict[str, Any] = flatten_dict(teacher.folded, sep="/")
    run = functools.partial(_logits, module)
    expected = over_batches(functools.partial(run, teacher.folded), images)

    def cost(name: str, layer: _Alone) -> LayerCost:
        shape = params[f"{name}/kernel"].shape
        swapped = {f"{name}/kernel": layer.kernel.reshape(shape), f"{name}/bias": layer.bias}
        variables = unflatten_dict(params | swapped, sep="/")
        found = over_batches(functools.partial(run, variables), images)
        return LayerCost(layer.error, divergence(expected, found))

    return {
        name: {kind: cost(name, layer) for kind, layer in kinds.items()}
        for name, kinds in alone.items()
    }


class _Alone(NamedTuple):
    """One rounded layer, for a network that is float otherwise."""

    kernel: np.ndarray  # float32 [K, C]
    bias: np.ndarray  # float32 [C]
    error: float


def _rounded_alone(layer: FloatLayer, moments: Moments, network: QuantizedNetwork) -> _Alone:
    kernel = _kernel(layer, network)
    off = kernel - layer.kernel
    variance = (layer.kernel * (moments.gram @ layer.kernel)).sum()
    error = (off * (moments.gram @ off)).sum() / max(variance, 1e-12)
    bias = moments.mean_output - moments.mean_input @ kernel
    return _Alone(kernel.astype(np.float32), bias.astype(np.float32), float(error))


def _kernel(layer: FloatLayer, network: QuantizedNetwork) -> np.ndarray:
    """The real weights ``[K, C]`` that a network's integers stand for."""
    constants = {k: np.asarray(v) for k, v in network.constants[layer.name].items()}
    multiplier = constants["multiplier"]
    scale = layer.grid.scale(multiplier, constants.get("shift", np.zeros_like(multiplier)))
    levels = np.asarray(network.weights[layer.name], np.float64)
    return levels.reshape(layer.kernel.shape) * scale


@functools.partial(jax.jit, static_argnums=0)
def _logits(module: nn.Module, folded: Any, images: jax.Array) -> Any:
    return module.apply({"params": folded}, images)

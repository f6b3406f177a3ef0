"""Multipliers and biases in fewer digits: in a small network they are a large part of the file."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError
from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.network import QuantizedNetwork


def coarsen(
    network: QuantizedNetwork,
    *,
    digits: int = 7,
    tolerance: float = 1 / 16,
    last_tolerance: float = 1 / 32,
) -> QuantizedNetwork:
    """The network with shorter multipliers and biases; its accuracy has to be measured again.

    Args:
      network: any; weights, shifts and operations without weights stay.
      digits: binary digits that a multiplier keeps: it moves by at most ``2**-digits`` of itself.
      tolerance: the most that a bias may move an output, in its units, before rounding.
      last_tolerance: the same for the last layer, in nats (of an image: levels of the input).

    Raises:
      QevoError: fewer than one digit, or a tolerance that is not positive.
    """
    if digits < 1 or tolerance <= 0 or last_tolerance <= 0:
        raise QevoError("coarsen takes at least one digit and tolerances above 0")
    constants: dict[str, dict[str, jax.Array]] = {n: dict(p) for n, p in network.constants.items()}
    for name, facts in network.layers.items():
        part = constants[name]
        multiplier = _shorter(np.asarray(part["multiplier"], np.int64), digits, facts)
        if "shift" in part:
            reach = float((multiplier / 2.0 ** np.asarray(part["shift"])).max())
            step = 2 * tolerance / reach
        else:
            step = 2 * last_tolerance * 2.0**network.fraction_bits
        bias = _multiples(np.asarray(part["bias"], np.int64), step, facts)
        part["multiplier"] = jnp.asarray(multiplier, jnp.int32)
        part["bias"] = jnp.asarray(bias, jnp.int32)
    return dataclasses.replace(network, constants=constants)


def _shorter(multiplier: np.ndarray, digits: int, facts: LayerArithmetic) -> np.ndarray:
    lengths = np.frexp(multiplier)[1]  # exact: bit lengths of integers below 2**53
    unit = 1 << np.maximum(lengths - digits, 0).astype(np.int64)
    rounded = np.rint(multiplier / unit).astype(np.int64) * unit
    return np.where(rounded > facts.multiplier_limit, multiplier // unit * unit, rounded)


def _multiples(bias: np.ndarray, step: float, facts: LayerArithmetic) -> np.ndarray:
    """The nearest multiples of the largest power of two up to ``step`` within the limit."""
    unit = 1 << max(math.floor(math.log2(step)), 0)
    most = facts.bias_limit // unit
    return np.clip(np.rint(bias / unit).astype(np.int64), -most, most) * unit

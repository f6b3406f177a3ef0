"""What networks return for images, and how it compares with what others return."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from qevo.integer.loss import softmax
from qevo.nets.network import QuantizedNetwork
from qevo.nets.numerics import Head
from qevo.quantize.batches import over_batches


def float_logits(module: nn.Module, variables: Mapping[str, Any], images: np.ndarray) -> np.ndarray:
    """Logits float32 ``[n, C]`` of a float network for uint8 images ``[n, H, W, C]``, or images."""
    return over_batches(functools.partial(_forward, module, variables), images)


def soft_labels(logits: np.ndarray, *, fraction_bits: int) -> np.ndarray:
    """What a search compares with where a float network is its teacher.

    Args:
      logits: float32 ``[n, C]``, any finite values.
      fraction_bits: with how many they are rounded.

    Returns:
      Frequencies int32 ``[n, C]``, as `qevo.integer.softmax`.
    """

    def part(logits: np.ndarray) -> jax.Array:
        fixed = np.rint(logits.astype(np.float64) * 2.0**fraction_bits)
        gaps = np.maximum(fixed - fixed.max(1, keepdims=True), np.iinfo(np.int32).min)
        return _softmax(jnp.asarray(gaps, jnp.int32), fraction_bits=fraction_bits)

    return over_batches(part, logits)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit ``[n, C]``, the first of equals, is their label's."""
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def divergence(expected: np.ndarray, found: np.ndarray, head: Head = "logits") -> float:
    """How far outputs are from the expected ones.

    Args:
      expected, found: logits ``[n, C]``, for the mean Kullback-Leibler divergence of their classes
        in nats; or images ``[n, H, W, C]`` or maps ``[n, N]``, for the mean squared difference.
      head: which of them.
    """
    if head != "logits":
        return float(np.square(found - expected, dtype=np.float64).mean())
    true, other = _log_softmax(expected), _log_softmax(found)
    return float((np.exp(true) * (true - other)).sum(-1).mean())


def log_probabilities(network: QuantizedNetwork, images: np.ndarray) -> np.ndarray:
    """Logarithms of a quantized network's classes, float64 ``[n, C]``."""
    return _log_softmax(network(images) / 2.0**network.fraction_bits)


_softmax = jax.jit(softmax, static_argnames="fraction_bits")


@functools.partial(jax.jit, static_argnums=0)
def _forward(module: nn.Module, variables: Any, images: jax.Array) -> Any:
    return module.apply(variables, images)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

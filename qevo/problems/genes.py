"""The genes of a quantized network: what a search may change, and how far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from qevo.core.space import GENE_MAX, Leaf, Space
from qevo.errors import QevoError
from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.network import Constants, QuantizedNetwork, Weights

Genes = Literal["weights", "multipliers", "biases"]

MULTIPLIER_STEPS = 6  # one gene step changes a multiplier by 1/64, or by 1 where that is more
CHANNELS = 16  # of a wide dense layer, searched at a time
BLOCKS = 6  # runs of layers that a search may stay within; each is compiled on its own
LOGIT_STEP_BITS = 5  # one gene step changes a bias of the logits by 1/32 nat
IMAGE_STEP_BITS = 2  # and a bias of an image by 1/4 level


def network_space(
    network: QuantizedNetwork,
    *,
    genes: Sequence[Genes],
    radius: int = 1,
    blocks: int = BLOCKS,
    channels: int = CHANNELS,
    layers: Sequence[str] | None = None,
) -> Space:
    """The genes of a network, each with its own bounds and step.

    A weight moves at most ``radius`` levels within its bits. A multiplier moves in steps of 1/64 of
    itself and a bias in steps of one level of the layer's output (1/32 nat for the logits, 1/4
    level for an image), both within the limits that the layer's bounds were proved for. The space's
    blocks are about ``blocks`` runs of consecutive layers; a wide dense layer is one of its own,
    searched ``channels`` output channels at a time. All ``layers`` have genes, or those named.

    Raises:
      QevoError: for an unknown kind of genes, none at all, a radius, blocks or channels below 1, or
        a layer that is not there.
    """
    odd = sorted(set(genes) - set(get_args(Genes)))
    if odd or not genes:
        raise QevoError(f"genes must be some of {', '.join(get_args(Genes))}; got {list(genes)}")
    if not 1 <= radius <= GENE_MAX:
        raise QevoError(f"radius must be 1 to {GENE_MAX}, got {radius}")
    if blocks < 1 or channels < 1:
        raise QevoError(f"blocks and channels must be at least 1, got {blocks} and {channels}")
    named = list(network.layers) if layers is None else list(layers)
    if not named or set(named) - set(network.layers):
        raise QevoError(f"layers must be some of {', '.join(network.layers)}; got {named}")
    searched = [name for name in network.layers if name in named]
    tree: dict[str, dict[str, Leaf]] = {kind: {} for kind in get_args(Genes) if kind in genes}
    for name in searched:
        facts = network.layers[name]
        constants = {k: np.asarray(v, np.int64) for k, v in network.constants[name].items()}
        if "weights" in tree:
            tree["weights"][name] = _weight_leaf(np.asarray(network.weights[name]), facts, radius)
        if "multipliers" in tree:
            tree["multipliers"][name] = _multiplier_leaf(constants["multiplier"], facts)
        if "biases" in tree:
            bits = IMAGE_STEP_BITS if network.head == "image" else LOGIT_STEP_BITS
            step = _bias_step(constants, network.fraction_bits, bits)
            tree["biases"][name] = _bias_leaf(constants["bias"], step, facts)
    return Space.of(tree).with_blocks(_blocks(network, tree, blocks, channels))


def merged(weights: Weights, constants: Constants, solution: Any) -> tuple[Weights, Constants]:
    """Weights and constants with a solution's arrays in place of their own.

    Args:
      weights, constants: by layer, as `QuantizedNetwork` has them.
      solution: what a space of `network_space` decodes to; what it leaves out stays.
    """
    mixed = dict(constants)
    for kind, name in (("multipliers", "multiplier"), ("biases", "bias")):
        for layer, values in solution.get(kind, {}).items():
            mixed[layer] = {**mixed[layer], name: values}
    return {**weights, **solution.get("weights", {})}, mixed


def _blocks(
    network: QuantizedNetwork, tree: Mapping[str, Mapping[str, Leaf]], count: int, channels: int
) -> list[tuple[list[str], int | None]]:
    """Runs of consecutive layers, at most ``count`` or so, of about as many genes each.

    A dense layer of at least twice as many channels is a block of its own, searched by channels.
    """
    names = next(iter(tree.values()))
    sizes = {name: sum(math.prod(tree[kind][name].shape) for kind in tree) for name in names}
    share = sum(sizes.values()) / count
    runs: list[tuple[list[str], int | None]] = []
    room = 0.0
    for name, kernel in ((name, network.weights[name]) for name in names):
        wide = kernel.ndim == 2 and kernel.shape[-1] >= 2 * channels
        if wide:
            runs.append(([name], channels))
            room = 0.0
            continue
        if room < sizes[name] / 2:
            runs.append(([], None))
            room = share
        runs[-1][0].append(name)
        room -= sizes[name]
    return [([f"{kind}/{name}" for kind in tree for name in run], c) for run, c in runs]


def _weight_leaf(kernel: np.ndarray, facts: LayerArithmetic, radius: int) -> Leaf:
    start = kernel.astype(np.int64)
    low = np.maximum(start - radius, facts.weight_low)
    high = np.minimum(start + radius, facts.weight_high)
    return Leaf(kernel.shape, low, high, start)


def _multiplier_leaf(base: np.ndarray, facts: LayerArithmetic) -> Leaf:
    step = np.maximum(base >> MULTIPLIER_STEPS, 1)
    low = -np.minimum((base - 1) // step, GENE_MAX)
    high = np.minimum((facts.multiplier_limit - base) // step, GENE_MAX)
    return Leaf(base.shape, low, high, 0, base, step, np.int32)


def _bias_step(
    constants: Mapping[str, np.ndarray], fraction_bits: int, step_bits: int
) -> np.ndarray:
    multiplier = constants["multiplier"]
    if "shift" not in constants:
        return np.full(multiplier.shape, max(1 << fraction_bits >> step_bits, 1))
    return np.maximum((1 << constants["shift"]) // multiplier, 1)


def _bias_leaf(base: np.ndarray, step: np.ndarray, facts: LayerArithmetic) -> Leaf:
    low = -np.minimum((base + facts.bias_limit) // step, GENE_MAX)
    high = np.minimum((facts.bias_limit - base) // step, GENE_MAX)
    return Leaf(base.shape, low, high, 0, base, step, np.int32)

"""Fitness of an integer network's genes: its loss on a shared minibatch of images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from flax.core import FrozenDict

from qevo.core.problem import Metrics, Problem
from qevo.core.rows import sum_over_rows
from qevo.core.space import GENE_MAX, Block, Leaf, Space
from qevo.errors import QevoError
from qevo.integer.loss import (
    BATCH_LIMIT,
    TARGET_TOTAL,
    UNIT,
    cross_entropy,
    error_count,
    soft_cross_entropy,
)
from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.edited_numerics import Edited, EditedInteger
from qevo.nets.integer_numerics import Arithmetic
from qevo.nets.network import QuantizedNetwork, forward
from qevo.nets.plan import Plan, image_rows

Genes = Literal["weights", "multipliers", "biases"]
Loss = Literal["cross_entropy", "errors"]

MULTIPLIER_STEPS = 6  # one gene step changes a multiplier by 1/64, or by 1 where that is more
CHANNELS = 16  # of a wide dense layer, searched at a time
BLOCKS = 6  # runs of layers that a search may stay within; each is compiled on its own
LOGIT_STEP_BITS = 5  # one gene step changes a bias of the logits by 1/32 nat


@struct.dataclass
class NetworkProblem(Problem):
    """Search the weights, multipliers and biases of a quantized network.

    A solution is ``{"weights": {layer: int8}, "multipliers": {layer: int32 [C]}, "biases": {layer:
    int32 [C]}}``, of which only the chosen kinds are there. Fitness is the summed loss over a
    minibatch that all candidates of a generation share, in 1/1024 nat (or errors).

    Build one with `NetworkProblem.of`.
    """

    space: Space
    weights: Any  # {layer: int8}, what solutions replace
    constants: Any  # {layer: {name: int32}}, likewise
    images: jax.Array  # int8 [n, H, W, C], search images
    targets: jax.Array  # int32 [n] labels, or int32 [n, C] soft labels
    validation_images: jax.Array  # int8 [m, H, W, C]
    validation_targets: jax.Array  # int32 [m] or [m, C], what acceptance compares with
    validation_labels: jax.Array  # int32 [m], for the errors in the log
    module: nn.Module = struct.field(pytree_node=False)
    layers: tuple[str, ...] = struct.field(pytree_node=False)  # in the order of computation
    fraction_bits: int = struct.field(pytree_node=False)
    batch_size: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    batch_chunk: int | None = struct.field(pytree_node=False, default=None)
    candidate_chunk: int | None = struct.field(pytree_node=False, default=1)
    optimum: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(
        cls,
        network: QuantizedNetwork,
        images: np.ndarray,
        targets: np.ndarray,
        validation_images: np.ndarray,
        validation_labels: np.ndarray,
        *,
        validation_targets: np.ndarray | None = None,
        genes: Sequence[Genes] = ("weights", "multipliers", "biases"),
        radius: int = 1,
        batch_size: int = 1024,
        loss: Loss = "cross_entropy",
        arithmetic: Arithmetic = "int",
        blocks: int = BLOCKS,
        channels: int = CHANNELS,
        plan: Plan | None = None,
        candidate_chunk: int | None = 1,
        batch_chunk: int | None = None,
    ) -> NetworkProblem:
        """The search around ``network``.

        Args:
          network: where the search starts.
          images: uint8 ``[n, H, W, C]`` that candidates are scored on.
          targets: labels int32 ``[n]``, or a teacher's soft labels int32 ``[n, C]`` as
            `qevo.integer.softmax` makes them.
          validation_images, validation_labels: disjoint from the search images.
          validation_targets: what acceptance compares with, as ``targets``; the labels by default.
          genes: what the search may change.
          radius: the most levels that a weight may move from its start.
          batch_size: B, images per generation.
          loss: "cross_entropy" in 1/1024 nat, or "errors".
          arithmetic: "int", or "fast" for the fastest exact products; the bits are the same.
          blocks, channels: parts that the search may stay within; see `network_space`.
          plan: how to compute each layer on this device, as `qevo.nets.plan.plan` measured it; the
            rule of `choose_path` without one. It changes no bit, and neither do the chunks:
          candidate_chunk: candidates evaluated side by side.
          batch_chunk: images evaluated at once; by default the plan's, or 64 where there are
            convolutions, else the batch.

        Raises:
          QevoError: shapes, labels or settings that do not fit the network, more images than a
            summed loss can hold, or nothing to search.
        """
        if validation_targets is None:
            validation_targets = validation_labels
        _check_settings(loss, arithmetic, batch_size, candidate_chunk, batch_chunk)
        _check_images(network, "search", images)
        _check_images(network, "validation", validation_images)
        for what, values, count, soft in (
            ("targets", targets, len(images), True),
            ("validation_targets", validation_targets, len(validation_images), True),
            ("validation_labels", validation_labels, len(validation_images), False),
        ):
            _check_targets(network, what, values, count, soft=soft)
        if len(validation_images) > BATCH_LIMIT:
            raise QevoError(
                f"{len(validation_images)} validation images: the summed loss of more than "
                f"{BATCH_LIMIT} leaves int32"
            )
        prepare = jax.jit(network.prepare)
        paths = FrozenDict(plan.paths if plan else {})
        rows = min(plan.rows if plan else image_rows(network, batch_size), batch_size)
        return cls(
            space=network_space(
                network, genes=genes, radius=radius, blocks=blocks, channels=channels
            ),
            weights=dict(network.weights),
            constants={name: dict(part) for name, part in network.constants.items()},
            images=prepare(jnp.asarray(images)),
            targets=jnp.asarray(targets, jnp.int32),
            validation_images=prepare(jnp.asarray(validation_images)),
            validation_targets=jnp.asarray(validation_targets, jnp.int32),
            validation_labels=jnp.asarray(validation_labels, jnp.int32),
            module=network.module.clone(
                numerics=EditedInteger(network.layers, network.ranges, arithmetic, paths)
            ),
            layers=tuple(network.layers),
            fraction_bits=network.fraction_bits,
            batch_size=batch_size,
            loss=loss,
            batch_chunk=batch_chunk or rows,
            candidate_chunk=candidate_chunk,
        )

    def batch(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """B images, int8 ``[B, H, W, C]``, and their targets.

        Drawn with replacement; where B is their number, all of them in a random order, so that the
        fitness of a candidate on the whole batch is the same in every generation.
        """
        count = self.images.shape[0]
        if self.batch_size == count:
            rows = jax.random.permutation(key, count)
        else:
            rows = jax.random.randint(key, (self.batch_size,), 0, count, jnp.int32)
        return self.images[rows], self.targets[rows]

    def fitness(self, solution: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Summed loss over the batch, int32 ``[]``."""
        images, targets = batch
        return self._loss(self._logits(solution, images), targets)

    def validation(self, solution: Any) -> tuple[jax.Array, Metrics]:
        """Summed loss over all validation images, int32 ``[]``; the log also gets the errors."""

        def score(part: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            images, targets, labels = part
            logits = self._logits(solution, images)
            return self._loss(logits, targets), error_count(logits, labels)

        data = (self.validation_images, self.validation_targets, self.validation_labels)
        loss, errors = sum_over_rows(score, data, self.batch_chunk)
        return loss, {"validation_errors": errors}

    def edited(self, leaf: jax.Array, part: jax.Array, channel: jax.Array) -> Edited:
        """Kernels and constants with replaced channels, of which `EditedInteger` makes use."""
        return Edited(leaf, part, channel)

    def rows_at_once(self, block: Block) -> int | None:
        """`batch_chunk` while a convolution is left to compute, else all rows."""
        layers = {self.space.layout[index].name.split("/", 1)[1] for index in block.leaves}
        first = min(self.layers.index(layer) for layer in layers)
        convolutions = any(self.weights[layer].ndim == 4 for layer in self.layers[first:])
        return self.batch_chunk if convolutions else None

    def network(self, network: QuantizedNetwork, solution: Any) -> QuantizedNetwork:
        """``network`` with a solution's arrays in place of its own."""
        weights, constants = self._merged(solution)
        return dataclasses.replace(network, weights=weights, constants=constants)

    def describe(self) -> dict[str, Any]:
        """Adds the settings that no array holds."""
        return super().describe() | {
            "batch_size": self.batch_size,
            "loss": self.loss,
            "genes": sorted({part.name.split("/")[0] for part in self.space.layout}),
        }

    def _logits(self, solution: Any, images: jax.Array) -> jax.Array:
        weights, constants = self._merged(solution)
        return forward(self.module, weights, constants, images)

    def _merged(self, solution: Any) -> tuple[Any, Any]:
        weights = {**self.weights, **solution.get("weights", {})}
        constants = dict(self.constants)
        for kind, name in (("multipliers", "multiplier"), ("biases", "bias")):
            for layer, values in solution.get(kind, {}).items():
                constants[layer] = {**constants[layer], name: values}
        return weights, constants

    def _loss(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        if self.loss == "errors":
            labels = targets if targets.ndim == 1 else jnp.argmax(targets, axis=1)
            return error_count(logits, labels.astype(jnp.int32))
        of = cross_entropy if targets.ndim == 1 else soft_cross_entropy
        return jnp.sum(of(logits, targets, fraction_bits=self.fraction_bits), dtype=jnp.int32)

    def loss_per_image(self, fitness: int, images: int) -> float:
        """A summed loss as nats per image (or the share of errors), for people."""
        return fitness / images / (UNIT if self.loss == "cross_entropy" else 1)


def network_space(
    network: QuantizedNetwork,
    *,
    genes: Sequence[Genes],
    radius: int = 1,
    blocks: int = BLOCKS,
    channels: int = CHANNELS,
) -> Space:
    """The genes of a network, each with its own bounds and step.

    A weight moves at most ``radius`` levels within its bits. A multiplier moves in steps of 1/64 of
    itself and a bias in steps of one level of the layer's output (1/32 nat for the logits), both
    within the limits that the layer's bounds were proved for. The space's blocks are about
    ``blocks`` runs of consecutive layers; a wide dense layer is one of its own, searched
    ``channels`` output channels at a time.

    Raises:
      QevoError: for an unknown kind of genes, none at all, or a radius below 1.
    """
    odd = sorted(set(genes) - set(get_args(Genes)))
    if odd or not genes:
        raise QevoError(f"genes must be some of {', '.join(get_args(Genes))}; got {list(genes)}")
    if not 1 <= radius <= GENE_MAX:
        raise QevoError(f"radius must be 1 to {GENE_MAX}, got {radius}")
    tree: dict[str, dict[str, Leaf]] = {kind: {} for kind in get_args(Genes) if kind in genes}
    layers = network.layers
    for name, facts in layers.items():
        constants = {k: np.asarray(v, np.int64) for k, v in network.constants[name].items()}
        if "weights" in tree:
            tree["weights"][name] = _weight_leaf(np.asarray(network.weights[name]), facts, radius)
        if "multipliers" in tree:
            tree["multipliers"][name] = _multiplier_leaf(constants["multiplier"], facts)
        if "biases" in tree:
            step = _bias_step(constants, network.fraction_bits)
            tree["biases"][name] = _bias_leaf(constants["bias"], step, facts)
    return Space.of(tree).with_blocks(_blocks(network, tree, blocks, channels))


def _blocks(
    network: QuantizedNetwork, tree: Mapping[str, Mapping[str, Leaf]], count: int, channels: int
) -> list[tuple[list[str], int | None]]:
    """Runs of consecutive layers, at most ``count`` or so, of about as many genes each.

    A dense layer of at least twice as many channels is a block of its own, searched by channels.
    """
    sizes = {
        name: sum(math.prod(tree[kind][name].shape) for kind in tree) for name in network.layers
    }
    share = sum(sizes.values()) / count
    runs: list[tuple[list[str], int | None]] = []
    room = 0.0
    for name, kernel in ((name, network.weights[name]) for name in network.layers):
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
    return [([f"{kind}/{name}" for kind in tree for name in names], c) for names, c in runs]


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


def _bias_step(constants: Mapping[str, np.ndarray], fraction_bits: int) -> np.ndarray:
    multiplier = constants["multiplier"]
    if "shift" not in constants:
        return np.full(multiplier.shape, max(1 << fraction_bits >> LOGIT_STEP_BITS, 1))
    return np.maximum((1 << constants["shift"]) // multiplier, 1)


def _bias_leaf(base: np.ndarray, step: np.ndarray, facts: LayerArithmetic) -> Leaf:
    low = -np.minimum((base + facts.bias_limit) // step, GENE_MAX)
    high = np.minimum((facts.bias_limit - base) // step, GENE_MAX)
    return Leaf(base.shape, low, high, 0, base, step, np.int32)


def _check_settings(
    loss: str, arithmetic: str, batch: int, candidates: int | None, rows: int | None
) -> None:
    if loss not in get_args(Loss) or arithmetic not in get_args(Arithmetic):
        raise QevoError(
            f"loss is one of {', '.join(get_args(Loss))} and arithmetic one of "
            f"{', '.join(get_args(Arithmetic))}; got {loss!r} and {arithmetic!r}"
        )
    if not 1 <= batch <= BATCH_LIMIT:
        raise QevoError(f"batch_size must be 1 to {BATCH_LIMIT}, got {batch}")
    for name, chunk in (("candidate_chunk", candidates), ("batch_chunk", rows)):
        if chunk is not None and chunk < 1:
            raise QevoError(f"{name} must be at least 1, got {chunk}")


def _check_images(network: QuantizedNetwork, what: str, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != network.image_shape or not len(images):
        raise QevoError(
            f"{what} images must be uint8 [n, {', '.join(map(str, network.image_shape))}], got "
            f"{images.dtype} {list(images.shape)}"
        )


def _check_targets(
    network: QuantizedNetwork, what: str, targets: np.ndarray, count: int, *, soft: bool
) -> None:
    """Labels within the network's classes or, where ``soft`` allows them, exact frequencies."""
    targets = np.asarray(targets)
    (classes,) = {
        len(network.constants[name]["bias"])
        for name in network.layers
        if "shift" not in network.constants[name]  # only the logits have none
    }
    shapes = [(count,), (count, classes)] if soft else [(count,)]
    if targets.dtype.kind not in "iu" or targets.shape not in shapes:
        raise QevoError(
            f"{what} must be integers {' or '.join(str(list(shape)) for shape in shapes)}, one per "
            f"image, got {targets.dtype} {list(targets.shape)}"
        )
    low, high = int(targets.min()), int(targets.max())
    if targets.ndim == 1 and not 0 <= low <= high < classes:
        raise QevoError(f"{what} are {low}..{high}, the network's classes 0..{classes - 1}")
    if targets.ndim == 2 and (low < 0 or np.any(targets.sum(axis=1) != TARGET_TOTAL)):
        raise QevoError(f"{what} must be 0 or more and sum to {TARGET_TOTAL} for every image")

"""Fitness of an integer network's genes: its loss on a shared minibatch of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from qevo.core.problem import Metrics, Problem
from qevo.core.space import GENE_MAX, Leaf, Space
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
from qevo.nets.integer_numerics import Arithmetic
from qevo.nets.network import QuantizedNetwork, forward

Genes = Literal["weights", "multipliers", "biases"]
Loss = Literal["cross_entropy", "errors"]

MULTIPLIER_STEPS = 6  # one gene step changes a multiplier by 1/64, or by 1 where that is more
IMAGE_CHUNK = 64  # images of a convolutional network at once: its patches stay in the cache
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
    fraction_bits: int = struct.field(pytree_node=False)
    batch_size: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    image_chunk: int = struct.field(pytree_node=False)
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
        candidate_chunk: int | None = 1,
        image_chunk: int | None = None,
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
          candidate_chunk: candidates evaluated side by side; any number gives the same bits.
          image_chunk: images evaluated at once, likewise; by default 64 where there are
            convolutions, else the batch (measured on a CPU).

        Raises:
          QevoError: shapes, labels or settings that do not fit the network, more images than a
            summed loss can hold, or nothing to search.
        """
        if validation_targets is None:
            validation_targets = validation_labels
        _check_settings(loss, arithmetic, batch_size, candidate_chunk)
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
        return cls(
            space=network_space(network, genes=genes, radius=radius),
            weights=dict(network.weights),
            constants={name: dict(part) for name, part in network.constants.items()},
            images=prepare(jnp.asarray(images)),
            targets=jnp.asarray(targets, jnp.int32),
            validation_images=prepare(jnp.asarray(validation_images)),
            validation_targets=jnp.asarray(validation_targets, jnp.int32),
            validation_labels=jnp.asarray(validation_labels, jnp.int32),
            module=network.integer_module(arithmetic),
            fraction_bits=network.fraction_bits,
            batch_size=batch_size,
            loss=loss,
            image_chunk=image_chunk or _image_chunk(network, batch_size),
            candidate_chunk=candidate_chunk,
        )

    def batch(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """B images drawn with replacement, int8 ``[B, H, W, C]``, and their targets."""
        rows = jax.random.randint(key, (self.batch_size,), 0, self.images.shape[0], jnp.int32)
        return self.images[rows], self.targets[rows]

    def fitness(self, solution: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Summed loss over the batch, int32 ``[]``."""

        def score(part: tuple[jax.Array, jax.Array]) -> jax.Array:
            images, targets = part
            return self._loss(self._logits(solution, images), targets)

        return sum_over_images(score, batch, self.image_chunk)

    def validation(self, solution: Any) -> tuple[jax.Array, Metrics]:
        """Summed loss over all validation images, int32 ``[]``; the log also gets the errors."""

        def score(part: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            images, targets, labels = part
            logits = self._logits(solution, images)
            return self._loss(logits, targets), error_count(logits, labels)

        data = (self.validation_images, self.validation_targets, self.validation_labels)
        loss, errors = sum_over_images(score, data, self.image_chunk)
        return loss, {"validation_errors": errors}

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


def sum_over_images(score: Callable[[Any], Any], data: Any, chunk: int) -> Any:
    """``score`` of ``data``, at most ``chunk`` images at a time, summed.

    Integer sums do not depend on their order, so any chunk gives the same bits; a small one keeps a
    convolution's patches in the cache.

    Args:
      score: from arrays with a leading axis of images to a pytree of int32 sums over them.
      data: pytree of arrays ``[B, ...]``.
      chunk: images at a time.
    """
    images = jax.tree.leaves(data)[0].shape[0]
    whole, rest = divmod(images, chunk)
    if whole == 0 or (whole == 1 and rest == 0):
        return score(data)
    split = whole * chunk
    parts = jax.tree.map(lambda a: a[:split].reshape(whole, chunk, *a.shape[1:]), data)
    total = jax.tree.map(lambda a: jnp.sum(a, axis=0, dtype=a.dtype), jax.lax.map(score, parts))
    if rest:
        more = score(jax.tree.map(lambda a: a[split:], data))
        total = jax.tree.map(jnp.add, total, more)
    return total


def network_space(network: QuantizedNetwork, *, genes: Sequence[Genes], radius: int = 1) -> Space:
    """The genes of a network, each with its own bounds and step.

    A weight moves at most ``radius`` levels within its bits. A multiplier moves in steps of 1/64 of
    itself and a bias in steps of one level of the layer's output (1/32 nat for the logits), both
    within the limits that the layer's bounds were proved for.

    Raises:
      QevoError: for an unknown kind of genes, none at all, or a radius below 1.
    """
    odd = sorted(set(genes) - set(get_args(Genes)))
    if odd or not genes:
        raise QevoError(f"genes must be some of {', '.join(get_args(Genes))}; got {list(genes)}")
    if not 1 <= radius <= GENE_MAX:
        raise QevoError(f"radius must be 1 to {GENE_MAX}, got {radius}")
    tree: dict[str, dict[str, Leaf]] = {kind: {} for kind in get_args(Genes) if kind in genes}
    for name, facts in network.layers.items():
        constants = {k: np.asarray(v, np.int64) for k, v in network.constants[name].items()}
        if "weights" in tree:
            tree["weights"][name] = _weight_leaf(np.asarray(network.weights[name]), facts, radius)
        if "multipliers" in tree:
            tree["multipliers"][name] = _multiplier_leaf(constants["multiplier"], facts)
        if "biases" in tree:
            step = _bias_step(constants, network.fraction_bits)
            tree["biases"][name] = _bias_leaf(constants["bias"], step, facts)
    return Space.of(tree)


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


def _check_settings(loss: str, arithmetic: str, batch: int, chunk: int | None) -> None:
    if loss not in get_args(Loss) or arithmetic not in get_args(Arithmetic):
        raise QevoError(
            f"loss is one of {', '.join(get_args(Loss))} and arithmetic one of "
            f"{', '.join(get_args(Arithmetic))}; got {loss!r} and {arithmetic!r}"
        )
    if not 1 <= batch <= BATCH_LIMIT:
        raise QevoError(f"batch_size must be 1 to {BATCH_LIMIT}, got {batch}")
    if chunk is not None and chunk < 1:
        raise QevoError(f"candidate_chunk must be at least 1, got {chunk}")


def _image_chunk(network: QuantizedNetwork, batch_size: int) -> int:
    convolutions = any(kernel.ndim == 4 for kernel in network.weights.values())
    return min(IMAGE_CHUNK, batch_size) if convolutions else batch_size


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

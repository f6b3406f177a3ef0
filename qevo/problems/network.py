"""Fitness of an integer network's genes: its loss on a shared minibatch of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from flax.core import FrozenDict

from qevo.core.problem import Metrics, Problem
from qevo.core.rows import sum_over_rows
from qevo.core.space import Block, Space
from qevo.errors import QevoError
from qevo.integer.loss import (
    BATCH_LIMIT,
    TARGET_TOTAL,
    UNIT,
    cross_entropy,
    error_count,
    soft_cross_entropy,
)
from qevo.nets.edited_numerics import Edited, EditedInteger
from qevo.nets.fixed_maps import FixedMaps
from qevo.nets.integer_numerics import Arithmetic
from qevo.nets.network import QuantizedNetwork, forward
from qevo.nets.plan import Plan, image_rows
from qevo.nets.reconstruction import FixedImages
from qevo.problems.genes import BLOCKS, CHANNELS, Genes, merged, network_space

Loss = Literal["cross_entropy", "errors", "squared_error"]


@struct.dataclass
class NetworkProblem(Problem):
    """Search the weights, multipliers and biases of a quantized network.

    A solution is ``{"weights": {layer: int8}, "multipliers": {layer: int32 [C]}, "biases": {layer:
    int32 [C]}}``, of which only the chosen kinds are there. Fitness is the summed loss over a
    minibatch that all candidates of a generation share, in 1/1024 nat, errors, squared levels of an
    autoencoder's input or squared units of a detector's maps (`loss_per_image` knows the unit).

    Build one with `NetworkProblem.of`.
    """

    space: Space
    weights: Any  # {layer: int8}, what solutions replace
    constants: Any  # {layer: {name: int32}}, likewise
    images: jax.Array  # int8 [n, H, W, C], search images
    targets: jax.Array  # int32 [n] labels, int32 [n, C] soft labels, or int16 [n, ...] fixed ones
    validation_images: jax.Array  # int8 [m, H, W, C]
    validation_targets: jax.Array  # like targets, what acceptance compares with
    validation_labels: jax.Array  # int32 [m], or int16 [m, ...], for the errors in the log
    module: nn.Module = struct.field(pytree_node=False)
    layers: tuple[str, ...] = struct.field(pytree_node=False)  # in the order of computation
    fraction_bits: int = struct.field(pytree_node=False)
    batch_size: int = struct.field(pytree_node=False)
    loss: Loss = struct.field(pytree_node=False)
    fixed: FixedImages | FixedMaps | None = struct.field(
        pytree_node=False, default=None
    )  # of squared errors
    summed: int = struct.field(pytree_node=False, default=BATCH_LIMIT)  # images, at most
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
        maps: FixedMaps | None = None,
        arithmetic: Arithmetic = "int",
        blocks: int = BLOCKS,
        channels: int = CHANNELS,
        layers: Sequence[str] | None = None,
        plan: Plan | None = None,
        candidate_chunk: int | None = None,
        batch_chunk: int | None = None,
    ) -> NetworkProblem:
        """The search around ``network``.

        Args:
          network: where the search starts.
          images: uint8 ``[n, H, W, C]`` that candidates are scored on.
          targets: labels int32 ``[n]``, or a teacher's soft labels int32 ``[n, C]`` as
            `qevo.integer.softmax` makes them. For squared errors what the network should return:
            uint8 ``[n, H, W, C]``, such as ``images`` themselves, or a teacher's images int16 as
            `FixedImages.from_real` makes them. For a detector int16 as `FixedMaps.targets` makes
            them of a teacher's maps.
          validation_images, validation_labels: disjoint from the search images. For squared errors
            the labels are uint8 images, for a detector they are targets too.
          validation_targets: what acceptance compares with, as ``targets``; the labels by default.
          genes: what the search may change.
          radius: the most levels that a weight may move from its start.
          batch_size: B, images per generation.
          loss: "cross_entropy" in 1/1024 nat, "errors", or an autoencoder's or a detector's
            "squared_error".
          maps: how a detector's maps are compared.
          arithmetic: "int", or "fast" for the fastest exact products; the bits are the same.
          blocks, channels: parts that the search may stay within; see `network_space`.
          layers: those with genes; all by default.
          plan: how to compute each layer on this device, as `qevo.nets.planning.plan` measured it;
            the rule of `choose_path` without one. It changes no bit, and neither do the chunks:
          candidate_chunk: candidates evaluated side by side; by default the plan's, or 1.
          batch_chunk: images evaluated at once; by default the plan's, or 64 where there are
            convolutions, else the batch.

        Raises:
          QevoError: shapes, labels or settings that do not fit the network, more images than a
            summed loss can hold, or nothing to search.
        """
        if validation_targets is None:
            validation_targets = validation_labels
        _check_settings(loss, arithmetic, batch_size, candidate_chunk, batch_chunk)
        if plan and arithmetic == "int" and plan.arithmetic != "int":
            raise QevoError(
                "a plan for arithmetic='fast' may compute in floats: take arithmetic='fast' here,"
                " or plan(network, arithmetic='int')"
            )
        _check_images(network, "search images", images)
        _check_images(network, "validation images", validation_images)
        prepare = jax.jit(network.prepare)
        if network.head in ("image", "maps") and loss != "squared_error":
            returned = "images" if network.head == "image" else "maps"
            raise QevoError(
                f"a network that returns {returned} has loss='squared_error', not {loss!r}"
            )
        if (network.head == "maps") != (maps is not None):
            raise QevoError("maps= says how a detector's maps are compared, and goes with one")
        fixed = maps or (FixedImages.of(network) if loss == "squared_error" else None)

        def expected(what: str, values: np.ndarray, count: int, *, soft: bool) -> jax.Array:
            if fixed is None:
                _check_targets(network, what, values, count, soft=soft)
                return jnp.asarray(values, jnp.int32)
            if isinstance(fixed, FixedMaps):
                fixed.check(what, values, count)
                return jnp.asarray(values)
            if values.dtype == np.int16 and soft:
                _check_fixed_images(network, fixed, what, values, count)
                return jnp.asarray(values)
            _check_images(network, what, values, count)
            return fixed.from_input(prepare(jnp.asarray(values)))

        if len(validation_images) > BATCH_LIMIT:
            raise QevoError(
                f"{len(validation_images)} validation images: the summed loss of more than "
                f"{BATCH_LIMIT} leaves int32"
            )
        paths = FrozenDict(plan.paths if plan else {})
        rows = min(plan.rows if plan else image_rows(network, batch_size), batch_size)
        return cls(
            space=network_space(
                network,
                genes=genes,
                radius=radius,
                blocks=blocks,
                channels=channels,
                layers=layers,
            ),
            weights=dict(network.weights),
            constants={name: dict(part) for name, part in network.constants.items()},
            images=prepare(jnp.asarray(images)),
            targets=expected("targets", targets, len(images), soft=True),
            validation_images=prepare(jnp.asarray(validation_images)),
            validation_targets=expected(
                "validation_targets", validation_targets, len(validation_images), soft=True
            ),
            validation_labels=expected(
                "validation_labels", validation_labels, len(validation_images), soft=False
            ),
            module=network.module.clone(
                numerics=EditedInteger(network.layers, network.ranges, arithmetic, paths)
            ),
            layers=tuple(network.layers),
            fraction_bits=network.fraction_bits,
            batch_size=batch_size,
            loss=loss,
            fixed=fixed,
            summed=max(batch_size, len(validation_images)),
            batch_chunk=batch_chunk or rows,
            candidate_chunk=candidate_chunk or (plan.candidate_chunk if plan else 1),
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
        return self._loss(self._output(solution, images), targets)

    def validation(self, solution: Any) -> tuple[jax.Array, Metrics]:
        """Summed loss over all validation images, int32 ``[]``.

        The log also gets the errors, or the squared error from the labels in units of the loss.
        """

        def score(part: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            images, targets, labels = part
            output = self._output(solution, images)
            errors = error_count(output, labels) if labels.ndim == 1 else self._loss(output, labels)
            return self._loss(output, targets), errors

        data = (self.validation_images, self.validation_targets, self.validation_labels)
        loss, errors = sum_over_rows(score, data, self.batch_chunk)
        squared = self.fixed is not None
        return loss, {"validation_squared_error" if squared else "validation_errors": errors}

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
        weights, constants = merged(self.weights, self.constants, solution)
        return dataclasses.replace(network, weights=weights, constants=constants)

    def describe(self) -> dict[str, Any]:
        """Adds the settings that no array holds."""
        return super().describe() | {
            "batch_size": self.batch_size,
            "loss": self.loss,
            "genes": sorted({part.name.split("/")[0] for part in self.space.layout}),
        }

    def _output(self, solution: Any, images: jax.Array) -> jax.Array:
        weights, constants = merged(self.weights, self.constants, solution)
        return forward(self.module, weights, constants, images)

    def _loss(self, output: jax.Array, targets: jax.Array) -> jax.Array:
        if self.fixed is not None:
            found = self.fixed.from_output(output)
            losses = self.fixed.loss(found, targets, summed=self.summed)
            return jnp.sum(losses, dtype=jnp.int32)
        if self.loss == "errors":
            labels = targets if targets.ndim == 1 else jnp.argmax(targets, axis=1)
            return error_count(output, labels.astype(jnp.int32))
        of = cross_entropy if targets.ndim == 1 else soft_cross_entropy
        return jnp.sum(of(output, targets, fraction_bits=self.fraction_bits), dtype=jnp.int32)

    def loss_per_image(self, fitness: int, images: int) -> float:
        """A summed loss for people: nats, share of errors, or mean squared levels of a value."""
        if self.fixed is not None:
            return fitness / images * self.fixed.loss_unit(self.summed) / self.fixed.values
        return fitness / images / (UNIT if self.loss == "cross_entropy" else 1)


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


def _check_images(
    network: QuantizedNetwork, what: str, images: np.ndarray, count: int | None = None
) -> None:
    shape = (max(len(images), 1) if count is None else count, *network.image_shape)
    if images.dtype != np.uint8 or images.shape != shape:
        first = "n" if count is None else count
        raise QevoError(
            f"{what} must be uint8 [{first}, {', '.join(map(str, network.image_shape))}], got "
            f"{images.dtype} {list(images.shape)}"
        )


def _check_fixed_images(
    network: QuantizedNetwork, fixed: FixedImages, what: str, images: np.ndarray, count: int
) -> None:
    low, high = fixed.low << fixed.bits, fixed.high << fixed.bits
    shape = (count, *network.image_shape)
    if images.shape != shape or images.min() < low or images.max() > high:
        raise QevoError(
            f"{what} must be int16 {list(shape)} in {low}..{high}, got {list(images.shape)} in "
            f"{images.min()}..{images.max()}"
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

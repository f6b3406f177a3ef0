"""A quantized network: an architecture, its int8 weights, its int32 constants, and their limits."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict
from flax.traverse_util import flatten_dict, unflatten_dict

from qevo.errors import QevoError
from qevo.integer.products import Path
from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.images import prepare
from qevo.nets.integer_numerics import Arithmetic, Integer
from qevo.nets.numerics import Head
from qevo.nets.proof import prove

BATCH = 1024  # images per compiled call of `QuantizedNetwork.__call__`, at most
VALUES = 1 << 24  # of pixels in it, where images are large

Weights = Mapping[str, jax.Array]
Constants = Mapping[str, Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """An integer network: what conversion makes, the search edits and the file holds.

    A layer is called by its path in the architecture ("conv_0", "stage_1/conv_0"). Construction
    checks every tensor against the architecture and proves every bound. Equal networks have equal
    numbers everywhere, in the scales too; like arrays, they have no hash.

    Attributes:
      module: the architecture; its numerics do not matter.
      image_shape: ``(H, W, C)``.
      weights: int8 kernel of each layer, ``[K, C]`` or HWIO.
      constants: int32, per layer ``multiplier``, ``bias`` and ``shift`` ``[C]`` (last layer: no
        shift); per residual sum ``left`` ``[2]`` and ``right`` ``[]``; per average pool
        ``multiplier`` and ``shift`` ``[]``; and the image rule under "input" (`ImageRule`).
      layers: limits and proved bounds of each layer with weights, in the order of computation.
      ranges: output range of the input, residual sums and average pools.
      fraction_bits: an output of ``2**fraction_bits`` is one nat of a logit, one level of the int8
        input in an image, or one unit of the float network's maps.
      bits: "ternary" or 2 to 8 for each layer.
      activation_bits: 8 or 4.
      scales: the real number one unit stands for, of each activation by the name of what made it;
        for reports and export only.
      head: what the network returns: "logits" ``[B, C]``, an "image" ``[B, *output_shape]``, or
        "maps" in a row ``[B, N]`` (`qevo.nets.maps`).
      output_shape: of one image's output.
    """

    module: nn.Module
    image_shape: tuple[int, int, int]
    weights: Weights
    constants: Constants
    layers: Mapping[str, LayerArithmetic]
    ranges: Mapping[str, tuple[int, int]]
    fraction_bits: int
    bits: Mapping[str, str | int]
    activation_bits: int
    scales: Mapping[str, float]
    head: Head | None = dataclasses.field(init=False)
    output_shape: tuple[int, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        for field in ("layers", "ranges"):
            object.__setattr__(self, field, FrozenDict(getattr(self, field)))
        variables = variables_of(self.weights, self.constants)
        proof = prove(self.module, self.image_shape, variables, self.layers, self.ranges)
        layers = FrozenDict({name: self.layers[name] for name in proof.layers})
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "head", proof.head)
        object.__setattr__(self, "output_shape", proof.output_shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizedNetwork):
            return NotImplemented
        for name in ("image_shape", "fraction_bits", "bits", "activation_bits", "scales"):
            if getattr(self, name) != getattr(other, name):
                return False
        ours: dict[Any, Any] = flatten_dict(variables_of(self.weights, self.constants))
        theirs: dict[Any, Any] = flatten_dict(variables_of(other.weights, other.constants))
        return (
            self.integer_module("int") == other.integer_module("int")
            and ours.keys() == theirs.keys()
            and all(np.array_equal(ours[key], theirs[key]) for key in ours)
        )

    @property
    def output_scale(self) -> float:
        """What one unit of the output stands for: nats, or the float network's unit of a pixel."""
        unit = self.scales["input"] if self.head == "image" else 1.0
        return unit / 2.0**self.fraction_bits

    def prepare(self, images: jax.Array) -> jax.Array:
        """uint8 ``[B, H, W, C]`` to the int8 input by the stored integer rule."""
        low, high = self.ranges["input"]
        return prepare(images, self.constants["input"], low=low, high=high)

    def apply(
        self,
        weights: Weights,
        constants: Constants,
        images: jax.Array,
        *,
        arithmetic: Arithmetic = "int",
    ) -> jax.Array:
        """The int32 output for prepared int8 images ``[B, H, W, C]``, such as logits; pure.

        ``weights`` and ``constants`` have the structure of this network's own and lie within the
        limits of ``layers``; nothing is checked here. Safe under jit, vmap and shard_map.
        """
        return forward(self.integer_module(arithmetic), weights, constants, images)

    def __call__(self, images: Any, *, arithmetic: Arithmetic = "fast") -> np.ndarray:
        """The int32 output of uint8 images ``[B, H, W, C]``, in batches.

        Raises:
          QevoError: if the images are not uint8 of this network's shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise QevoError(
                f"images must be uint8 [B, {', '.join(map(str, self.image_shape))}], not"
                f" {images.dtype} {list(images.shape)}"
            )
        if not len(images):
            return np.zeros((0, *self.output_shape), np.int32)
        module = self.integer_module(arithmetic)
        low, high = self.ranges["input"]
        count, size = len(images), max(1, min(BATCH, VALUES // math.prod(self.image_shape)))
        if count > size:  # batches of one length compile once
            padding = np.zeros((-count % size, *self.image_shape), np.uint8)
            images = np.concatenate([images, padding])
        outputs = [
            _run(module, low, high, self.weights, self.constants, images[i : i + size])
            for i in range(0, len(images), size)
        ]
        return np.concatenate([np.asarray(part) for part in outputs])[:count]

    def layer_inputs(self, images: Any, *, arithmetic: Arithmetic = "fast") -> dict[str, jax.Array]:
        """The int8 input of every layer with weights for uint8 images, in one batch."""
        module, prepared = self.integer_module(arithmetic), self.prepare(jnp.asarray(images))
        inputs = _layer_inputs(module, self.weights, self.constants, prepared)
        return {name: _lookup(inputs, name)["x"][0] for name in self.layers}

    def integer_module(
        self, arithmetic: Arithmetic, paths: Mapping[str, Path] | None = None
    ) -> nn.Module:
        """The architecture bound to this network's integer numerics; hashable, without arrays.

        ``paths`` are those of a plan (`qevo.nets.plan`), by layer.
        """
        paths = FrozenDict(paths or {})
        return self.module.clone(numerics=Integer(self.layers, self.ranges, arithmetic, paths))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; equal networks give equal bytes. See `qevo.nets.file`."""
        from qevo.nets.file import save_safetensors  # which imports this module

        save_safetensors(self, path)


def variables_of(
    weights: Mapping[str, Any], constants: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The linen collections of `Integer`, nested by module path."""
    kernels = {(*name.split("/"), "kernel"): value for name, value in weights.items()}
    flat = {(*n.split("/"), key): v for n, part in constants.items() for key, v in part.items()}
    return {"weights": unflatten_dict(kernels), "constants": unflatten_dict(flat)}


def _lookup(tree: Any, name: str) -> Any:
    return functools.reduce(lambda node, key: node[key], name.split("/"), tree)


def forward(
    module: nn.Module, weights: Weights, constants: Constants, images: jax.Array
) -> jax.Array:
    """The int32 output for prepared int8 images of a `QuantizedNetwork.integer_module`."""
    output = module.apply(variables_of(weights, constants), images)
    assert isinstance(output, jax.Array)
    return output


@functools.partial(jax.jit, static_argnums=0)
def _layer_inputs(
    module: nn.Module, weights: Weights, constants: Constants, images: jax.Array
) -> Any:
    _, state = module.apply(variables_of(weights, constants), images, mutable=["inputs"])
    return state["inputs"]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    module: nn.Module,
    low: int,
    high: int,
    weights: Weights,
    constants: Constants,
    images: jax.Array,
) -> jax.Array:
    """The output for raw images; module-level, so that edited networks share one compilation."""
    prepared = prepare(images, constants["input"], low=low, high=high)
    return forward(module, weights, constants, prepared)

"""A network's tree checked at the border: shapes, types, levels, and every int32 bound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets.arithmetic import MAX_SHIFT, LayerArithmetic
from qevo.nets.channels import pad_channels
from qevo.nets.float_numerics import multiply
from qevo.nets.numerics import Head, Numerics, Product, SumActivation
from qevo.nets.pooling import max_pool
from qevo.nets.upsampling import upsample

_INT32 = (1 << 31) - 1


class Extent(NamedTuple):
    """What is known of an activation without computing it."""

    shape: tuple[int, ...]  # of one image
    low: int
    high: int


class _ProveProduct(nn.Module):
    layer: Product
    numerics: Proving

    @nn.compact
    def __call__(self, x: Extent) -> Extent:
        name, layer = "/".join(self.path), self.layer
        facts = self.numerics.layers.get(name)
        if facts is None:
            raise QevoError(f"{name}: the architecture has this layer, the network does not")
        self.numerics.seen[name] = None
        shape = layer.kernel_shape(x.shape[-1])
        kernel = _array(self, "weights", "kernel", np.int8, shape)
        low, high = int(kernel.min()), int(kernel.max())
        if low < facts.weight_low or high > facts.weight_high:
            raise QevoError(
                f"{name}: weights {low}..{high} leave the levels"
                f" {facts.weight_low}..{facts.weight_high}"
            )
        if x.low < facts.input_low or x.high > facts.input_high:
            raise QevoError(
                f"{name}: its input can be {x.low}..{x.high}, the proof covers"
                f" {facts.input_low}..{facts.input_high}"
            )
        facts.prove(name, math.prod(shape[:-1]), last=layer.head is not None)
        channels = (layer.features,)
        _limits(self, "multiplier", channels, 1, facts.multiplier_limit)
        _limits(self, "bias", channels, -facts.bias_limit, facts.bias_limit)
        if layer.head is not None:
            self.numerics.heads.append(layer.head)
        else:
            _limits(self, "shift", channels, 0, MAX_SHIFT)
        output = _output_shape(lambda a, b: multiply(a, b, layer), x.shape, shape)
        return Extent(output, facts.output_low, facts.output_high)


class _ProveAdd(nn.Module):
    numerics: Proving

    @nn.compact
    def __call__(self, x: Extent, y: Extent) -> Extent:
        name = "/".join(self.path)
        if x.shape != y.shape:
            raise QevoError(f"{name}: cannot add shapes {x.shape} and {y.shape}")
        left = _limits(self, "left", (2,), 0, 30)
        right = int(_limits(self, "right", (), 0, 30))
        reach = sum(
            max(abs(part.low), abs(part.high)) << int(shift)
            for part, shift in zip((x, y), left, strict=True)
        )
        if reach > _INT32 - (1 << max(right - 1, 0)):
            raise QevoError(f"{name}: the sum can reach {reach} with shifts {left.tolist()}")
        return Extent(x.shape, *self.numerics.range_of(name))


class _ProveAverage(nn.Module):
    numerics: Proving

    @nn.compact
    def __call__(self, x: Extent) -> Extent:
        name = "/".join(self.path)
        multiplier = int(_limits(self, "multiplier", (), 1, _INT32))
        _limits(self, "shift", (), 0, MAX_SHIFT)
        height, width, channels = x.shape
        total = height * width * max(abs(x.low), abs(x.high))
        if total * multiplier > _INT32 - (1 << (MAX_SHIFT - 1)):
            raise QevoError(f"{name}: a sum up to {total} times {multiplier} leaves int32")
        return Extent((channels,), *self.numerics.range_of(name))


@dataclasses.dataclass(frozen=True)
class Proving(Numerics):
    """Flows shapes and ranges through an architecture and checks each tensor it meets.

    Whatever the genes do within `LayerArithmetic`'s limits, no int32 of the integer network can
    overflow once this has passed.
    """

    layers: Mapping[str, LayerArithmetic]
    ranges: Mapping[str, tuple[int, int]]
    seen: dict[str, None] = dataclasses.field(default_factory=dict)  # a set that keeps its order
    heads: list[Head] = dataclasses.field(default_factory=list)

    def range_of(self, name: str) -> tuple[int, int]:
        """Output range of an operation without weights."""
        if name not in self.ranges:
            raise QevoError(f"{name}: the architecture has this operation, the network does not")
        self.seen[name] = None
        return self.ranges[name]

    def input(self, images: tuple[int, ...]) -> Extent:
        return Extent(images, *self.range_of("input"))

    def product(self, x: Extent, layer: Product, *, name: str) -> Extent:
        return _ProveProduct(layer, self, name=name)(x)

    def add(self, x: Extent, y: Extent, *, activation: SumActivation = "relu", name: str) -> Extent:
        return _ProveAdd(self, name=name)(x, y)

    def max_pool(
        self,
        x: Extent,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> Extent:
        shape = _output_shape(lambda a: max_pool(a, window, strides, padding), x.shape)
        return x._replace(shape=shape)

    def pad_channels(self, x: Extent, before: int, after: int) -> Extent:
        shape = _output_shape(lambda a: pad_channels(a, before, after), x.shape)
        return Extent(shape, min(x.low, 0), max(x.high, 0))

    def upsample(self, x: Extent, factor: int = 2) -> Extent:
        return x._replace(shape=_output_shape(lambda a: upsample(a, factor), x.shape))

    def concat(self, *parts: Extent, name: str) -> Extent:
        if len({part.shape[:-1] for part in parts}) != 1:
            shapes = ", ".join(str(part.shape) for part in parts)
            raise QevoError(f"{name}: cannot put shapes {shapes} together")
        channels = sum(part.shape[-1] for part in parts)
        low, high = min(part.low for part in parts), max(part.high for part in parts)
        return Extent((*parts[0].shape[:-1], channels), low, high)

    def average_pool(self, x: Extent, *, name: str) -> Extent:
        return _ProveAverage(self, name=name)(x)

    def flatten(self, x: Extent) -> Extent:
        return x._replace(shape=(math.prod(x.shape),))

    def outputs(self, *maps: Extent) -> Extent:
        low, high = min(one.low for one in maps), max(one.high for one in maps)
        return Extent((sum(math.prod(one.shape) for one in maps),), low, high)


class Proof(NamedTuple):
    """What was found out about a network on the way."""

    layers: list[str]  # those with weights, in the order of computation
    head: Head | None  # what its last layer gives
    output_shape: tuple[int, ...]  # of one image


def prove(
    module: nn.Module,
    image_shape: tuple[int, ...],
    variables: Mapping[str, Any],
    layers: Mapping[str, LayerArithmetic],
    ranges: Mapping[str, tuple[int, int]],
) -> Proof:
    """Check a quantized network's trees against its architecture.

    Args:
      module: the architecture, with any numerics.
      image_shape: ``(H, W, C)``.
      variables: the collections ``weights`` and ``constants``, nested by module path.
      layers, ranges: as in `QuantizedNetwork`.

    Raises:
      QevoError: a layer missing or left over, a wrong shape or type, a weight outside its levels, a
        constant outside its limits, or a bound that cannot be proved; names the layer.
    """
    numerics = Proving(layers, ranges)
    output: Any = module.clone(numerics=numerics).apply(
        jax.tree.map(np.asarray, variables), image_shape
    )
    unused = sorted((set(layers) | set(ranges)) - set(numerics.seen))
    if unused:
        raise QevoError(f"{unused[0]}: the network has this layer, the architecture does not")
    head = numerics.heads[-1] if numerics.heads else None
    return Proof([name for name in numerics.seen if name in layers], head, output.shape)


def _array(scope: nn.Module, collection: str, key: str, dtype: Any, shape: Any) -> np.ndarray:
    name = "/".join(scope.path)
    value = scope.get_variable(collection, key)
    if value is None:
        raise QevoError(f"{name}: {collection} holds no {key}")
    if value.shape != shape or value.dtype != dtype:
        raise QevoError(
            f"{name}: {key} must be {np.dtype(dtype)} {list(shape)}, not {value.dtype}"
            f" {list(value.shape)}"
        )
    return value


def _limits(scope: nn.Module, key: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    value = _array(scope, "constants", key, np.int32, shape)
    if value.size and (value.min() < low or value.max() > high):
        raise QevoError(
            f"{'/'.join(scope.path)}: {key} {value.min()}..{value.max()} leaves {low}..{high}"
        )
    return value


def _output_shape(fn: Any, x: tuple[int, ...], *others: tuple[int, ...]) -> tuple[int, ...]:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, *x), *others)]
    return jax.eval_shape(fn, *arguments).shape[1:]

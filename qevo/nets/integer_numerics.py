"""Integer numerics: int8 activations and weights, int32 accumulators, dyadic requantization."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.ad_checkpoint import checkpoint_name

from qevo.core.devices import device_in_use
from qevo.integer.depthwise import depthwise
from qevo.integer.patches import explicit_padding
from qevo.integer.products import Path, choose_path, conv, dot
from qevo.integer.requantize import leaky_parts, requantize, shift_round
from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.array_numerics import ArrayNumerics
from qevo.nets.numerics import Product, SumActivation
from qevo.nets.pooling import max_pool

Arithmetic = Literal["int", "fast"]


def integer_product(
    x: jax.Array,
    kernel: jax.Array,
    layer: Product,
    *,
    arithmetic: Arithmetic,
    bound: int,
    path: Path | None = None,
) -> jax.Array:
    """The exact accumulator int32 ``[..., C]`` of an int8 input and an int8 kernel.

    By ``path``, or by `default_path`; of a depthwise layer there is one path, "int8".
    """
    if layer.depthwise:
        pads = explicit_padding(layer.padding, x.shape[1:3], kernel.shape[:2], layer.strides)
        return depthwise(x, kernel, strides=layer.strides, pads=pads, dtype=jnp.int32)
    if path is None:
        path = default_path(layer, x.shape, kernel.shape, arithmetic=arithmetic, bound=bound)
    if layer.kind == "dense":
        return dot(x, kernel, path=path, bound=bound)
    pads = explicit_padding(layer.padding, x.shape[1:3], kernel.shape[:2], layer.strides)
    return conv(x, kernel, strides=layer.strides, padding=pads, path=path, bound=bound)


def default_path(
    layer: Product,
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    *,
    arithmetic: Arithmetic,
    bound: int,
) -> Path:
    """What `choose_path` takes on the device in use for an input and a kernel of these shapes."""
    if layer.depthwise:
        return "int8"
    choose = functools.partial(
        choose_path, bound=bound, arithmetic=arithmetic, backend=device_in_use().platform
    )
    if layer.kind == "dense":
        return choose("dot")
    height, width, inputs, outputs = kernel
    pads = explicit_padding(layer.padding, x[1:3], (height, width), layer.strides)
    return choose("conv", kernel=(height, width, inputs, outputs), width=x[2] + sum(pads[1]))


def finish(
    acc: jax.Array, constants: Mapping[str, jax.Array], facts: LayerArithmetic, layer: Product
) -> jax.Array:
    """From the accumulator to int8 activations, or to the int32 output of the last layer.

    ``constants`` holds int32 ``[C]``: multiplier, bias and, unless it is the last, shift.
    """
    if layer.head is not None:
        return acc * constants["multiplier"] + constants["bias"]
    acc = acc + constants["bias"]
    multiplier, shift = constants["multiplier"], constants["shift"]
    if layer.activation == "leaky":
        multiplier, shift = leaky_parts(acc, multiplier, shift)
    return requantize(
        acc,
        multiplier,
        shift,
        low=facts.output_low,
        high=facts.output_high,
        wide=facts.wide,
    )


def constant_names(layer: Product) -> tuple[str, ...]:
    """The constants of a layer, each int32 ``[C]``."""
    return ("multiplier", "bias") if layer.head else ("multiplier", "bias", "shift")


def integer_add(
    x: jax.Array, y: jax.Array, left: jax.Array, right: jax.Array, *, low: int, high: int
) -> jax.Array:
    """``clip(round_half_even((x * 2**left[0] + y * 2**left[1]) / 2**right))``, int8.

    ``left`` is int32 ``[2]``, ``right`` int32 ``[]``.
    """
    total = (x.astype(jnp.int32) << left[0]) + (y.astype(jnp.int32) << left[1])
    return jnp.clip(shift_round(total, right), low, high).astype(jnp.int8)


def integer_average(
    x: jax.Array, multiplier: jax.Array, shift: jax.Array, *, low: int, high: int
) -> jax.Array:
    """Sum over height and width of int8 ``[B, H, W, C]``, requantized to int8 ``[B, C]``."""
    total = x.sum((1, 2), dtype=jnp.int32)
    return requantize(total, multiplier, shift, low=low, high=high)


def keep(x: jax.Array) -> jax.Array:
    """``x`` under a name: candidates that share it compute it once (`qevo.core.sharing`)."""
    return checkpoint_name(x, "shared")


class _IntegerProduct(nn.Module):
    layer: Product
    numerics: Integer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        self.sow("inputs", "x", x)
        name = "/".join(self.path)
        facts = self.numerics.layers[name]
        kernel = self.get_variable("weights", "kernel")
        acc = keep(self.numerics.accumulate(x, kernel, self.layer, name=name))
        constants = {key: self.get_variable("constants", key) for key in constant_names(self.layer)}
        return keep(finish(acc, constants, facts, self.layer))


class _IntegerAdd(nn.Module):
    numerics: Integer

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        low, high = self.numerics.ranges["/".join(self.path)]
        left, right = (
            self.get_variable("constants", "left"),
            self.get_variable("constants", "right"),
        )
        return keep(integer_add(x, y, left, right, low=low, high=high))


class _IntegerAverage(nn.Module):
    numerics: Integer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        low, high = self.numerics.ranges["/".join(self.path)]
        multiplier = self.get_variable("constants", "multiplier")
        shift = self.get_variable("constants", "shift")
        return keep(integer_average(x, multiplier, shift, low=low, high=high))


@dataclasses.dataclass(frozen=True)
class Integer(ArrayNumerics):
    """Integers only: a pure function of int8 kernels and int32 constants.

    Collections: ``weights`` (kernel, int8) and ``constants`` (int32; see `QuantizedNetwork`). Each
    layer sows its int8 input into the collection ``inputs`` where that is mutable.

    Attributes:
      layers: facts of each layer with weights, by name.
      ranges: output range of each other operation that requantizes, by name.
      arithmetic: "int" for int8 products with int32 results; "fast" for whichever path is fastest
        on this backend among those proved exact. The bits are the same.
      paths: what a plan chose for layers by name (`qevo.nets.plan`).
    """

    layers: Mapping[str, LayerArithmetic]
    ranges: Mapping[str, tuple[int, int]]
    arithmetic: Arithmetic = "int"
    paths: Mapping[str, Path] = FrozenDict()

    def accumulate(
        self, x: jax.Array, kernel: jax.Array, layer: Product, *, name: str
    ) -> jax.Array:
        """The accumulator of the named layer, int32 ``[..., C]``."""
        return integer_product(
            x,
            kernel,
            layer,
            arithmetic=self.arithmetic,
            bound=self.layers[name].accumulator_bound,
            path=self.paths.get(name),
        )

    def input(self, images: jax.Array) -> jax.Array:
        if images.dtype != jnp.int8:
            raise TypeError(f"an integer network takes prepared int8 images, not {images.dtype}")
        return images

    def product(self, x: jax.Array, layer: Product, *, name: str) -> jax.Array:
        return _IntegerProduct(layer, self, name=name)(x)

    def add(
        self, x: jax.Array, y: jax.Array, *, activation: SumActivation = "relu", name: str
    ) -> jax.Array:
        return _IntegerAdd(self, name=name)(x, y)

    def max_pool(
        self,
        x: jax.Array,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> jax.Array:
        return keep(max_pool(x, window, strides, padding))

    def average_pool(self, x: jax.Array, *, name: str) -> jax.Array:
        return _IntegerAverage(self, name=name)(x)

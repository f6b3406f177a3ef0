"""Floating-point numerics: a trainable network, and one that shows its activations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import lax

from qevo.errors import QevoError
from qevo.integer.depthwise import depthwise
from qevo.integer.patches import check_fits, explicit_padding
from qevo.nets.array_numerics import ArrayNumerics
from qevo.nets.channels import pad_channels
from qevo.nets.images import UNIT_RANGE, PixelScaling
from qevo.nets.maps import in_a_row
from qevo.nets.numerics import Activation, Head, Numerics, Product, SumActivation
from qevo.nets.pooling import max_pool
from qevo.nets.upsampling import upsample

BATCH_NORM_EPSILON = 1e-5
LEAK = 0.1  # of a leaky ReLU, as darknet has it
SAMPLE_LIMIT = 1 << 14  # values that one site shows of one batch
_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


def multiply(x: jax.Array, kernel: Any, layer: Product) -> jax.Array:
    """The product of a layer in float32, without bias: ``[..., C]``."""
    if layer.kind == "dense":
        return x @ kernel
    if layer.depthwise:
        pads = explicit_padding(layer.padding, x.shape[1:3], kernel.shape[:2], layer.strides)
        return depthwise(x, kernel, strides=layer.strides, pads=pads, dtype=x.dtype)
    return lax.conv_general_dilated(
        x, kernel, layer.strides, layer.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def activate(x: jax.Array, activation: Activation) -> jax.Array:
    """ReLU, leaky ReLU or nothing."""
    if activation == "leaky":
        return nn.leaky_relu(x, LEAK)
    return nn.relu(x) if activation == "relu" else x


def _sum(x: jax.Array, y: jax.Array, activation: Activation, name: str) -> jax.Array:
    if activation == "leaky":
        raise QevoError(f"{name}: a sum cannot leak, as integers do not; give it 'relu' or None")
    return activate(x + y, activation)


def sampling_stride(count: int, limit: int, period: int = 2 * 3 * 5 * 7 * 11 * 13) -> int:
    """A stride that takes at most ``limit`` of ``count`` values, in step with no axis.

    Coprime to the period of what they are, by default to the small primes, so that it visits all
    channels, rows and columns alike.
    """
    stride = -(-count // limit)
    while math.gcd(stride, period) > 1:
        stride += 1
    return stride


class _FloatProduct(nn.Module):
    layer: Product
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = self.layer
        if layer.kind == "conv":
            pads = explicit_padding(layer.padding, x.shape[1:3], layer.kernel, layer.strides)
            check_fits(str(self.name), layer.kernel, x.shape[1:3], pads)
        kernel = self.param("kernel", _KERNEL_INIT, layer.kernel_shape(x.shape[-1]))
        z = multiply(x, kernel, layer)
        if layer.batch_norm:
            z = nn.BatchNorm(
                use_running_average=not self.train,
                momentum=0.9,
                epsilon=BATCH_NORM_EPSILON,
                name="norm",
            )(z)
        else:
            z = z + self.param("bias", nn.initializers.zeros_init(), (layer.features,))
        return activate(z, layer.activation)


@dataclasses.dataclass(frozen=True)
class Float(ArrayNumerics):
    """Float32 with batch norm; trains with optax.

    Collections: ``params`` (per layer kernel, and bias or norm/scale and norm/bias) and, where
    there is batch norm, ``batch_stats`` (norm/mean, norm/var).
    """

    train: bool = False
    scaling: PixelScaling = UNIT_RANGE

    def input(self, images: jax.Array) -> jax.Array:
        return self.scaling(images)

    def product(self, x: jax.Array, layer: Product, *, name: str) -> jax.Array:
        return _FloatProduct(layer, self.train, name=name)(x)

    def add(
        self, x: jax.Array, y: jax.Array, *, activation: SumActivation = "relu", name: str
    ) -> jax.Array:
        return _sum(x, y, activation, name)

    def max_pool(
        self,
        x: jax.Array,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> jax.Array:
        return max_pool(x, window, strides, padding)

    def average_pool(self, x: jax.Array, *, name: str) -> jax.Array:
        return x.mean((1, 2))


@struct.dataclass
class Observation:
    """What one quantization site shows of one batch.

    A site is where the integer network holds an int8 activation of its own scale: the input, the
    output of every layer but the last, residual sums, concatenations and average pools.
    """

    maximum: jax.Array  # float32 [], largest absolute value
    sample: jax.Array  # float32 [at most SAMPLE_LIMIT], evenly spaced values
    signed: bool = struct.field(pytree_node=False)  # holds negative values
    summands: tuple[str, ...] = struct.field(pytree_node=False)  # of a sum: the sites it adds
    parts: tuple[str, ...] = struct.field(pytree_node=False)  # of a concatenation: its sites


@struct.dataclass
class HeadObservation:
    """What a layer that gives the network's output shows of one batch."""

    maximum: jax.Array  # float32 [], largest absolute value
    head: Head = struct.field(pytree_node=False)
    site: str = struct.field(pytree_node=False)  # of its input


class Observed(NamedTuple):
    """An activation in `Calibrating` and the site whose scale it has."""

    value: jax.Array
    site: str
    signed: bool


def _observe(
    scope: nn.Module,
    value: jax.Array,
    *,
    signed: bool,
    summands: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
) -> Observed:
    flat = value.reshape(-1)
    sample = flat[:: sampling_stride(flat.size, SAMPLE_LIMIT)]
    observation = Observation(jnp.abs(flat).max(), sample, signed, summands, parts)
    if scope.is_mutable_collection("sites"):
        scope.put_variable("sites", "observation", observation)
    return Observed(value, "/".join(scope.path), signed)


class _Site(nn.Module):
    signed: bool
    summands: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, value: jax.Array) -> Observed:
        options = {"summands": self.summands, "parts": self.parts}
        return _observe(self, value, signed=self.signed, **options)


class _FoldedProduct(nn.Module):
    layer: Product

    @nn.compact
    def __call__(self, x: Observed) -> Observed | jax.Array:
        kernel = self.get_variable("params", "kernel")
        z = multiply(x.value, kernel, self.layer) + self.get_variable("params", "bias")
        if self.layer.head:
            if self.is_mutable_collection("heads"):
                seen = HeadObservation(jnp.abs(z).max(), self.layer.head, x.site)
                self.put_variable("heads", "observation", seen)
            return z
        y = activate(z, self.layer.activation)
        return _observe(self, y, signed=self.layer.activation != "relu")


@dataclasses.dataclass(frozen=True)
class Calibrating(Numerics):
    """Float32 with batch norm folded into kernel and bias (`qevo.quantize.fold_batch_norm`).

    Puts an `Observation` per site into the collection ``sites``, and a `HeadObservation` for each
    layer of the output into ``heads``, where these are mutable.
    """

    scaling: PixelScaling = UNIT_RANGE

    def input(self, images: jax.Array) -> Observed:
        value = self.scaling(images)
        return _Site(signed=any(o < 0 for o in self.scaling.offset), name="input")(value)

    def product(self, x: Observed, layer: Product, *, name: str) -> Any:
        return _FoldedProduct(layer, name=name)(x)

    def add(
        self, x: Observed, y: Observed, *, activation: SumActivation = "relu", name: str
    ) -> Observed:
        value = _sum(x.value, y.value, activation, name)
        signed = activation != "relu" and (x.signed or y.signed)
        return _Site(signed, (x.site, y.site), name=name)(value)

    def max_pool(
        self,
        x: Observed,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> Observed:
        return x._replace(value=max_pool(x.value, window, strides, padding))

    def pad_channels(self, x: Observed, before: int, after: int) -> Observed:
        return x._replace(value=pad_channels(x.value, before, after))

    def upsample(self, x: Observed, factor: int = 2) -> Observed:
        return x._replace(value=upsample(x.value, factor))

    def concat(self, *parts: Observed, name: str) -> Observed:
        value = jnp.concatenate([part.value for part in parts], axis=-1)
        sites = tuple(part.site for part in parts)
        return _Site(any(part.signed for part in parts), parts=sites, name=name)(value)

    def average_pool(self, x: Observed, *, name: str) -> Observed:
        return _Site(x.signed, name=name)(x.value.mean((1, 2)))

    def flatten(self, x: Observed) -> Observed:
        return x._replace(value=x.value.reshape(x.value.shape[0], -1))

    def outputs(self, *maps: jax.Array) -> jax.Array:
        return in_a_row(maps)

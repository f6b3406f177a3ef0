"""Numerics that turn a float network into an integer one in a single walk."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from qevo.errors import QevoError
from qevo.nets.arithmetic import (
    MAX_SHIFT,
    WIDE_MAX_SHIFT,
    LayerArithmetic,
    last_arithmetic,
    layer_arithmetic,
    levels,
)
from qevo.nets.float_numerics import LEAK, multiply
from qevo.nets.images import PixelScaling, image_rule, prepare
from qevo.nets.integer_numerics import finish, integer_add, integer_average, integer_product
from qevo.nets.maps import in_a_row
from qevo.nets.numerics import Activation, Head, Numerics, Product, SumActivation
from qevo.nets.pooling import max_pool
from qevo.nets.upsampling import upsample
from qevo.quantize.batches import over_batches
from qevo.quantize.calibration import Site
from qevo.quantize.gram import InputRows
from qevo.quantize.rounding import FloatLayer, Rounding
from qevo.quantize.scales import ScaleGrid, max_abs_scale


class Both:
    """One activation of all calibration images, in the float and in the integer network.

    A layer whose output may be added to another waits to be rounded until its integers are asked
    for.

    Attributes:
      real: float32, of the float network.
      site: scale and range of the integers.
      fan_in: K of a layer that waits, else 0.
    """

    def __init__(
        self,
        real: np.ndarray,
        ints: np.ndarray | None,
        site: Site,
        *,
        rounding: Callable[[np.ndarray], np.ndarray] | None = None,
        fan_in: int = 0,
    ) -> None:
        self.real, self.site, self.fan_in = real, site, fan_in
        self._ints, self._rounding = ints, rounding

    @property
    def ints(self) -> np.ndarray:
        """int8, of the layers converted so far."""
        if self._ints is None:
            return self.round_to(self.real)
        return self._ints

    def round_to(self, wanted: np.ndarray) -> np.ndarray:
        """Round a layer that waits, so that its outputs are like these, and return them."""
        assert self._rounding is not None
        self._ints = self._rounding(wanted)
        self._rounding, self.fan_in = None, 0
        return self._ints

    def map(self, fn: Callable[[Any], Any]) -> Both:
        """The same shape change on both."""
        return Both(fn(self.real), fn(self.ints), self.site)


@dataclasses.dataclass
class Parts:
    """What the walk has made so far; the fields of `QuantizedNetwork`."""

    weights: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    constants: dict[str, dict[str, jax.Array]] = dataclasses.field(default_factory=dict)
    layers: dict[str, LayerArithmetic] = dataclasses.field(default_factory=dict)
    ranges: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    scales: dict[str, float] = dataclasses.field(default_factory=dict)
    fraction_bits: int = 0
    waiting: dict[str, Both] = dataclasses.field(default_factory=dict)  # to be rounded


@dataclasses.dataclass(frozen=True)
class Converting(Numerics):
    """Runs the float and the integer network side by side and rounds each layer on the way.

    A layer is thus fitted to the inputs that it will see: those of the integer layers before it. A
    layer without activation waits: if a sum is the first to ask for its output, it is fitted to
    what the sum wants of it, the float layer's output and what the other summand lacks.
    Runs outside jit on numpy arrays; reads folded ``params``, fills ``parts``.

    Attributes:
      sites: activation scales, from `calibrate`.
      bits: for each layer.
      rounding: the method.
      fraction_bits: of the output, where several layers give it; else as many as fit.
      fit_bias: make the mean output of each channel what it is to be, over the calibration images,
        instead of rounding the float bias.
      make_up: whether summands make up for each other's errors.
      scaling: pixel rule of the float network.
    """

    sites: Mapping[str, Site]
    bits: Mapping[str, str | int]
    rounding: Rounding
    fit_bias: bool
    make_up: bool
    scaling: PixelScaling
    fraction_bits: int | None = None
    parts: Parts = dataclasses.field(default_factory=Parts)

    def input(self, images: np.ndarray) -> Both:
        rule, site = image_rule(self.scaling), self.sites["input"]
        constants = self._record("input", site, rule.constants)
        real = over_batches(_scale_pixels, images, scaling=self.scaling)
        limits = {"low": rule.low, "high": rule.high}
        return Both(real, over_batches(_prepare, images, constants=constants, **limits), site)

    def product(self, x: Both, layer: Product, *, name: str) -> Any:
        return _ConvertProduct(layer, self, name=name)(x)

    def add(self, x: Both, y: Both, *, activation: SumActivation = "relu", name: str) -> Both:
        return _ConvertAdd(activation, self, name=name)(x, y)

    def max_pool(
        self,
        x: Both,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> Both:
        options = {"window": window, "strides": strides, "padding": padding}
        return x.map(lambda a: over_batches(_max_pool, a, **options))

    def pad_channels(self, x: Both, before: int, after: int) -> Both:
        return x.map(lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(before, after)]))

    def upsample(self, x: Both, factor: int = 2) -> Both:
        return x.map(lambda a: over_batches(_upsample, a, factor=factor))

    def concat(self, *parts: Both, name: str) -> Both:
        return _ConvertConcat(self, name=name)(*parts)

    def average_pool(self, x: Both, *, name: str) -> Both:
        return _ConvertAverage(self, name=name)(x)

    def flatten(self, x: Both) -> Both:
        return x.map(lambda a: a.reshape(len(a), -1))

    def outputs(self, *maps: np.ndarray) -> np.ndarray:
        return np.asarray(in_a_row([jnp.asarray(one) for one in maps]))

    def _record(self, name: str, site: Site, constants: Mapping[str, Any]) -> dict[str, Any]:
        """Keep an operation without weights; returns its constants as they are kept."""
        self.parts.ranges[name] = (site.low, site.high)
        self.parts.scales[name] = site.scale
        self.parts.constants[name] = {k: jnp.asarray(v, jnp.int32) for k, v in constants.items()}
        return self.parts.constants[name]

    def _layer_limits(
        self, name: str, kernel: np.ndarray, bias: np.ndarray, inputs: Site, outputs: Site
    ) -> tuple[LayerArithmetic, ScaleGrid]:
        """Proved limits of a layer, and the weight scales within them."""
        facts = layer_arithmetic(
            name,
            len(kernel),
            weights=levels(self.bits[name], name),
            inputs=(inputs.low, inputs.high),
            outputs=(outputs.low, outputs.high),
        )
        shift = WIDE_MAX_SHIFT if facts.wide else MAX_SHIFT
        floor = 2 * np.abs(bias) / (inputs.scale * facts.bias_limit)
        unit, limit = inputs.scale / outputs.scale, facts.multiplier_limit // 2
        return facts, ScaleGrid(unit, limit, shift, floor, inputs.scale)

    def _last_limits(
        self, name: str, kernel: np.ndarray, inputs: Site, head: Head | None, reach: float
    ) -> tuple[LayerArithmetic, ScaleGrid]:
        """The same for the last layer, whose float outputs and biases are at most ``reach``."""
        unit = self.sites["input"].scale if head == "image" else 1.0  # that the output counts in
        facts, fraction_bits = last_limits(
            name, kernel, self.bits[name], inputs, unit, reach, self.fraction_bits
        )
        self.parts.fraction_bits = fraction_bits
        limit, floor = facts.multiplier_limit // 2, np.zeros(kernel.shape[1])
        relative = inputs.scale / unit * 2.0**fraction_bits
        return facts, ScaleGrid(relative, limit, 0, floor, inputs.scale, last=True)


def last_limits(
    name: str,
    kernel: np.ndarray,
    bits: str | int,
    inputs: Site,
    unit: float,
    reach: float,
    fraction_bits: int | None = None,
) -> tuple[LayerArithmetic, int]:
    """`last_arithmetic` of a layer that gives an output.

    Args:
      name: of the layer.
      kernel: ``[K, C]``, real.
      bits: of its weights.
      inputs: their scale and range.
      unit: real number that ``2**fraction_bits`` stands for.
      reach: largest absolute float output or bias.
      fraction_bits: of the output; as many as fit by default.
    """
    weights = levels(bits, name)
    return last_arithmetic(
        name,
        len(kernel),
        weights=weights,
        inputs=(inputs.low, inputs.high),
        multiplier=float(max_abs_scale(kernel, *weights).max()) * inputs.scale / unit,
        bias=reach / unit,
        fraction_bits=fraction_bits,
    )


class _ConvertProduct(nn.Module):
    layer: Product
    numerics: Converting

    @nn.compact
    def __call__(self, x: Both) -> Both | np.ndarray:
        name, layer, plan = "/".join(self.path), self.layer, self.numerics
        kernel = np.asarray(self.get_variable("params", "kernel"))
        bias = np.asarray(self.get_variable("params", "bias"), np.float64)
        site = None if layer.head else plan.sites[name]
        matrix = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
        options: dict[str, Any] = {"kernel": kernel, "bias": np.float32(bias), "layer": layer}
        real = over_batches(_float_product, x.real, **options)
        if site is None:
            reach = float(max(np.abs(real).max(), np.abs(bias).max()))
            facts, grid = plan._last_limits(name, matrix, x.site, layer.head, reach)
        else:
            facts, grid = plan._layer_limits(name, matrix, bias, x.site, site)
        plan.parts.layers[name] = facts
        inputs, scale = x.ints, x.site.scale  # not x, whose float map nothing else needs

        def rounded(wanted: np.ndarray) -> np.ndarray:
            plan.parts.waiting.pop(name, None)
            rows = InputRows(inputs, layer, kernel.shape, scale)
            limits = facts.weight_low, facts.weight_high
            found = plan.rounding(FloatLayer(name, matrix, *limits, grid, rows, wanted))
            weights = jnp.asarray(found.levels.reshape(kernel.shape), jnp.int8)
            options = {"kernel": weights, "layer": layer, "arithmetic": "fast"}
            acc = over_batches(_integer_product, inputs, bound=facts.accumulator_bound, **options)
            offset = bias
            if plan.fit_bias:
                axes = tuple(range(acc.ndim - 1))
                unit = found.scale * scale  # the real number that one of acc is
                offset = wanted.mean(axes, dtype=np.float64)
                offset -= unit * acc.mean(axes, dtype=np.float64)
            constants = layer_constants(found.scale, offset, facts, grid)
            plan.parts.weights[name], plan.parts.constants[name] = weights, constants
            options = {"constants": constants, "facts": facts, "layer": layer}
            return over_batches(_finish, acc, **options)

        if site is None:
            return rounded(real)
        plan.parts.scales[name] = site.scale
        if layer.activation or not plan.make_up:
            return Both(_activate(real, layer.activation), rounded(real), site)
        output = Both(real, None, site, rounding=rounded, fan_in=len(matrix))
        plan.parts.waiting[name] = output
        return output


class _ConvertAdd(nn.Module):
    activation: SumActivation
    numerics: Converting

    @nn.compact
    def __call__(self, x: Both, y: Both) -> Both:
        name = "/".join(self.path)
        site = self.numerics.sites[name]
        if x is not y:
            _make_up(*sorted((x, y), key=lambda summand: summand.fan_in))
        exponents = np.rint(np.log2([x.site.scale, y.site.scale, site.scale])).astype(int)
        *left, right = (exponents - exponents.min()).tolist()
        if max(left) + right > 22:
            raise QevoError(
                f"{name}: scales {x.site.scale} and {y.site.scale} of the summands and"
                f" {site.scale} of the sum are too far apart for int32"
            )
        kept = self.numerics._record(name, site, {"left": left, "right": right})
        ints = over_batches(_add, x.ints, y.ints, **kept, low=site.low, high=site.high)
        return Both(_activate(x.real + y.real, self.activation), ints, site)


def _make_up(first: Both, last: Both) -> None:
    """Round the last summand, if it waits, so that it makes up for the error of the first."""
    if last.fan_in:
        wanted = first.real - np.float32(first.site.scale) * first.ints
        wanted += last.real
        last.round_to(wanted)


class _ConvertConcat(nn.Module):
    numerics: Converting

    @nn.compact
    def __call__(self, *parts: Both) -> Both:
        site = self.numerics.sites["/".join(self.path)]
        real = np.concatenate([part.real for part in parts], axis=-1)
        return Both(real, np.concatenate([part.ints for part in parts], axis=-1), site)


class _ConvertAverage(nn.Module):
    numerics: Converting

    @nn.compact
    def __call__(self, x: Both) -> Both:
        name = "/".join(self.path)
        site = self.numerics.sites[name]
        count = math.prod(x.ints.shape[1:3])
        limit = (1 << 30) // (count * max(-x.site.low, x.site.high))
        if limit < 32:
            raise QevoError(f"{name}: an average of {count} values leaves no room for a multiplier")
        unit = x.site.scale / count
        grid = ScaleGrid(1.0, min(limit, 1 << 15), MAX_SHIFT, np.zeros(1))
        multiplier, shift = grid.snap(np.array([unit / site.scale]))
        # The scale that the integers express is the scale, whatever was asked for.
        site = site._replace(scale=unit / float(grid.scale(multiplier, shift)[0]))
        kept = self.numerics._record(name, site, {"multiplier": multiplier[0], "shift": shift[0]})
        ints = over_batches(_average, x.ints, **kept, low=site.low, high=site.high)
        return Both(x.real.mean((1, 2)), ints, site)


def layer_constants(
    scale: np.ndarray, bias: np.ndarray, facts: LayerArithmetic, grid: ScaleGrid
) -> dict[str, jax.Array]:
    """The int32 constants ``[C]`` of a layer from its weight scales and real biases ``[C]``.

    A bias is added to the accumulator, or to the fixed-point output after the multiplier.
    """
    multiplier, shift = grid.snap(scale)
    levels = np.clip(np.rint(bias / grid.bias_unit(scale)), -facts.bias_limit, facts.bias_limit)
    constants = {"multiplier": multiplier, "bias": levels}
    if not grid.last:
        constants["shift"] = shift
    return {name: jnp.asarray(value, jnp.int32) for name, value in constants.items()}


@functools.partial(jax.jit, static_argnames="layer")
def _float_product(x: jax.Array, *, kernel: Any, bias: Any, layer: Product) -> jax.Array:
    return multiply(x, kernel, layer) + bias


# Compiled once per shape, whatever the kernel: a search for scales converts many times.
_scale_pixels = jax.jit(lambda images, scaling: scaling(images), static_argnames="scaling")
_prepare = jax.jit(prepare, static_argnames=("low", "high"))
_integer_product = jax.jit(integer_product, static_argnames=("layer", "arithmetic", "bound"))
_finish = jax.jit(finish, static_argnames=("facts", "layer"))
_add = jax.jit(integer_add, static_argnames=("low", "high"))
_average = jax.jit(integer_average, static_argnames=("low", "high"))
_max_pool = jax.jit(max_pool, static_argnames=("window", "strides", "padding"))
_upsample = jax.jit(upsample, static_argnames="factor")


def _activate(real: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == "leaky":
        return np.where(real > 0, real, np.float32(LEAK) * real)
    return np.maximum(real, 0) if activation == "relu" else real

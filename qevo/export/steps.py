"""A quantized network as a list of steps on named tensors, to be written in other words."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from qevo.integer.patches import Pads, explicit_padding
from qevo.nets.arithmetic import LayerArithmetic
from qevo.nets.network import QuantizedNetwork, variables_of
from qevo.nets.numerics import Numerics, Product, SumActivation

UNITS = {  # what 2**fraction_bits of an output is one of
    "logits": "nat",
    "image": "level of the int8 input",
    "maps": "unit of the maps, which follow each other, each [height][width][channel]",
    None: "level of the last activation",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What flows between steps, without its batch axis."""

    name: str
    shape: tuple[int, ...]  # (H, W, C) or (K,)

    @property
    def size(self) -> int:
        """Its elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One operation; ``name`` is that of its output tensor."""

    output: Tensor
    inputs: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """The output's."""
        return self.output.name


@dataclasses.dataclass(frozen=True, eq=False)
class Input(Step):
    """uint8 pixels to int8 by the image rule (`qevo.nets.images.prepare`)."""

    table: np.ndarray  # int8 [256, C], what each pixel value becomes
    scale: np.ndarray  # float64 [C], exact: a pixel times it, plus the offset, is rounded and cut
    offset: np.ndarray  # float64 [C]


@dataclasses.dataclass(frozen=True, eq=False)
class Multiply(Step):
    """A layer with weights, and its requantization or, of the last one, its int32 output."""

    layer: Product
    pads: Pads
    kernel: np.ndarray  # int8 [K, C] or HWIO
    multiplier: np.ndarray  # int32 [C]
    bias: np.ndarray  # int32 [C]
    shift: np.ndarray | None  # int32 [C]; None of the last layer
    facts: LayerArithmetic


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Step):
    """``clip(round_half_even((x * 2**left[0] + y * 2**left[1]) / 2**right))``."""

    left: tuple[int, int]
    right: int
    low: int
    high: int


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(Step):
    """Maximum over windows; what pads an image never wins."""

    window: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads


@dataclasses.dataclass(frozen=True, eq=False)
class PadChannels(Step):
    """Channels of zeros around."""

    before: int
    after: int


@dataclasses.dataclass(frozen=True, eq=False)
class Upsample(Step):
    """Nearest neighbour."""

    factor: int


@dataclasses.dataclass(frozen=True, eq=False)
class Average(Step):
    """``clip(round_half_even(sum * multiplier / 2**shift))`` over height and width."""

    multiplier: int
    shift: int
    low: int
    high: int


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten(Step):
    """``(H, W, C)`` to ``(H·W·C,)`` in this order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Concat(Step):
    """Channels of the inputs one after the other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs(Step):
    """The network's int32 maps in a row; each as `Flatten` has it."""


def steps_of(network: QuantizedNetwork) -> tuple[Step, ...]:
    """The steps of a network in the order of computation; the last one makes its output."""
    recording = Recording(network)
    module = network.module.clone(numerics=recording)
    module.apply(variables_of(network.weights, network.constants), None)
    return tuple(recording.steps)


class _Named(nn.Module):
    """Finds the path in the architecture at which an operation stands."""

    record: Any

    @nn.compact
    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.record("/".join(self.path), *inputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Recording(Numerics):
    """Writes down what an architecture does; computes nothing."""

    network: QuantizedNetwork
    steps: list[Step] = dataclasses.field(default_factory=list)

    def input(self, images: Any) -> Tensor:
        network = self.network
        shape = network.image_shape
        pixels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, shape[-1]))
        table = np.asarray(network.prepare(jnp.asarray(pixels.reshape(256, 1, 1, -1))))
        rule = self._constants("input")
        scale, offset = (
            np.broadcast_to(rule[key] / 2.0 ** rule["shift"], shape[-1:])
            for key in ("multiplier", "bias")
        )
        images, output = (Tensor("images", shape),), Tensor("input", shape)
        return self._keep(Input(output, images, table.reshape(256, -1), scale, offset))

    def product(self, x: Tensor, layer: Product, *, name: str) -> Tensor:
        return _Named(functools.partial(self._product, layer), name=name)(x)

    def _product(self, layer: Product, name: str, x: Tensor) -> Tensor:
        kernel = np.asarray(self.network.weights[name])
        shape, pads = (layer.features,), ((0, 0), (0, 0))
        if layer.kind == "conv":
            pads = explicit_padding(layer.padding, x.shape[:2], layer.kernel, layer.strides)
            shape = (*_windows(x.shape[:2], layer.kernel, layer.strides, pads), layer.features)
        constants = self._constants(name)
        step = Multiply(
            Tensor(name, shape),
            (x,),
            layer,
            pads,
            kernel,
            constants["multiplier"],
            constants["bias"],
            constants.get("shift"),
            self.network.layers[name],
        )
        return self._keep(step)

    def add(self, x: Tensor, y: Tensor, *, activation: SumActivation = "relu", name: str) -> Tensor:
        return _Named(self._add, name=name)(x, y)

    def _add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        constants = self._constants(name)
        first, second = constants["left"].tolist()
        right = int(constants["right"])
        limits = self.network.ranges[name]
        return self._keep(Add(Tensor(name, x.shape), (x, y), (first, second), right, *limits))

    def max_pool(
        self,
        x: Tensor,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> Tensor:
        strides = strides or window
        pads = explicit_padding(padding, x.shape[:2], window, strides)  # type: ignore[arg-type]
        shape = (*_windows(x.shape[:2], window, strides, pads), x.shape[2])
        return self._keep(MaxPool(self._unnamed("max_pool", shape), (x,), window, strides, pads))

    def pad_channels(self, x: Tensor, before: int, after: int) -> Tensor:
        shape = (*x.shape[:-1], before + x.shape[-1] + after)
        return self._keep(PadChannels(self._unnamed("pad", shape), (x,), before, after))

    def upsample(self, x: Tensor, factor: int = 2) -> Tensor:
        height, width, channels = x.shape
        shape = (factor * height, factor * width, channels)
        return self._keep(Upsample(self._unnamed("upsample", shape), (x,), factor))

    def average_pool(self, x: Tensor, *, name: str) -> Tensor:
        return _Named(self._average, name=name)(x)

    def _average(self, name: str, x: Tensor) -> Tensor:
        constants = self._constants(name)
        numbers = (int(constants["multiplier"]), int(constants["shift"]))
        limits = self.network.ranges[name]
        return self._keep(Average(Tensor(name, x.shape[-1:]), (x,), *numbers, *limits))

    def concat(self, *parts: Tensor, name: str) -> Tensor:
        return _Named(self._concat, name=name)(*parts)

    def _concat(self, name: str, *parts: Tensor) -> Tensor:
        channels = sum(part.shape[-1] for part in parts)
        return self._keep(Concat(Tensor(name, (*parts[0].shape[:-1], channels)), parts))

    def outputs(self, *maps: Tensor) -> Tensor:
        size = sum(one.size for one in maps)
        return self._keep(Outputs(self._unnamed("outputs", (size,)), maps))

    def flatten(self, x: Tensor) -> Tensor:
        return self._keep(Flatten(self._unnamed("flatten", (x.size,)), (x,)))

    def _keep(self, step: Step) -> Tensor:
        self.steps.append(step)
        return step.output

    def _unnamed(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """The output of an operation without a name; the colon keeps it apart from layers'."""
        return Tensor(f"{kind}:{len(self.steps)}", shape)

    def _constants(self, name: str) -> Mapping[str, np.ndarray]:
        return {key: np.asarray(value) for key, value in self.network.constants[name].items()}


def _windows(
    size: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, int], pads: Pads
) -> tuple[int, int]:
    """How many windows fit along each axis."""
    axes = zip(size, window, strides, pads, strict=True)
    rows, columns = ((length + sum(pad) - w) // s + 1 for length, w, s, pad in axes)
    return rows, columns

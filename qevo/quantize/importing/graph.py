"""The graph of a traced network, and its recording as operations of `qevo.nets.Numerics`.

A batch norm, a bias or a change of units is no operation of a quantized network. Each stays pending
on the activation that it was applied to, as a scale and an offset per channel, until a layer with
weights takes it into its kernel and bias: the layer before it, or else the one behind it.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from qevo.errors import QevoError
from qevo.nets.images import PixelScaling
from qevo.nets.traced import Call

Pads = tuple[tuple[int, int], tuple[int, int]]  # rows and columns, before and after


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """An operation on activations; compared by identity.

    Attributes:
      shape: of its result, ``[B, H, W, C]`` or ``[B, C]``.
      where: the operation and its place in the user's source, for errors.
    """

    shape: tuple[int, ...]
    where: str


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """An activation as the user's function sees it: ``scale * node + offset``.

    Attributes:
      node: what made it.
      scale, offset: float64 ``[C]``, by channels of the node.
      shape: the node's own, or one with axes of length 1 left out or put in.
    """

    node: Node
    scale: np.ndarray
    offset: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, node: Node, shape: tuple[int, ...] | None = None) -> Value:
        """The node as it is."""
        channels = node.shape[-1]
        return cls(node, np.ones(channels), np.zeros(channels), shape or node.shape)

    def scaled(self, factor: Any) -> Value:
        """Multiplied by one number per channel."""
        return dataclasses.replace(self, scale=self.scale * factor, offset=self.offset * factor)

    def shifted(self, term: Any) -> Value:
        """One number per channel added."""
        return dataclasses.replace(self, offset=self.offset + term)

    @property
    def plain(self) -> bool:
        """Whether nothing is pending."""
        return _plain(self.scale, self.offset)


@dataclasses.dataclass(frozen=True, eq=False)
class Images(Node):
    """The pixels, 0 to 255."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operation(Node):
    """An operation on ``x``, if not on more."""

    x: Value


@dataclasses.dataclass(frozen=True, eq=False)
class Layer(Operation):
    """A dense product or convolution without bias; padding of a dense product is empty."""

    kernel: np.ndarray  # float64, [K, C] or HWIO; of a depthwise one HW1C
    name: str  # proposed; see `Recorder`
    strides: tuple[int, int] = (1, 1)
    padding: Pads | tuple[()] = ()
    depthwise: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Operation):
    """``x + y`` of one shape."""

    y: Value


@dataclasses.dataclass(frozen=True, eq=False)
class Relu(Operation):
    """Of a layer with anything pending, or of a sum with nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """Maximum over windows; padding is "SAME" or "VALID"."""

    window: tuple[int, int]
    strides: tuple[int, int]
    padding: str


@dataclasses.dataclass(frozen=True, eq=False)
class AveragePool(Operation):
    """Mean over height and width, ``[B, C]``."""


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten(Operation):
    """``[B, H, W, C]`` to ``[B, H·W·C]``."""


@dataclasses.dataclass(frozen=True, eq=False)
class PadChannels(Operation):
    """Channels of zeros before and after the others."""

    before: int
    after: int


@dataclasses.dataclass(frozen=True, eq=False)
class PadImage(Operation):
    """Zeros around rows and columns, for the convolution that follows."""

    pads: Pads


@dataclasses.dataclass(frozen=True, eq=False)
class Concat(Operation):
    """Channels of ``x`` and of the others one after the other."""

    others: tuple[Value, ...]


def describe(node: Node) -> str:
    """The layer that made a node, or the last one before it, as errors call it."""
    while isinstance(node, Operation) and not isinstance(node, Layer):
        node = node.x.node
    return f"layer {node.name}" if isinstance(node, Layer) else "the images"


class Recorded(NamedTuple):
    """How a value follows from an activation of the network: ``scale * activation + offset``.

    Attributes:
      place: of the activation; see `Call.inputs`.
      scale, offset: float64 ``[C]``.
    """

    place: int
    scale: np.ndarray
    offset: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether it is that activation."""
        return _plain(self.scale, self.offset)


class Recorder:
    """Turns nodes into calls and variables, each when it is first needed.

    Attributes:
      calls: for `qevo.nets.traced.Traced`.
      params: its variables, flat: float32 ``kernel`` and ``bias`` by layer name.
      scaling: what is pending on the images.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.params: dict[str, dict[str, np.ndarray]] = {}
        self.scaling = PixelScaling()
        self._names: set[str] = {"input"}
        self._recorded: dict[Node, Recorded] = {}
        self._rectified: dict[Node, Recorded] = {}  # layers with a relu, and what it was of

    def logits(self, value: Value) -> None:
        """Record the whole network that a value is the result of; called once.

        Raises:
          QevoError: what cannot be folded, or a value that is not that of a dense layer.
        """
        layer = value.node
        if not isinstance(layer, Layer) or layer.padding or len(value.shape) != 2:
            raise QevoError(
                f"the result {list(value.shape)} comes from {layer.where}, behind"
                f" {describe(layer)}: the last operation must be a dense product that gives"
                " logits [B, classes]"
            )
        self._layer(layer, value.scale, value.offset, logits=True)

    def record(self, value: Value) -> Recorded:
        """The activation that a value follows from."""
        node = value.node
        if isinstance(node, Images | Layer):
            return self._absorb(node, value)
        if node not in self._recorded:
            self._recorded[node] = self._operation(node)
        place, scale, offset = self._recorded[node]
        return Recorded(place, value.scale * scale, value.scale * offset + value.offset)

    def _absorb(self, node: Images | Layer, value: Value) -> Recorded:
        """Take up what is pending where the activation is first used; later uses build on it."""
        if node in self._rectified:
            raise _both_ways(node)
        if node not in self._recorded:
            if isinstance(node, Layer):
                place = self._layer(node, value.scale, value.offset)
                self._recorded[node] = Recorded(place, value.scale, value.offset)
            else:
                self._recorded[node] = self._images(value)
        place, scale, offset = self._recorded[node]  # here: activation = scale * node + offset
        if np.array_equal(scale, value.scale) and np.array_equal(offset, value.offset):
            return Recorded(place, np.ones_like(scale), np.zeros_like(offset))
        if not scale.all():
            raise QevoError(
                f"{node.where}: its output is used with two different scales, of which one is 0"
            )
        factor = value.scale / scale
        return Recorded(place, factor, value.offset - factor * offset)

    def _images(self, value: Value) -> Recorded:
        if not value.scale.all():
            raise QevoError("a channel of the images is multiplied by 0: leave it out")
        sign = np.sign(value.scale)  # a pixel rule has positive scales
        scale, offset = sign * value.scale, sign * value.offset
        self.scaling = PixelScaling(*(_short(v) for v in (scale, offset)))
        return Recorded(0, scale, offset)

    def _operation(self, node: Node) -> Recorded:
        match node:
            case Relu(x=Value(node=Layer() as layer, scale=scale, offset=offset)):
                if layer in self._recorded:
                    raise _both_ways(layer)
                if layer not in self._rectified:
                    place = self._layer(layer, scale, offset, activation="relu")
                    self._rectified[layer] = Recorded(place, scale, offset)
                place, *same = self._rectified[layer]
                if not all(map(np.array_equal, same, (scale, offset))):
                    raise _both_ways(layer)
                return _whole(node, place)
            case Relu(x=Value(node=Sum() as total)):
                return _whole(node, self._sum(total, "relu"))
            case Sum():
                return _whole(node, self._sum(node, None))
            case MaxPool(x=x):
                place, scale, offset = self.record(x)
                if not (scale > 0).all():
                    raise QevoError(
                        f"{node.where}: max pooling of activations behind {describe(node)} that"
                        " were multiplied by a negative number or 0 after their relu"
                    )
                options = {"padding": node.padding, "strides": node.strides, "window": node.window}
                return Recorded(self._call("max_pool", place, **options), scale, offset)
            case AveragePool(x=x):
                place, scale, offset = self.record(x)
                name = self._name("pool_0")
                return Recorded(self._call("average_pool", place, name=name), scale, offset)
            case Flatten(x=x):
                place, scale, offset = self.record(x)
                pixels = node.shape[-1] // len(scale)
                place = self._call("flatten", place)
                return Recorded(place, np.tile(scale, pixels), np.tile(offset, pixels))
            case PadChannels(x=x, before=before, after=after):
                place, scale, offset = self.record(x)
                place = self._call("pad_channels", place, after=after, before=before)
                scale = np.pad(scale, (before, after), constant_values=1)
                return Recorded(place, scale, np.pad(offset, (before, after)))
            case Concat(x=x, others=others):
                if any(_is_image(part.node) for part in (x, *others)):
                    raise QevoError(
                        f"{node.where}: the images themselves cannot be put together with"
                        " activations; put a layer between"
                    )
                places, scales, offsets = zip(*map(self.record, (x, *others)), strict=True)
                place = self._call("concat", *places, name=self._name("concat_0"))
                return Recorded(place, np.concatenate(scales), np.concatenate(offsets))
            case _:
                raise QevoError(
                    f"{node.where}, behind {describe(node)}: rows and columns of zeros can only be"
                    " put around the input of a convolution"
                )

    def _sum(self, node: Sum, activation: str | None) -> int:
        places = []
        for summand in (node.x, node.y):
            recorded = self.record(summand)
            if not recorded.plain:
                raise QevoError(
                    f"{node.where}: the summand behind {describe(summand.node)} was scaled or"
                    " shifted (by a batch norm, say) after its relu; a residual sum takes"
                    " activations as they are"
                )
            if _is_image(summand.node):
                raise QevoError(
                    f"{node.where}: a residual sum with the images themselves; put a layer between"
                )
            places.append(recorded.place)
        return self._call("add", *places, name=self._name("add_0"), activation=activation)

    def _layer(
        self,
        node: Layer,
        scale: np.ndarray,
        offset: np.ndarray,
        *,
        activation: str | None = None,
        logits: bool = False,
    ) -> int:
        """Record ``scale * layer + offset``."""
        x = self.record(node.x)
        inputs = np.s_[:] if node.depthwise else np.s_[:, None]  # their axis in the kernel
        kernel, bias = node.kernel * x.scale[inputs], 0.0
        if x.offset.any():
            if any(p != (0, 0) for p in node.padding):
                raise QevoError(
                    f"layer {node.name} ({node.where}): its input was shifted (by a batch norm"
                    " or bias) after its last relu or sum, which a convolution padded with zeros"
                    " cannot take into its bias; move the batch norm before the relu, or leave"
                    " out the padding"
                )
            summed = node.kernel.reshape(-1, *node.kernel.shape[-2:]).sum(0)
            bias = (x.offset[inputs] * summed).sum(0)
        name = self._name(node.name)
        self.params[name] = {
            "kernel": (kernel * scale).astype(np.float32),
            "bias": (bias * scale + offset).astype(np.float32),
        }
        features = node.kernel.shape[-1]
        if logits:
            return self._call("logits", x.place, name=name, classes=features)
        options: dict[str, Any] = {"activation": activation, "batch_norm": False}
        if not node.padding:
            return self._call("dense", x.place, name=name, features=features, **options)
        options |= {"kernel": node.kernel.shape[:2], "padding": node.padding}
        if node.depthwise:
            options["depthwise"] = True
        return self._call(
            "conv", x.place, name=name, features=features, strides=node.strides, **options
        )

    def _call(self, operation: str, *inputs: int, name: str = "", **options: Any) -> int:
        self.calls.append(Call(operation, inputs, tuple(sorted(options.items())), name))
        return len(self.calls)

    def _name(self, proposed: str) -> str:
        """A name not yet taken, which is no folder of another and lies in none.

        A folder "kernel" would be mistaken for a layer's own.
        """
        parts = re.sub(r"[^\w/.-]", "_", proposed, flags=re.ASCII).split("/")
        name = "/".join("kernel_" if part == "kernel" else part for part in parts if part)
        name = name or "layer_0"
        if any(name.startswith(f"{taken}/") for taken in self._names):
            name = name.replace("/", "_")
        stem, number = re.sub(r"_0$", "", name), 0
        while any(f"{taken}/".startswith(f"{name}/") for taken in self._names):
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name


def _plain(scale: np.ndarray, offset: np.ndarray) -> bool:
    # A mean may multiply by 1 / n in float32 what was summed over n.
    return np.allclose(scale, 1, rtol=0, atol=1e-6) and not offset.any()


def _whole(node: Node, place: int) -> Recorded:
    channels = node.shape[-1]
    return Recorded(place, np.ones(channels), np.zeros(channels))


def _short(values: np.ndarray) -> tuple[float, ...]:
    """One number per channel, or one for all."""
    return (float(values[0]),) if np.all(values == values[0]) else tuple(map(float, values))


def _is_image(node: Node) -> bool:
    """Whether an activation has the scale of the images, which is no power of two."""
    while isinstance(node, MaxPool | Flatten | PadChannels):
        node = node.x.node
    return isinstance(node, Images)


def _both_ways(node: Node) -> QevoError:
    return QevoError(
        f"{describe(node)} ({node.where}): its output is used in two ways, of which one is a relu;"
        " in a quantized network the relu, and what is scaled or shifted before it, is part of the"
        " layer"
    )

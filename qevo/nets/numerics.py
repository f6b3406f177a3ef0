"""The operations that an architecture is written against, whatever computes them."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Literal

from qevo.errors import QevoError

Activation = Literal["relu", "leaky"] | None
Padding = Literal["SAME", "VALID"] | tuple[tuple[int, int], tuple[int, int]]
SumActivation = Literal["relu"] | None
Head = Literal["logits", "image", "maps"]


@dataclasses.dataclass(frozen=True)
class Product:
    """A layer with weights: a dense product or a convolution and what follows it.

    Attributes:
      kind: "dense" (x ``[B, K]``, kernel ``[K, C]``) or "conv" (x NHWC, kernel HWIO).
      features: C, the output channels.
      kernel: window of a convolution, ``(height, width)``; empty for a dense layer.
      strides, padding: of a convolution; padding is "SAME", "VALID" or explicit pairs.
      activation: "relu", "leaky" (a tenth of what is negative) or ``None``, fused into the
        requantization of an integer layer.
      batch_norm: whether the float network normalises; folded into the kernel before conversion.
      head: of the last layer only, whose integer output is int32 on one common fixed point:
        "logits" in nats, an "image" in levels of the int8 input, or "maps" in their own units.
      depthwise: a convolution of each channel with a filter of its own, ``[h, w, 1, C]``.
    """

    kind: Literal["dense", "conv"]
    features: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "VALID"
    activation: Activation = None
    batch_norm: bool = False
    head: Head | None = None
    depthwise: bool = False

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """Shape of the kernel for an input of so many channels (dense: K).

        Raises:
          QevoError: a depthwise layer of another number of channels.
        """
        if self.depthwise and channels != self.features:
            raise QevoError(
                f"a depthwise layer has as many channels as its input, {channels},"
                f" not {self.features}"
            )
        channels = 1 if self.depthwise else channels
        return (*self.kernel, channels, self.features)


class Numerics(abc.ABC):
    """What an architecture may do to an image: the meaning of each operation is the subclass's.

    A network is a linen module with a field ``numerics`` that calls nothing but these operations in
    its compact ``__call__``. What flows between them is the subclass's business (a float array, an
    int8 array, a pair of both while converting), so an architecture must not touch it otherwise.

    ``conv``, ``dense``, ``logits``, ``image`` and ``map`` are layers with weights: each is one
    `Product`, lives at ``name`` in every collection and is one entry of `QuantizedNetwork.layers`.
    A new kind of numerics implements the abstract operations only.
    """

    @abc.abstractmethod
    def input(self, images: Any) -> Any:
        """The images as the network's first activation; called once, first."""

    @abc.abstractmethod
    def product(self, x: Any, layer: Product, *, name: str) -> Any:
        """A layer with weights; see `conv`, `dense`, `logits`, `image` and `map`."""

    @abc.abstractmethod
    def add(self, x: Any, y: Any, *, activation: SumActivation = "relu", name: str) -> Any:
        """Residual sum of two activations of one shape; it cannot leak."""

    @abc.abstractmethod
    def max_pool(
        self,
        x: Any,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> Any:
        """Maximum over windows; ``strides`` default to the window."""

    @abc.abstractmethod
    def pad_channels(self, x: Any, before: int, after: int) -> Any:
        """Channels of zeros around ``[..., C]``: ``[..., before + C + after]``.

        Exact in integers, whose zero point is 0.
        """

    @abc.abstractmethod
    def upsample(self, x: Any, factor: int = 2) -> Any:
        """Nearest neighbour, exact in integers: ``[B, H, W, C]`` to ``[B, f·H, f·W, C]``."""

    @abc.abstractmethod
    def concat(self, *parts: Any, name: str) -> Any:
        """Channels of activations ``[B, H, W, C_i]`` one after the other, ``[B, H, W, sum C_i]``.

        What is put together shares one scale, so that it is exact in integers.
        """

    @abc.abstractmethod
    def average_pool(self, x: Any, *, name: str) -> Any:
        """Mean over height and width: ``[B, H, W, C]`` to ``[B, C]``."""

    @abc.abstractmethod
    def flatten(self, x: Any) -> Any:
        """``[B, H, W, C]`` to ``[B, H·W·C]``."""

    @abc.abstractmethod
    def outputs(self, *maps: Any) -> Any:
        """What a network of several `map` returns: ``[B, N]``, each map's H·W·C in their order."""

    def conv(
        self,
        x: Any,
        features: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        strides: tuple[int, int] = (1, 1),
        padding: Padding = "SAME",
        activation: Activation = "relu",
        batch_norm: bool = True,
        depthwise: bool = False,
        name: str,
    ) -> Any:
        """Convolution, batch norm or bias, activation."""
        layer = Product(
            "conv",
            features,
            kernel,
            strides,
            padding,
            activation,
            batch_norm,
            depthwise=depthwise,
        )
        return self.product(x, layer, name=name)

    def dense(
        self,
        x: Any,
        features: int,
        *,
        activation: Activation = "relu",
        batch_norm: bool = False,
        name: str,
    ) -> Any:
        """Dense product, batch norm or bias, activation."""
        layer = Product("dense", features, activation=activation, batch_norm=batch_norm)
        return self.product(x, layer, name=name)

    def logits(self, x: Any, classes: int, *, name: str) -> Any:
        """The last dense layer; what it returns is what the network returns."""
        return self.product(x, Product("dense", classes, head="logits"), name=name)

    def image(
        self,
        x: Any,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        padding: Padding = "SAME",
        name: str,
    ) -> Any:
        """The last convolution of a network that returns images like those that came in.

        In integers ``2**fraction_bits`` is one level of the int8 input, so that input and output
        are comparable (`qevo.nets.reconstruction`).
        """
        layer = Product("conv", channels, kernel, padding=padding, head="image")
        return self.product(x, layer, name=name)

    def map(self, x: Any, channels: int, kernel: tuple[int, int] = (1, 1), *, name: str) -> Any:
        """A last convolution whose numbers are read outside the network, as a detector's are.

        In integers ``2**fraction_bits`` is one unit of the float network's map.
        """
        layer = Product("conv", channels, kernel, padding="SAME", head="maps")
        return self.product(x, layer, name=name)

"""The ONNX graph of an architecture in int8 QDQ form, with random weights, for a peer to run.

A peer is to be at its best: this graph has one scale for all activations and no rule for pixels,
and runs faster than what `qevo.export.onnx_model` writes, which gives a network's own integers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jax import lax

from qevo.nets.numerics import Activation, Numerics, Product, SumActivation
from qevo.nets.registry import architecture


class _Tensor(NamedTuple):
    """A quantized activation of the graph, without its batch axis."""

    name: str
    shape: tuple[int, ...]  # CHW, or K
    zero_point: str  # "zero", or "middle" of a tensor with negative values


class QdqGraph(Numerics):
    """Writes down the ONNX graph of an architecture: uint8 activations, random int8 weights."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        height, width, channels = shape
        self.shape = (channels, height, width)
        self.nodes: list[Any] = []
        self.random = np.random.default_rng(0)
        self.constants: dict[str, np.ndarray] = {
            "scale": np.asarray(4 / 255, np.float32),  # of every activation
            "zero": np.asarray(0, np.uint8),
        }

    def input(self, images: Any) -> _Tensor:
        return _Tensor("images", self.shape, "zero")

    def product(self, x: _Tensor, layer: Product, *, name: str) -> _Tensor:
        channels, *size = x.shape
        shape = layer.kernel_shape(channels)
        attributes: dict[str, Any] = {}
        if layer.kind == "conv":
            padding = layer.padding
            if isinstance(padding, str):
                padding = lax.padtype_to_pads(size, layer.kernel, layer.strides, padding)
            (top, bottom), (left, right) = padding
            attributes = {"strides": layer.strides, "pads": [top, left, bottom, right]}
            size = _window_counts(size, layer.kernel, layer.strides, padding)
        scale = np.sqrt(2 / np.prod(shape[:-1])) / 73  # He et al.'s variance
        weights = self.random.integers(-127, 128, shape, np.int8)
        bias = self.random.integers(-1000, 1000, layer.features, np.int32)
        if layer.kind == "conv":
            weights = np.ascontiguousarray(weights.transpose(3, 2, 0, 1))
        operands = [
            self._dequantize(x),
            self._constant(weights, scale),
            self._constant(bias, scale * self.constants["scale"]),
        ]
        operator = "Conv" if layer.kind == "conv" else "Gemm"
        y = self._node(operator, *operands, **attributes)
        if layer.head:
            return _Tensor(y, (layer.features,), "zero")
        return self._quantize(y, (layer.features, *size), layer.activation)

    def add(
        self, x: _Tensor, y: _Tensor, *, activation: SumActivation = "relu", name: str
    ) -> _Tensor:
        total = self._node("Add", self._dequantize(x), self._dequantize(y))
        return self._quantize(total, x.shape, activation)

    def max_pool(
        self,
        x: _Tensor,
        window: tuple[int, int] = (2, 2),
        *,
        strides: tuple[int, int] | None = None,
        padding: str = "VALID",
    ) -> _Tensor:
        strides = strides or window
        channels, *size = x.shape
        pads = lax.padtype_to_pads(size, window, strides, padding)
        (top, bottom), (left, right) = pads
        y = self._node(
            "MaxPool", x.name, kernel_shape=window, strides=strides, pads=[top, left, bottom, right]
        )
        return x._replace(name=y, shape=(channels, *_window_counts(size, window, strides, pads)))

    def pad_channels(self, x: _Tensor, before: int, after: int) -> _Tensor:
        pads = f"pads_{before}_{after}"
        self.constants[pads] = np.asarray([0, before, 0, 0, 0, after, 0, 0], np.int64)
        y = self._node("Pad", x.name, pads, x.zero_point)
        return x._replace(name=y, shape=(before + x.shape[0] + after, *x.shape[1:]))

    def upsample(self, x: _Tensor, factor: int = 2) -> _Tensor:
        raise ValueError("none of the benchmark's networks upsamples")

    def concat(self, *parts: _Tensor, name: str) -> _Tensor:
        raise ValueError("none of the benchmark's networks puts activations together")

    def outputs(self, *maps: _Tensor) -> _Tensor:
        raise ValueError("none of the benchmark's networks has maps")

    def average_pool(self, x: _Tensor, *, name: str) -> _Tensor:
        mean = self._node("GlobalAveragePool", self._dequantize(x))
        return self.flatten(self._quantize(mean, (x.shape[0], 1, 1), "relu"))

    def flatten(self, x: _Tensor) -> _Tensor:
        return x._replace(name=self._node("Flatten", x.name), shape=(int(np.prod(x.shape)),))

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def _constant(self, values: np.ndarray, scale: float) -> str:
        name = f"constant_{len(self.nodes)}"
        parts = {
            name: values,
            f"{name}_scale": np.asarray(scale, np.float32),
            f"{name}_zero": np.zeros((), values.dtype),
        }
        self.constants |= parts
        return self._node("DequantizeLinear", *parts)

    def _dequantize(self, x: _Tensor) -> str:
        return self._node("DequantizeLinear", x.name, "scale", x.zero_point)

    def _quantize(self, y: str, shape: tuple[int, ...], activation: Activation) -> _Tensor:
        """The zero point of a ReLU's output cuts off what is negative."""
        zero_point = "zero"
        if activation != "relu":
            zero_point = "middle"
            self.constants[zero_point] = np.asarray(128, np.uint8)
        return _Tensor(self._node("QuantizeLinear", y, "scale", zero_point), shape, zero_point)


def onnx_network(name: str, shape: tuple[int, int, int]) -> bytes:
    """An architecture as an ONNX model: ``images`` uint8 ``[B, C, H, W]`` to float logits.

    Args:
      name: of the architecture.
      shape: ``(H, W, C)``.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    graph = QdqGraph(shape)
    logits = architecture(name, numerics=graph).apply({}, None)
    assert isinstance(logits, _Tensor)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", *graph.shape])],
            [helper.make_tensor_value_info(logits.name, TensorProto.FLOAT, ["B", *logits.shape])],
            [numpy_helper.from_array(np.asarray(v), key) for key, v in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _window_counts(size: Any, window: Any, strides: Any, padding: Any) -> list[int]:
    """How many windows fit along each axis."""
    axes = zip(size, window, strides, padding, strict=True)
    return [(length + sum(pads) - w) // s + 1 for length, w, s, pads in axes]

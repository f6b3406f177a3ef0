"""A quantized network as an ONNX model that computes the same integers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from qevo.errors import QevoError
from qevo.export.steps import (
    Add,
    Average,
    Flatten,
    Input,
    MaxPool,
    Multiply,
    PadChannels,
    Step,
    Tensor,
    Upsample,
    steps_of,
)
from qevo.integer.patches import Pads
from qevo.nets.network import QuantizedNetwork

Form = Literal["integer", "qdq"]

IMAGES = "images"  # the model's input
OPSET = 21  # the first with 4-bit integers
IR_VERSION = 10
NARROW = (-8, 7)  # levels that a 4-bit integer holds


def onnx_model(network: QuantizedNetwork, form: Form = "integer") -> bytes:
    """The network as an ONNX model, raw images uint8 ``[B, H, W, C]`` to int32 outputs.

    Inside, activations are int8 ``[B, C, H, W]``. Layers whose levels fit keep them as 4-bit
    integers in the file. ``QLinearConv`` rounds ``acc * multiplier / 2**shift`` half to even, as
    qevo does, and within the range of an int8 that product is exact in a float32 for the shifts
    that layers have. What else is scaled goes through float64, where every value is exact.

    Args:
      network: what to write.
      form: "integer" for integer operators; "qdq" for float operators between pairs of
        ``QuantizeLinear`` and ``DequantizeLinear``, which runtimes with kernels of their own match
        and fuse. The last layer is an integer product in both.

    Raises:
      QevoError: the package onnx is not there, a form that is not, or a layer has a name that the
        model needs for something else.
    """
    if form not in ("integer", "qdq"):
        raise QevoError(f"the form of an ONNX model is 'integer' or 'qdq', not {form!r}")
    try:
        from onnx import TensorProto, checker, helper
    except ImportError:
        raise QevoError("writing ONNX needs the package onnx: pip install 'qevo[export]'") from None
    steps = steps_of(network)
    writer = _Writer(form)
    for step in steps:
        writer.write(step)
    output = steps[-1].output
    result = writer.result(output)
    graph = helper.make_graph(
        writer.nodes,
        "qevo",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["B", *network.image_shape])],
        [helper.make_tensor_value_info(result, TensorProto.INT32, ["B", *output.shape])],
        writer.initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="qevo",
    )
    model.doc_string = (
        f"{result} / 2**{network.fraction_bits} is in nats"
        if network.head == "logits"
        else f"{result} / 2**{network.fraction_bits} is in levels of the int8 input"
    )
    try:
        checker.check_model(model, full_check=True)
    except checker.ValidationError as error:
        raise QevoError(f"this network makes no valid ONNX model: {error}") from error
    return model.SerializeToString()


class _Writer:
    """The nodes and constants so far; a step's tensor has the name of the step in the graph."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._known: set[str] = set()

    def write(self, step: Step) -> None:
        getattr(self, f"_{type(step).__name__.lower()}")(step)

    def result(self, output: Tensor) -> str:
        """The name of the model's output: images go back to ``[B, H, W, C]``."""
        if len(output.shape) == 1:
            return output.name
        return self._node("Transpose", [output.name], f"{output.name}/last", perm=[0, 2, 3, 1])

    def _input(self, step: Input) -> None:
        """A table look-up: every value of a pixel, channel by channel."""
        channels = step.table.shape[1]
        offsets = 256 * np.arange(channels, dtype=np.int32)
        pixels = self._node("Cast", [IMAGES], "pixels", to=_type("INT32"))
        at = self._node("Add", [pixels, self._constant("pixel_offsets", offsets)], "pixel_places")
        table = self._constant("pixel_values", step.table.T.reshape(-1))
        scaled = self._node("Gather", [table, at], "scaled_pixels")
        self._node("Transpose", [scaled], step.name, perm=[0, 3, 1, 2])

    def _multiply(self, step: Multiply) -> None:
        if step.shift is None:
            self._last(step)
            return
        scale = (step.multiplier / 2.0**step.shift).astype(np.float32)
        attributes: dict[str, Any] = {}
        x, y = step.inputs[0].name, f"{step.name}/product"
        dense = step.layer.kind == "dense"
        if dense:  # a convolution of one pixel: it adds a bias and scales by channel
            x = self._node("Unsqueeze", [x, self._axes(2, 3)], f"{step.name}/pixel")
            kernel = step.kernel.T[:, :, None, None]
        else:
            kernel = step.kernel.transpose(3, 2, 0, 1)
            attributes = {"strides": step.layer.strides, "pads": _flat(step.pads)}
        if self.form == "integer":
            zeros = self._constant(f"{step.name}/zeros", np.zeros(scale.shape, np.int8))
            inputs = [
                *(x, self._one(), self._zero()),
                *(self._levels(step, kernel), self._constant(f"{step.name}/scale", scale), zeros),
                *(self._one(), self._zero(), self._constant(f"{step.name}/bias", step.bias)),
            ]
            self._node("QLinearConv", inputs, y, **attributes)
        else:
            self._pairs(step, x, kernel, scale, y, attributes)
        if dense:
            y = self._node("Squeeze", [y, self._axes(2, 3)], f"{step.name}/channels")
        self._clip(y, step.name, step.facts.output_low, step.facts.output_high)

    def _pairs(
        self,
        step: Multiply,
        x: str,
        kernel: np.ndarray,
        scale: np.ndarray,
        y: str,
        attributes: dict[str, Any],
    ) -> None:
        scales = self._constant(f"{step.name}/scale", scale)
        zeros = self._constant(f"{step.name}/bias_zeros", np.zeros(scale.shape, np.int32))
        bias = self._constant(f"{step.name}/bias", step.bias)
        narrow = _is_narrow(step)
        kind = "zeros4" if narrow else "zeros"
        weight_zeros = self._constant(
            f"{step.name}/{kind}", np.zeros(scale.shape, np.int8), narrow=narrow
        )
        weights = self._constant(f"{step.name}/kernel", kernel, narrow=narrow)
        operands = [
            self._node("DequantizeLinear", [x, self._one(), self._zero()], f"{step.name}/input"),
            self._node(
                "DequantizeLinear", [weights, scales, weight_zeros], f"{step.name}/weights", axis=0
            ),
            self._node("DequantizeLinear", [bias, scales, zeros], f"{step.name}/shifts", axis=0),
        ]
        real = self._node("Conv", operands, f"{step.name}/real", **attributes)
        self._node("QuantizeLinear", [real, self._one(), self._zero()], y)

    def _last(self, step: Multiply) -> None:
        """The int32 output: no requantization."""
        x, y = step.inputs[0].name, f"{step.name}/product"
        shape = (-1,) if step.layer.kind == "dense" else (1, -1, 1, 1)
        if step.layer.kind == "dense":
            self._node("MatMulInteger", [x, self._levels(step, step.kernel)], y)
        else:  # ConvInteger takes unsigned operands everywhere
            shifted = self._node("Cast", [x], f"{step.name}/wide", to=_type("INT32"))
            shifted = self._node("Add", [shifted, self._middle()], f"{step.name}/shifted")
            shifted = self._node("Cast", [shifted], f"{step.name}/unsigned", to=_type("UINT8"))
            kernel = step.kernel.transpose(3, 2, 0, 1).astype(np.int16) + 128
            weights = self._constant(f"{step.name}/kernel", kernel.astype(np.uint8))
            zero = self._constant("unsigned_zero", np.asarray(128, np.uint8))
            options = {"strides": step.layer.strides, "pads": _flat(step.pads)}
            self._node("ConvInteger", [shifted, weights, zero, zero], y, **options)
        multiplier = self._constant(f"{step.name}/multiplier", step.multiplier.reshape(shape))
        bias = self._constant(f"{step.name}/bias", step.bias.reshape(shape))
        y = self._node("Mul", [y, multiplier], f"{step.name}/scaled")
        self._node("Add", [y, bias], step.name)

    def _add(self, step: Add) -> None:
        terms = []
        for side, x, left in zip(("left", "right"), step.inputs, step.left, strict=True):
            real = self._node("Cast", [x.name], f"{step.name}/{side}", to=_type("DOUBLE"))
            factor = self._constant(
                f"{step.name}/{side}_scale", np.asarray(2.0 ** (left - step.right))
            )
            terms.append(self._node("Mul", [real, factor], f"{step.name}/{side}_scaled"))
        total = self._node("Add", terms, f"{step.name}/sum")
        self._rounded(total, step.name, step.low, step.high)

    def _average(self, step: Average) -> None:
        (x,) = step.inputs
        wide = self._node("Cast", [x.name], f"{step.name}/wide", to=_type("INT32"))
        inputs = [wide, self._axes(2, 3)]
        total = self._node("ReduceSum", inputs, f"{step.name}/sum", keepdims=0)
        real = self._node("Cast", [total], f"{step.name}/real", to=_type("DOUBLE"))
        scale = np.asarray(step.multiplier / 2.0**step.shift)
        inputs = [real, self._constant(f"{step.name}/scale", scale)]
        self._rounded(
            self._node("Mul", inputs, f"{step.name}/scaled"), step.name, step.low, step.high
        )

    def _maxpool(self, step: MaxPool) -> None:
        options = {
            "kernel_shape": step.window,
            "strides": step.strides,
            "pads": _flat(step.pads),
        }
        self._node("MaxPool", [step.inputs[0].name], step.name, **options)

    def _padchannels(self, step: PadChannels) -> None:
        places = len(step.output.shape)
        before, after = ([0] * (places + 1) for _ in range(2))
        before[1], after[1] = step.before, step.after
        pads = self._constant(f"{step.name}/pads", np.asarray([*before, *after], np.int64))
        self._node("Pad", [step.inputs[0].name, pads, self._zero()], step.name)

    def _upsample(self, step: Upsample) -> None:
        scales = np.asarray([1, 1, step.factor, step.factor], np.float32)
        inputs = [step.inputs[0].name, "", self._constant(f"{step.name}/scales", scales)]
        options = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        self._node("Resize", inputs, step.name, **options)

    def _flatten(self, step: Flatten) -> None:
        (x,) = step.inputs
        name = x.name
        if len(x.shape) == 3:
            name = self._node("Transpose", [name], f"{step.name}/last", perm=[0, 2, 3, 1])
        self._node("Flatten", [name], step.name)

    def _levels(self, step: Multiply, kernel: np.ndarray) -> str:
        """Weights as int8; four bits each in the file where they fit."""
        if not _is_narrow(step):
            return self._constant(f"{step.name}/kernel", kernel)
        packed = self._constant(f"{step.name}/kernel", kernel, narrow=True)
        return self._node("Cast", [packed], f"{step.name}/levels", to=_type("INT8"))

    def _rounded(self, real: str, name: str, low: int, high: int) -> None:
        real = self._node("Round", [real], f"{name}/rounded")
        limits = [self._constant(f"limit_{v}_double", np.asarray(float(v))) for v in (low, high)]
        real = self._node("Clip", [real, *limits], f"{name}/clipped")
        self._node("Cast", [real], name, to=_type("INT8"))

    def _clip(self, x: str, name: str, low: int, high: int) -> None:
        limits = [self._constant(f"limit_{v}", np.asarray(v, np.int8)) for v in (low, high)]
        self._node("Clip", [x, *limits], name)

    def _one(self) -> str:
        return self._constant("one", np.float32(1))

    def _zero(self) -> str:
        return self._constant("zero", np.int8(0))

    def _middle(self) -> str:
        return self._constant("middle", np.asarray(128, np.int32))

    def _axes(self, *axes: int) -> str:
        return self._constant(f"axes_{'_'.join(map(str, axes))}", np.asarray(axes, np.int64))

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def _constant(self, name: str, values: Any, *, narrow: bool = False) -> str:
        from onnx import TensorProto, helper, numpy_helper

        if name in self._known:
            return name
        self._known.add(name)
        values = np.ascontiguousarray(values)
        if narrow:
            flat = values.reshape(-1)
            padded = np.pad(flat, (0, flat.size % 2)).astype(np.uint8) & 15
            packed = (padded[0::2] | padded[1::2] << 4).tobytes()
            tensor = helper.make_tensor(name, TensorProto.INT4, values.shape, packed, raw=True)
        else:
            tensor = numpy_helper.from_array(values, name)
        self.initializers.append(tensor)
        return name


def _is_narrow(step: Multiply) -> bool:
    low, high = step.facts.weight_low, step.facts.weight_high
    return NARROW[0] <= low and high <= NARROW[1]


def _flat(pads: Pads) -> list[int]:
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]


def _type(name: str) -> int:
    from onnx import TensorProto

    return getattr(TensorProto, name)

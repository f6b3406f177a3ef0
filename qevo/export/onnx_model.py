"""A quantized network as an ONNX model that computes the same integers."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from qevo.errors import QevoError
from qevo.export.steps import (
    UNITS,
    Add,
    Average,
    Concat,
    Flatten,
    Input,
    MaxPool,
    Multiply,
    Outputs,
    PadChannels,
    Step,
    Tensor,
    Upsample,
    steps_of,
)
from qevo.integer.patches import Pads
from qevo.nets.network import QuantizedNetwork
from qevo.nets.packing import pack

Form = Literal["integer", "qdq"]

IMAGES = "images"  # the model's input
OPSET = 21  # the first with 4-bit integers
IR_VERSION = 10
APART = 16  # bits between two sums of 8 bits that 24 hold
MIDDLE = 128  # what stands for 0 in a tensor with negative values
NARROW = (-8, 7)  # levels that a 4-bit integer holds
PAIRED = 64  # weights up to which 16 bits hold two products with a uint8


def onnx_model(network: QuantizedNetwork, form: Form = "integer") -> bytes:
    """The network as an ONNX model, raw images uint8 ``[B, H, W, C]`` to int32 outputs.

    Inside, activations are uint8 ``[B, C, H, W]``, with the zero point 0, or 128 where there are
    negative ones: runtimes have their fastest kernels for it, and values up to 127 never saturate
    the 16-bit sums of processors without VNNI. Beside larger ones, weights that would are uint8
    with the zero point 128, for which runtimes have kernels with wider sums. Layers whose levels
    fit keep them as 4-bit integers in the file. ``QLinearConv`` rounds ``acc * multiplier /
    2**shift`` half to even, as qevo does, and within the range of an int8 that product is exact in
    a float32 for the shifts that layers have. What else is scaled goes through float64, where every
    value is exact.

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
        raise QevoError(
            "writing ONNX needs the package onnx: pip install -e '.[export]' in qevo's checkout"
        ) from None
    steps = steps_of(network)
    writer = _Writer(form, zero_points(steps))
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
        producer_version=importlib.metadata.version("qevo"),
    )
    unit = UNITS[network.head]
    model.doc_string = f"2**{network.fraction_bits} of {result} is one {unit}"
    try:
        checker.check_model(model, full_check=True)
    except checker.ValidationError as error:
        raise QevoError(f"this network makes no valid ONNX model: {error}") from error
    return model.SerializeToString()


def zero_points(steps: Sequence[Step]) -> dict[str, int]:
    """What stands for 0 in each tensor of a model, by name: `MIDDLE` where there are negatives."""
    zeros: dict[str, int] = {}
    for step in steps:
        if isinstance(step, Input):
            low = int(step.table.min())
        elif isinstance(step, Multiply):
            low = step.facts.output_low
        elif isinstance(step, Add | Average):
            low = step.low
        elif isinstance(step, Concat):
            zeros[step.name] = max(zeros[part.name] for part in step.inputs)
            continue
        else:
            zeros[step.name] = zeros[step.inputs[0].name]
            continue
        zeros[step.name] = 0 if low >= 0 else MIDDLE
    return zeros


class _Writer:
    """The nodes and constants so far; a step's tensor has the name of the step in the graph."""

    def __init__(self, form: Form, zeros: Mapping[str, int]) -> None:
        self.form, self.zeros = form, zeros
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
        """In float32 where it gives every value of a pixel as it is, which is fast; or a table."""
        zero, values = self.zeros[step.name], np.arange(256, dtype=np.float32)[:, None]
        scale, offset = step.scale.astype(np.float32), step.offset.astype(np.float32)
        low, high = int(step.table.min()), int(step.table.max())
        if np.array_equal(np.clip(np.rint(values * scale + offset), low, high), step.table):
            channels = [self._constant(f"{step.name}/scale", scale)]
            channels.append(self._constant(f"{step.name}/none", np.zeros(scale.shape, np.uint8)))
            real = self._node("DequantizeLinear", [IMAGES, *channels], "real_pixels", axis=3)
            shift = self._constant(f"{step.name}/offset", offset)
            real = self._node("Add", [real, shift], "shifted_pixels")
            real = self._node("Transpose", [real], "turned_pixels", perm=[0, 3, 1, 2])
            inputs = [real, self._one(), self._zero(step.name)]
            scaled = self._node("QuantizeLinear", inputs, "scaled_pixels")
            self._clip(scaled, step.name, low, high)
            return
        channels = step.table.shape[1]
        offsets = 256 * np.arange(channels, dtype=np.int32)
        pixels = self._node("Cast", [IMAGES], "pixels", to=_type("INT32"))
        at = self._node("Add", [pixels, self._constant("pixel_offsets", offsets)], "pixel_places")
        values = step.table.T.reshape(-1).astype(np.int16) + zero
        table = self._constant("pixel_values", values.astype(np.uint8))
        scaled = self._node("Gather", [table, at], "scaled_pixels")
        self._node("Transpose", [scaled], step.name, perm=[0, 3, 1, 2])

    def _multiply(self, step: Multiply) -> None:
        if step.shift is None:
            self._last(step)
        elif step.layer.activation == "leaky":
            self._leaky(step)
        elif self.form == "qdq":
            self._pairs(step)
        elif step.layer.kind == "dense":
            scale = self._constant(f"{step.name}/scale", step.multiplier / 2.0**step.shift)
            bias = self._constant(f"{step.name}/bias", step.bias)
            total = self._node("Add", [self._product(step), bias], f"{step.name}/sum")
            real = self._node("Cast", [total], f"{step.name}/real", to=_type("DOUBLE"))
            real = self._node("Mul", [real, scale], f"{step.name}/scaled")
            self._rounded(real, step.name, step.facts.output_low, step.facts.output_high)
        else:
            scale = (step.multiplier / 2.0**step.shift).astype(np.float32)
            levels, zero = self._levels(step, step.kernel.transpose(3, 2, 0, 1))
            inputs = [
                *(step.inputs[0].name, self._one(), self._zero(step.inputs[0].name)),
                *(levels, self._constant(f"{step.name}/scale", scale)),
                self._constant(f"{step.name}/zeros", np.full(scale.shape, zero)),
                *(self._one(), self._zero(step.name)),
                self._constant(f"{step.name}/bias", step.bias),
            ]
            y = self._node("QLinearConv", inputs, f"{step.name}/scaled", **_window(step))
            self._clip(y, step.name, step.facts.output_low, step.facts.output_high)

    def _leaky(self, step: Multiply) -> None:
        """The two slopes in float64: their shifts are more than a float32 holds."""
        assert step.shift is not None
        shape = (-1,) if step.layer.kind == "dense" else (1, -1, 1, 1)
        leak = (4 * step.multiplier.astype(np.int64) + 2) // 5
        slopes = {
            "above": step.multiplier / 2.0**step.shift,
            "below": leak / 2.0 ** (step.shift + 3),
        }
        bias = self._constant(f"{step.name}/bias", step.bias.reshape(shape))
        total = self._node("Add", [self._product(step), bias], f"{step.name}/sum")
        real = self._node("Cast", [total], f"{step.name}/real", to=_type("DOUBLE"))
        none = self._constant("zero_double", np.asarray(0.0))
        parts = []
        for (side, slope), cut in zip(slopes.items(), ("Max", "Min"), strict=True):
            scale = self._constant(f"{step.name}/{side}_scale", slope.reshape(shape))
            part = self._node(cut, [real, none], f"{step.name}/{side}")
            parts.append(self._node("Mul", [part, scale], f"{step.name}/{side}_scaled"))
        real = self._node("Add", parts, f"{step.name}/scaled")
        self._rounded(real, step.name, step.facts.output_low, step.facts.output_high)

    def _pairs(self, step: Multiply) -> None:
        """A float operator between DequantizeLinear and QuantizeLinear."""
        assert step.shift is not None
        x, dense = step.inputs[0].name, step.layer.kind == "dense"
        scale = (step.multiplier / 2.0**step.shift).astype(np.float32)
        scales = self._constant(f"{step.name}/scale", scale)
        kernel = step.kernel if dense else step.kernel.transpose(3, 2, 0, 1)
        levels, zero = self._levels(step, kernel)
        zeros = self._constant(f"{step.name}/zeros", np.full(scale.shape, zero))
        weights = [levels, scales, zeros]
        bias = [
            self._constant(f"{step.name}/bias", step.bias),
            scales,
            self._constant(f"{step.name}/bias_zeros", np.zeros(scale.shape, np.int32)),
        ]
        axis = 1 if dense else 0  # of the output channels
        operands = [
            self._node("DequantizeLinear", [x, self._one(), self._zero(x)], f"{step.name}/input"),
            self._node("DequantizeLinear", weights, f"{step.name}/weights", axis=axis),
            self._node("DequantizeLinear", bias, f"{step.name}/shifts", axis=0),
        ]
        operator = "Gemm" if dense else "Conv"
        real = self._node(operator, operands, f"{step.name}/real", **_window(step))
        inputs = [real, self._one(), self._zero(step.name)]
        y = self._node("QuantizeLinear", inputs, f"{step.name}/scaled")
        self._clip(y, step.name, step.facts.output_low, step.facts.output_high)

    def _last(self, step: Multiply) -> None:
        """The int32 output: no requantization."""
        shape = (-1,) if step.layer.kind == "dense" else (1, -1, 1, 1)
        multiplier = self._constant(f"{step.name}/multiplier", step.multiplier.reshape(shape))
        bias = self._constant(f"{step.name}/bias", step.bias.reshape(shape))
        y = self._node("Mul", [self._product(step), multiplier], f"{step.name}/scaled")
        self._node("Add", [y, bias], step.name)

    def _product(self, step: Multiply) -> str:
        """The int32 accumulator."""
        x, y = step.inputs[0].name, f"{step.name}/product"
        if step.layer.kind == "dense":
            levels, zero = self._levels(step, step.kernel)
            zeros = [self._constant(f"zero_{MIDDLE}", zero)] if zero else []
            return self._node("MatMulInteger", [x, levels, self._zero(x), *zeros], y)
        # onnxruntime's ConvInteger has unsigned weights only.
        kernel = _unsigned(step.kernel.transpose(3, 2, 0, 1))
        weights = self._constant(f"{step.name}/kernel", kernel)
        middle = self._constant(f"zero_{MIDDLE}", np.uint8(MIDDLE))
        inputs = [x, weights, self._zero(x), middle]
        return self._node("ConvInteger", inputs, y, **_window(step))

    def _add(self, step: Add) -> None:
        """In float32, which holds both sides exactly where their shifts are near enough."""
        apart = abs(step.left[0] - step.left[1])
        if apart > APART:
            raise QevoError(
                f"{step.name}: its sides are {apart} bits apart; in ONNX the sum is of float32, "
                f"exact up to {APART}"
            )
        terms = []
        for side, x, left in zip(("left", "right"), step.inputs, step.left, strict=True):
            scale = self._constant(
                f"{step.name}/{side}_scale", np.float32(2.0 ** (left - step.right))
            )
            inputs = [x.name, scale, self._zero(x.name)]
            terms.append(self._node("DequantizeLinear", inputs, f"{step.name}/{side}"))
        total = self._node("Add", terms, f"{step.name}/sum")
        inputs = [total, self._one(), self._zero(step.name)]
        y = self._node("QuantizeLinear", inputs, f"{step.name}/scaled")
        self._clip(y, step.name, step.low, step.high)

    def _average(self, step: Average) -> None:
        real = self._real(step.inputs[0].name, f"{step.name}/input")
        axes = self._constant("height_and_width", np.asarray([2, 3], np.int64))
        total = self._node("ReduceSum", [real, axes], f"{step.name}/sum", keepdims=0)
        scale = np.asarray(step.multiplier / 2.0**step.shift)
        inputs = [total, self._constant(f"{step.name}/scale", scale)]
        real = self._node("Mul", inputs, f"{step.name}/scaled")
        self._rounded(real, step.name, step.low, step.high)

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
        self._node("Pad", [step.inputs[0].name, pads, self._zero(step.name)], step.name)

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

    def _concat(self, step: Concat) -> None:
        zero, parts = self.zeros[step.name], []
        for number, x in enumerate(step.inputs):
            part = x.name
            if self.zeros[part] != zero:
                inputs = [part, self._one(), self._zero(part)]
                real = self._node("DequantizeLinear", inputs, f"{step.name}/{number}/real")
                inputs = [real, self._one(), self._zero(step.name)]
                part = self._node("QuantizeLinear", inputs, f"{step.name}/{number}")
            parts.append(part)
        self._node("Concat", parts, step.name, axis=1)

    def _outputs(self, step: Outputs) -> None:
        rows = []
        for x in step.inputs:
            last = self._node("Transpose", [x.name], f"{x.name}/last", perm=[0, 2, 3, 1])
            rows.append(self._node("Flatten", [last], f"{x.name}/row"))
        self._node("Concat", rows, step.name, axis=1)

    def _levels(self, step: Multiply, kernel: np.ndarray) -> tuple[str, np.integer]:
        """Weights as int8, or as uint8 where their products need it, and what stands for 0.

        Four bits each in the file where they fit. Runtimes fold the conversion when they load the
        model. Few have kernels for 4 bits.
        """
        facts, name = step.facts, f"{step.name}/kernel"
        low, high = facts.weight_low, facts.weight_high
        if self.zeros[step.inputs[0].name] and max(-low, high) > PAIRED:
            return self._constant(name, _unsigned(kernel)), np.uint8(MIDDLE)
        if low < NARROW[0] or high > NARROW[1]:
            return self._constant(name, kernel), np.int8(0)
        packed = self._constant(name, kernel, narrow=True)
        levels = self._node("Cast", [packed], f"{step.name}/levels", to=_type("INT8"))
        return levels, np.int8(0)

    def _real(self, x: str, name: str) -> str:
        """A tensor's values as float64."""
        real = self._node("Cast", [x], name, to=_type("DOUBLE"))
        if not self.zeros[x]:
            return real
        zero = self._constant(f"zero_{self.zeros[x]}_double", np.asarray(float(self.zeros[x])))
        return self._node("Sub", [real, zero], f"{name}/signed")

    def _rounded(self, real: str, name: str, low: int, high: int) -> None:
        """The named tensor from its values as float64, which are rounded half to even."""
        real = self._node("Round", [real], f"{name}/rounded")
        limits = [self._constant(f"limit_{v}_double", np.asarray(float(v))) for v in (low, high)]
        real = self._node("Clip", [real, *limits], f"{name}/clipped")
        if self.zeros[name]:
            zero = self._constant(f"zero_{self.zeros[name]}_double", np.asarray(float(MIDDLE)))
            real = self._node("Add", [real, zero], f"{name}/unsigned")
        self._node("Cast", [real], name, to=_type("UINT8"))

    def _clip(self, x: str, name: str, low: int, high: int) -> None:
        """The named tensor: the operators before saturate to 0..255 only."""
        limits = (
            self._constant(f"limit_{v}_from_{self.zeros[name]}", np.uint8(v + self.zeros[name]))
            for v in (low, high)
        )
        self._node("Clip", [x, *limits], name)

    def _one(self) -> str:
        return self._constant("one", np.float32(1))

    def _zero(self, x: str) -> str:
        """The zero point of a tensor."""
        return self._constant(f"zero_{self.zeros[x]}", np.uint8(self.zeros[x]))

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
            packed = pack(values, 4).tobytes()
            tensor = helper.make_tensor(name, TensorProto.INT4, values.shape, packed, raw=True)
        else:
            tensor = numpy_helper.from_array(values, name)
        self.initializers.append(tensor)
        return name


def _window(step: Multiply) -> dict[str, Any]:
    """The attributes of a convolution; none of a dense layer."""
    if step.layer.kind == "dense":
        return {}
    window: dict[str, Any] = {"strides": step.layer.strides, "pads": _flat(step.pads)}
    if step.layer.depthwise:
        window["group"] = step.layer.features
    return window


def _unsigned(kernel: np.ndarray) -> np.ndarray:
    """Levels as uint8, with `MIDDLE` for 0."""
    return (kernel.astype(np.int16) + MIDDLE).astype(np.uint8)


def _flat(pads: Pads) -> list[int]:
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]


def _type(name: str) -> int:
    from onnx import TensorProto

    return getattr(TensorProto, name)

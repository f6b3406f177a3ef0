"""What each operation of jax makes of the activations of a traced network."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import source_info_util
from jax.extend.core import JaxprEqn

from qevo.errors import QevoError
from qevo.quantize.importing.graph import (
    AveragePool,
    Concat,
    Flatten,
    Layer,
    MaxPool,
    PadChannels,
    PadImage,
    Pads,
    Relu,
    Sum,
    Value,
    describe,
)


class Constant(NamedTuple):
    """What does not depend on the images.

    Attributes:
      array: its value.
      source: path of the array that it was made of, of the largest one of several.
      size: of that one.
    """

    array: Any
    source: str = ""
    size: int = 0


Input = Value | Constant
Rule = Callable[..., Value]  # of an equation and its inputs, one of them at least a `Value`


def refuse(eqn: JaxprEqn, inputs: Sequence[Input], advice: str) -> QevoError:
    """The error for an operation that is not read."""
    places = [f"behind {describe(v.node)}" for v in inputs if isinstance(v, Value)]
    return QevoError(f"{', '.join([_where(eqn), *dict.fromkeys(places)])}: {advice}")


def _where(eqn: JaxprEqn) -> str:
    return f"{eqn.primitive.name} at {source_info_util.summarize(eqn.source_info)}"


def _output(eqn: JaxprEqn) -> Any:
    """Shape and type of the result."""
    return eqn.outvars[0].aval


def _shape(eqn: JaxprEqn) -> tuple[int, ...]:
    return _output(eqn).shape


def _pair(numbers: Sequence[Any]) -> tuple[int, int]:
    first, second = numbers
    return int(first), int(second)


def _check_float(eqn: JaxprEqn, x: Value) -> None:
    if not jnp.issubdtype(_output(eqn).dtype, jnp.inexact):
        raise refuse(eqn, [x], "integers would wrap or round: make floats of the images first")


def _check_image(eqn: JaxprEqn, x: Value) -> None:
    if len(x.shape) != 4 or x.shape != x.node.shape:
        raise refuse(eqn, [x], f"needs an image [B, H, W, C], not {list(x.shape)}")


def _channels(eqn: JaxprEqn, x: Value, constant: Constant) -> np.ndarray:
    """A constant that a value is combined with, as float64 ``[C]``."""
    _check_float(eqn, x)
    array = np.asarray(constant.array, np.float64)
    if _shape(eqn) != x.shape:
        raise refuse(eqn, [x], f"activations {list(x.shape)} are repeated to {list(_shape(eqn))}")
    if not np.isfinite(array).all():
        raise refuse(eqn, [x], "scales or offsets that are not finite")
    values = array[(0,) * (array.ndim - 1)] if array.ndim else array
    channels = x.node.shape[-1]
    whole = values.size == 1 or np.all(values == values.flat[0])
    if np.any(array != values) or not (whole or x.shape[-1] == channels):
        raise refuse(eqn, [x], "scales and offsets may differ from channel to channel only")
    return np.full(channels, values.flat[0]) if whole else values


def _add(eqn: JaxprEqn, x: Input, y: Input) -> Value:
    if isinstance(x, Constant):
        x, y = y, x
    assert isinstance(x, Value)
    if isinstance(y, Constant):
        return x.shifted(_channels(eqn, x, y))
    _check_float(eqn, x)
    if x.shape != y.shape or x.node.shape != y.node.shape:
        raise refuse(eqn, [x, y], f"cannot add {list(x.shape)} and {list(y.shape)}")
    return Value.of(Sum(x.node.shape, _where(eqn), x, y), x.shape)


def _subtract(eqn: JaxprEqn, x: Input, y: Input) -> Value:
    return _add(eqn, x, _negate(eqn, y) if isinstance(y, Value) else y._replace(array=-y.array))


def _negate(eqn: JaxprEqn, x: Value) -> Value:
    _check_float(eqn, x)
    return x.scaled(-1)


def _multiply(eqn: JaxprEqn, x: Input, y: Input) -> Value:
    if isinstance(x, Constant):
        x, y = y, x
    assert isinstance(x, Value)
    if isinstance(y, Value):
        raise refuse(eqn, [x, y], "activations can be added, not multiplied with one another")
    return x.scaled(_channels(eqn, x, y))


def _divide(eqn: JaxprEqn, x: Input, y: Input) -> Value:
    if isinstance(y, Value) or isinstance(x, Constant):
        raise refuse(eqn, [x, y], "activations can be divided by constants only")
    divisor = _channels(eqn, x, y)
    return dataclasses.replace(x, scale=x.scale / divisor, offset=x.offset / divisor)


def _maximum(eqn: JaxprEqn, x: Input, y: Input) -> Value:
    if isinstance(x, Constant):
        x, y = y, x
    assert isinstance(x, Value)
    if isinstance(y, Value) or np.any(y.array):
        raise refuse(eqn, [x, y], "only max(x, 0), a relu, is possible")
    return _relu(eqn, x)


def _relu(eqn: JaxprEqn, x: Value) -> Value:
    node = x.node
    match node:
        case Relu() if (x.scale >= 0).all() and not x.offset.any():
            return x
        case MaxPool() if (x.scale > 0).all():  # which a relu commutes with
            before = node.x.scaled(x.scale).shifted(x.offset)
            return Value.of(dataclasses.replace(node, x=_relu(eqn, before)), x.shape)
        case Concat() if x.shape == node.shape:
            return _concat(eqn, *(_relu(eqn, part) for part in _parts(node, x)))
        case Layer():
            return Value.of(Relu(node.shape, _where(eqn), x), x.shape)
        case Sum() if x.plain:
            return Value.of(Relu(node.shape, _where(eqn), x), x.shape)
        case MaxPool():
            advice = (
                "some channels are multiplied by 0 or less (by a batch norm, say) between max"
                " pooling and relu: pool last"
            )
        case Sum():
            advice = (
                "a relu must follow a residual sum at once, with no batch norm, scale or bias in"
                " between (as pre-activation networks have it)"
            )
        case _:
            advice = (
                "a relu must follow a convolution, a dense product or a residual sum, with at most"
                " a batch norm or max pooling in between"
            )
    raise refuse(eqn, [x], advice)


def _same(eqn: JaxprEqn, x: Value) -> Value:
    return x


def _convert(eqn: JaxprEqn, x: Value, *_: Any) -> Value:
    before: Any = eqn.invars[0].aval
    old, new = before.dtype, _output(eqn).dtype
    if not jnp.issubdtype(new, jnp.inexact) and not np.can_cast(old, new):
        raise refuse(eqn, [x], f"{old} cannot become {new} without wrapping or rounding")
    return x


def _reshape(eqn: JaxprEqn, x: Value, *_: Any) -> Value:
    """Also of squeeze and of broadcast_in_dim, which puts in axes of length 1."""
    shape, node = _shape(eqn), x.node
    if math.prod(shape) != math.prod(x.shape):
        raise refuse(eqn, [x], f"activations {list(x.shape)} are repeated to {list(shape)}")
    if shape[:1] != node.shape[:1]:
        raise refuse(eqn, [x], f"the first axis of {list(shape)} does not count the images")
    if len(shape) == 2 and len(node.shape) == 4:
        return Value.of(Flatten(shape, _where(eqn), x))
    return dataclasses.replace(x, shape=shape)


def _strided_slice(eqn: JaxprEqn, x: Value) -> Value:
    _check_image(eqn, x)
    _, *strides, step = eqn.params["strides"] or (1, 1, 1, 1)
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    if any(starts) or limits != x.shape or step != 1 or len(_shape(eqn)) != 4:
        raise refuse(eqn, [x], _ADVICE["gather"])
    return Value.of(MaxPool(_shape(eqn), _where(eqn), x, (1, 1), _pair(strides), "VALID"))


def _pad(eqn: JaxprEqn, x: Input, zero: Input) -> Value:
    low, high, interior = zip(*eqn.params["padding_config"], strict=True)
    inputs = [x, zero]
    if isinstance(zero, Value) or isinstance(x, Constant) or np.any(zero.array):
        raise refuse(eqn, inputs, "activations can be padded with zeros only")
    if any(interior) or min(*low, *high) < 0 or low[0] or high[0] or x.shape != x.node.shape:
        raise refuse(eqn, inputs, "rows, columns and channels can be padded on the outside only")
    *pads, (before, after) = [_pair(pad) for pad in zip(low, high, strict=True)][1:]
    rows, columns = pads or ((0, 0), (0, 0))
    if before or after:
        shape = (*x.shape[:-1], before + x.shape[-1] + after)
        x = Value.of(PadChannels(shape, _where(eqn), x, before, after))
    if rows == columns == (0, 0):
        return x
    return Value.of(PadImage(_shape(eqn), _where(eqn), x, (rows, columns)))


def _concatenate(eqn: JaxprEqn, *parts: Input) -> Value:
    values = [part for part in parts if isinstance(part, Value)]
    if len(values) < len(parts):
        raise refuse(
            eqn, parts, "activations cannot be put together with constants; zeros: jnp.pad"
        )
    if any(len(part.shape) != 4 or part.shape != part.node.shape for part in values):
        advice = (
            "channels of images [B, H, W, C] can be put together, not what was averaged or dense"
        )
        raise refuse(eqn, parts, advice)
    if eqn.params["dimension"] != 3:
        raise refuse(eqn, parts, "activations can be put together along their channels only")
    return _concat(eqn, *values)


def _concat(eqn: JaxprEqn, x: Value, *others: Value) -> Value:
    channels = sum(part.shape[-1] for part in (x, *others))
    return Value.of(Concat((*x.shape[:-1], channels), _where(eqn), x, others))


def _parts(node: Concat, whole: Value) -> Iterator[Value]:
    """What was put together, with what is pending on the whole."""
    start = 0
    for part in (node.x, *node.others):
        channels = np.s_[start : start + part.shape[-1]]
        yield part.scaled(whole.scale[channels]).shifted(whole.offset[channels])
        start += part.shape[-1]


def _max_pool(eqn: JaxprEqn, x: Value) -> Value:
    _check_image(eqn, x)
    window, strides = _pooling(eqn, x)
    for padding in ("VALID", "SAME"):
        pads = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
        if tuple(map(tuple, pads)) == eqn.params["padding"][1:3]:
            return Value.of(MaxPool(_shape(eqn), _where(eqn), x, window, strides, padding))
    raise refuse(eqn, [x], "max pooling can be padded by SAME or VALID only")


def _pooling(eqn: JaxprEqn, x: Value) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and strides."""
    params = eqn.params
    (b, *window, c), (_, *strides, _) = params["window_dimensions"], params["window_strides"]
    dilations = (*params["base_dilation"], *params["window_dilation"])
    if (b, c) != (1, 1) or set(dilations) != {1} or set(params["padding"][::3]) != {(0, 0)}:
        raise refuse(eqn, [x], "windows of pooling span rows and columns, without gaps")
    return _pair(window), _pair(strides)


def _window_sum(eqn: JaxprEqn, x: Value) -> Value:
    _check_image(eqn, x)
    window, _ = _pooling(eqn, x)
    if window != x.shape[1:3] or _shape(eqn)[1:3] != (1, 1):
        raise refuse(eqn, [x], _AVERAGE)
    return _average(eqn, x)


def _sum(eqn: JaxprEqn, x: Value) -> Value:
    axes = tuple(eqn.params["axes"])
    if 0 in axes:
        advice = "statistics over the batch: call the network as for inference"
        raise refuse(eqn, [x], advice)
    if len(x.shape) - 1 in axes:
        advice = "a sum over channels, as in layer and group norm: use batch norm"
        raise refuse(eqn, [x], advice)
    if axes != (1, 2) or x.shape != x.node.shape:
        raise refuse(eqn, [x], _AVERAGE)
    return _average(eqn, x)


def _average(eqn: JaxprEqn, x: Value) -> Value:
    """The sum over an image; the division that makes it a mean follows."""
    batch, height, width, channels = x.shape
    _check_float(eqn, x)
    pool = AveragePool((batch, channels), _where(eqn), x)
    return Value.of(pool, _shape(eqn)).scaled(height * width)


def _dot(eqn: JaxprEqn, x: Input, kernel: Input) -> Value:
    (left, right), batch = eqn.params["dimension_numbers"]
    if isinstance(x, Value) and isinstance(kernel, Value):
        raise refuse(eqn, [x, kernel], "activations cannot be multiplied with one another")
    if isinstance(x, Constant) or isinstance(kernel, Value):
        raise refuse(eqn, [x, kernel], "write a dense layer as activations @ kernel")
    array = np.asarray(kernel.array, np.float64)
    if array.ndim != 2 or batch != ((), ()) or left != (len(x.shape) - 1,):
        advice = "a dense layer takes the last axis of its input times a kernel [K, C]"
        raise refuse(eqn, [x], advice)
    array = array.T if right == (1,) else array
    if len(x.shape) == 2:
        return _layer(eqn, x, kernel, array)
    return _layer(eqn, x, kernel, array[None, None], (1, 1), ((0, 0), (0, 0)))


def _conv(eqn: JaxprEqn, x: Input, kernel: Input) -> Value:
    params, inputs = eqn.params, [x, kernel]
    if isinstance(kernel, Value) or isinstance(x, Constant):
        raise refuse(eqn, inputs, "the kernel of a convolution must not depend on the images")
    name = f"layer {_layer_name(kernel.source)}"
    if len(x.shape) != 4:
        raise refuse(eqn, inputs, f"{name}: images have rows, columns and channels, no more")
    lhs, (outputs, channels, *window), out = params["dimension_numbers"]
    groups, features = params["feature_group_count"], kernel.array.shape[outputs]
    depthwise = groups == features == x.shape[-1] > 1
    if not (depthwise or groups == 1) or params["batch_group_count"] != 1:
        advice = (
            f"{name}: convolutions are full ones or depthwise ones of one filter per channel,"
            f" not of {groups} groups for {features} outputs: use one of these"
        )
        raise refuse(eqn, inputs, advice)
    if {*params["lhs_dilation"], *params["rhs_dilation"]} != {1}:
        advice = f"{name}: a convolution must be neither dilated nor transposed"
        raise refuse(eqn, inputs, advice)
    if not lhs == out == (0, 3, 1, 2):
        raise refuse(eqn, inputs, f"{name}: {_ADVICE['transpose']}")
    array = np.asarray(kernel.array, np.float64).transpose(*window, channels, outputs)
    rows, columns = params["padding"]
    if min(*rows, *columns) < 0:
        raise refuse(eqn, inputs, f"{name}: a convolution cannot cut its input (negative padding)")
    strides = _pair(params["window_strides"])
    padding = _pair(rows), _pair(columns)
    return _layer(eqn, x, kernel, array, strides, padding, depthwise=depthwise)


def _layer(
    eqn: JaxprEqn,
    x: Value,
    constant: Constant,
    kernel: np.ndarray,
    strides: tuple[int, int] = (1, 1),
    padding: Pads | tuple[()] = (),
    *,
    depthwise: bool = False,
) -> Value:
    """A product of activations and a kernel ``[K, C]``, HWIO or, of a depthwise layer, HW1C."""
    _check_float(eqn, x)
    shape, where, name = _shape(eqn), _where(eqn), _layer_name(constant.source)
    if padding and isinstance(x.node, PadImage):
        if x.offset.any():
            raise refuse(eqn, [x], "zeros around an image were shifted before the convolution")
        (top, bottom), (left, right) = x.node.pads
        (a, b), (c, d) = padding
        padding = ((top + a, bottom + b), (left + c, right + d))
        x = x.node.x.scaled(x.scale)
    pooled = x.shape == (x.node.shape[0], 1, 1, *x.node.shape[1:])  # kept its axes
    if pooled and kernel.shape[:-2] == (1, 1) and not np.any(padding) and not depthwise:
        dense = Layer((shape[0], shape[-1]), where, x, kernel[0, 0], name)
        return Value.of(dense, shape)
    if x.shape != x.node.shape:
        raise refuse(eqn, [x], f"layer {name}: {list(x.shape)} is neither an image nor flat")
    return Value.of(Layer(shape, where, x, kernel, name, strides, padding, depthwise))


def _layer_name(source: str) -> str:
    """The name of a layer from the path of its kernel: "params/stem/kernel" gives "stem"."""
    parts = [part for part in re.split(r"[/.]", source) if part]
    if parts[:1] == ["params"]:
        parts = parts[1:]
    if parts[-1:] == ["value"]:  # of a variable of flax.nnx
        parts = parts[:-1]
    return "/".join(parts[:-1] or parts) or "layer"


RULES: dict[str, Rule] = {
    "add": _add,
    "add_any": _add,
    "broadcast_in_dim": _reshape,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "convert_element_type": _convert,
    "copy": _same,
    "copy_p": _same,
    "div": _divide,
    "dot_general": _dot,
    "max": _maximum,
    "mul": _multiply,
    "name": _same,
    "neg": _negate,
    "pad": _pad,
    "reduce_sum": _sum,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _window_sum,
    "reshape": _reshape,
    "sharding_constraint": _same,
    "slice": _strided_slice,
    "squeeze": _reshape,
    "stop_gradient": _same,
    "sub": _subtract,
}

_SUPPORTED = (
    "networks are read that have convolutions and dense layers, batch norm as for inference, relu,"
    " max pooling, the mean over an image, residual sums, channels put together, flattening and"
    " padding with zeros"
)
_AVERAGE = "average over the whole image, x.mean((1, 2)), or pool by maximum"
_ACTIVATION = "the only activation that is read is relu; leave out a softmax behind the logits"
_ADVICE = {
    "gather": "every n-th row and column can be taken, x[:, ::n, ::n], but no other part",
    "reduce_max": f"{_ACTIVATION}, and pool with nn.max_pool",
    "transpose": "activations are [B, H, W, C] throughout: leave their axes as they are",
    **dict.fromkeys(("cond", "scan", "while"), "loops over activations must be unrolled"),
    **dict.fromkeys(("dynamic_slice", "split"), "activations cannot be cut into parts"),
    **dict.fromkeys(
        (
            *("abs", "argmax", "clamp", "erf", "erfc", "exp", "exp2", "expm1", "ge", "gt", "le"),
            *("integer_pow", "log", "log1p", "logistic", "lt", "min", "ne", "pow", "select_n"),
            *("sign", "square", "tanh"),
        ),
        _ACTIVATION,
    ),
}


def advise(eqn: JaxprEqn) -> str:
    """What to do about an operation without a rule."""
    return _ADVICE.get(eqn.primitive.name, _SUPPORTED)

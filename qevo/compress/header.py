"""What a compressed file says of a network apart from its numbers: a few bytes of JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from qevo.compress.coder import MAX_SIDE
from qevo.compress.errors import CompressedFileError
from qevo.errors import QevoError
from qevo.nets.arithmetic import LayerArithmetic, accumulator_bound, layer_arithmetic, levels
from qevo.nets.file import describe
from qevo.nets.network import QuantizedNetwork

MAX_HEADER = 1 << 18  # bytes of JSON
_MAX_NAME = 1 << 10  # characters
_MAX_OPERATION = 1 << 10  # numbers of one constant of an operation without weights
KEYS = ("bias", "multiplier", "shift")  # constants of a layer

# Deflate finds these bytes without their being in the file. A change is another file version.
_DICTIONARY = (
    b'"about":{"cifar10""fashion_mnist""data":"mnist","test accuracy":0."validation accuracy":0.9}'
    b'"traced""fields":{"vgg_16""resnet_56""resnet_32""resnet_20""blocks":1,"classes":10,"padding":'
    b'[[1,1],[1,1]],"shortcut":"A","shortcut_batch_norm":true,"widths":[16,32,64]},"name":"resnet_8"}'
    b'["stem",4,[3,3,3,16],[-127,127,0,127]],["block_0_0/conv_0",4,[3,3,16,16],[0,127,0,127]],'
    b'["block_1_0/conv_1",4,[3,3,32,32],[0,127,-127,127]],["block_1_0/shortcut",4,[1,1,16,32],'
    b'["block_2_0/conv_0","ternary",[3,3,32,64],[0,127,0,127]],["block_2_0/conv_1","ternary",'
    b'[3,3,64,64],[0,127,-127,127]],["block_2_0/shortcut","ternary",[1,1,32,64],["conv_9",4,[3,3,128,'
    b'256],["operations":[["block_2_0/add",0,127,{"left":[2],"right":[]}],["input",-127,127,{"bias":'
    b'[3],"multiplier":[3],"shift":[]}],["pool",0,127,{"multiplier":[],"shift":[]}]]}'
    b'{"activation_bits":8,"architecture":{"fields":{"channels":[6,16],"classes":10,"hidden":[120,84],'
    b'"padding":"SAME"},"name":"lenet_5"},"fields":{"classes":10,"hidden":[300,100]},'
    b'"name":"lenet_300_100"},"fraction_bits":20,"image_shape":[32,32,3],"layers":[["conv_0",3,[5,5,1,'
    b'6],[0,127,0,127]],["conv_1",4,[5,5,6,16],[0,127,0,127]],["dense_0",3,[400,120],[0,127,0,127]],'
    b'["dense_1",2,[120,84],[0,127,0,127]],["dense_0","ternary",[784,300],[0,127,0,127]],["dense_1",'
    b'"ternary",[300,100],[0,127,0,127]],["logits","ternary",[100,10],[0,127,20000,40000000],'
    b'["bias","multiplier"]]],"fraction_bits":18,"image_shape":[28,28,1],"operations":[["input",0,127,'
    b'{"bias":[1],"multiplier":[1],"shift":[]}]]}'
)


class LayerHeader(NamedTuple):
    """A layer with weights.

    Attributes:
      name: its path in the architecture.
      bits: "ternary" or 2 to 8.
      shape: of the kernel.
      facts: its limits.
      keys: its constants, all int32 ``[C]``.
    """

    name: str
    bits: str | int
    shape: tuple[int, ...]
    facts: LayerArithmetic
    keys: tuple[str, ...]


class Operation(NamedTuple):
    """What has constants and no weights: the input, a residual sum, an average pool."""

    name: str
    low: int
    high: int
    shapes: Mapping[str, tuple[int, ...]]  # of its constants, by key


@dataclasses.dataclass(frozen=True)
class Header:
    """Everything of a network but weights, constants and scales.

    Attributes:
      architecture: as in a network's safetensors file.
      image_shape: ``(H, W, C)``.
      layers: in the order of computation.
      operations: by name.
      fraction_bits, activation_bits: as in `QuantizedNetwork`.
      scales: the names of the activations that have one; the numbers are elsewhere in the file.
      about: what the network was measured at, and whatever else its maker says.
    """

    architecture: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    layers: tuple[LayerHeader, ...]
    operations: tuple[Operation, ...]
    fraction_bits: int
    activation_bits: int
    scales: tuple[str, ...]
    about: Mapping[str, str | float]

    def constants(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Shapes of all constants by name and key, in the order of the file."""
        shapes = {(o.name, key): s for o in self.operations for key, s in o.shapes.items()}
        for layer in self.layers:
            shapes |= {(layer.name, key): layer.shape[-1:] for key in layer.keys}
        return shapes


def header_of(network: QuantizedNetwork, about: Mapping[str, str | float]) -> Header:
    """The header of a network.

    Raises:
      QevoError: weights or constants of nothing in the network, a scale that is not a positive
        number, or ``about`` with something else than text and numbers.
    """
    known = {*network.layers, *network.ranges}
    odd = ({*network.weights} - {*network.layers}) | ({*network.constants} - known)
    if odd:
        raise QevoError(f"the network has weights or constants of unknown layers: {sorted(odd)}")
    if not all(math.isfinite(scale) and scale > 0 for scale in network.scales.values()):
        raise QevoError(f"scales must be positive numbers, got {dict(network.scales)}")
    try:
        about = {_text(key): _said(value) for key, value in sorted(about.items())}
    except TypeError as error:
        raise QevoError(f"what a file says about its network: {error}") from None
    constants = {
        name: {key: np.shape(value) for key, value in sorted(part.items())}
        for name, part in sorted(network.constants.items())
    }
    layers = []
    for name, facts in network.layers.items():
        shape = tuple(network.weights[name].shape)
        layers.append(LayerHeader(name, network.bits[name], shape, facts, tuple(constants[name])))
    operations = [Operation(n, *network.ranges[n], constants[n]) for n in sorted(network.ranges)]
    return Header(
        architecture=describe(network.module),
        image_shape=network.image_shape,
        layers=tuple(layers),
        operations=tuple(operations),
        fraction_bits=network.fraction_bits,
        activation_bits=network.activation_bits,
        scales=tuple(sorted(network.scales)),
        about=about,
    )


def pack_header(header: Header) -> bytes:
    """JSON, deflated with a dictionary that knows its words.

    Raises:
      QevoError: a header that `unpack_header` would refuse.
    """
    fields = {
        "activation_bits": header.activation_bits,
        "architecture": header.architecture,
        "fraction_bits": header.fraction_bits,
        "image_shape": header.image_shape,
        "layers": [_pack_layer(layer) for layer in header.layers],
        "operations": [[o.name, o.low, o.high, dict(o.shapes)] for o in header.operations],
    }
    if header.scales != _usual_scales(header.layers, header.operations):
        fields["scales"] = header.scales
    if header.about:
        fields["about"] = header.about
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    if len(text) >= MAX_HEADER:
        raise QevoError(
            f"what a file says apart from its numbers takes {len(text)} bytes, and must be less"
            f" than {MAX_HEADER}: say less about the network"
        )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=_DICTIONARY)
    packed = deflate.compress(text) + deflate.flush()
    try:
        unpack_header(packed)
    except CompressedFileError as error:
        raise QevoError(f"no reader would take the file: {error}") from None
    return packed


def unpack_header(data: bytes) -> Header:
    """The header of these bytes.

    Raises:
      CompressedFileError: bytes that are no header, or one beyond the limits.
    """
    inflate = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        text = inflate.decompress(data, MAX_HEADER)
        if not inflate.eof or inflate.unused_data:
            raise CompressedFileError(f"a header of more than {MAX_HEADER} bytes, or cut short")
        return _unpack(json.loads(text))
    except CompressedFileError:
        raise
    except _DAMAGE as error:
        raise CompressedFileError(f"the header does not describe a network: {error!r}") from None


# What Python raises where JSON of another form is taken apart, and what limits refuse.
_DAMAGE = (
    QevoError,
    zlib.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def _unpack(fields: dict[str, Any]) -> Header:
    layers = tuple(_unpack_layer(*entry) for entry in fields["layers"])
    operations = tuple(_unpack_operation(*entry) for entry in fields["operations"])
    height, width, channels = _shape(fields["image_shape"])
    scales = tuple(map(_text, fields.get("scales", _usual_scales(layers, operations))))
    for names in ([x.name for x in (*layers, *operations)], scales):
        if len(set(names)) < len(names):
            raise ValueError("a name twice")
    fraction_bits, activation_bits = fields["fraction_bits"], fields["activation_bits"]
    if not 0 <= _integer(fraction_bits) < 31 or _integer(activation_bits) not in (4, 8):
        raise ValueError(f"{fraction_bits} fraction bits, activations of {activation_bits} bits")
    if not isinstance(fields["architecture"]["name"], str):
        raise ValueError("an architecture without a name")
    return Header(
        architecture=fields["architecture"],
        image_shape=(height, width, channels),
        layers=layers,
        operations=operations,
        fraction_bits=fraction_bits,
        activation_bits=activation_bits,
        scales=scales,
        about={_text(key): _said(value) for key, value in fields.get("about", {}).items()},
    )


def _usual_scales(
    layers: Sequence[LayerHeader], operations: Sequence[Operation]
) -> tuple[str, ...]:
    """All but the last layer, whose output has no int8 unit."""
    inner = [layer.name for layer in layers if "shift" in layer.keys]
    return tuple(sorted([*inner, *(operation.name for operation in operations)]))


def _pack_layer(layer: LayerHeader) -> list[Any]:
    """Name, bits, shape, limits; and the constants where there are others than `KEYS`."""
    facts = dataclasses.astuple(layer.facts)
    for short in (facts[2:6], (*facts[2:4], *facts[6:8])):
        try:
            found = _facts(layer.name, layer.bits, layer.shape, short, layer.keys)
        except QevoError:
            continue
        if found == layer.facts:
            facts = short
            break
    keys = [] if layer.keys == KEYS else [layer.keys]
    return [layer.name, layer.bits, layer.shape, facts, *keys]


def _unpack_layer(name: Any, bits: Any, shape: Any, facts: Any, keys: Any = KEYS) -> LayerHeader:
    shape, keys = _shape(shape), tuple(_text(key) for key in keys)
    if len(shape) not in (2, 4):
        raise ValueError(f"{name}: weights of shape {list(shape)}")
    if not {*keys} <= {*KEYS}:
        raise ValueError(f"{name}: constants {list(keys)}")
    bits = bits if isinstance(bits, str) else _integer(bits)
    levels(bits, _text(name))  # refuses others
    facts = _facts(_text(name), bits, shape, facts, keys)
    return LayerHeader(name, bits, shape, facts, keys)


def _facts(
    name: str, bits: str | int, shape: tuple[int, ...], facts: Sequence[Any], keys: tuple[str, ...]
) -> LayerArithmetic:
    """A layer's limits: all of them, or the four that the usual others follow from.

    Those are the ranges of input and output or, for a last layer, which has no shift, the range of
    the input and the limits of multiplier and bias.
    """
    if len(facts) != 4:
        *numbers, wide = facts
        return LayerArithmetic(*map(_integer, numbers), wide=bool(wide))
    low, high, third, fourth = map(_integer, facts)
    fan_in, weights = math.prod(shape[:-1]), levels(bits, name)
    if "shift" in keys:
        return layer_arithmetic(
            name, fan_in, weights=weights, inputs=(low, high), outputs=(third, fourth)
        )
    bound = accumulator_bound(name, fan_in, weights, (low, high))
    reach = bound * third + fourth
    return LayerArithmetic(*weights, low, high, -reach, reach, third, fourth, bound, False)


def _unpack_operation(name: Any, low: Any, high: Any, shapes: Any) -> Operation:
    known = {_text(key): _shape(shape) for key, shape in shapes.items()}
    if any(math.prod(shape) > _MAX_OPERATION for shape in known.values()):
        raise ValueError(f"{name}: constants of {known}")
    return Operation(_text(name), _integer(low), _integer(high), known)


def _integer(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 62:
        raise TypeError(f"{value!r} is no integer of 62 bits")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise TypeError(f"{str(value)[:60]!r} is no name")
    return value


def _said(value: Any) -> str | float:
    if not isinstance(value, str | int | float) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise TypeError(f"{value!r} is neither text nor a number")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(_integer(side) for side in value)
    if len(shape) > 4 or not all(1 <= side <= MAX_SIDE for side in shape):
        raise ValueError(f"a shape {value!r} is beyond {MAX_SIDE} a side")
    return shape

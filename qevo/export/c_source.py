"""A quantized network as one C99 file without floats, libraries or allocation."""

from __future__ import annotations

import importlib.metadata
import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from qevo.export.c_functions import FUNCTIONS, MAIN
from qevo.export.memory import place
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
    Upsample,
    steps_of,
)
from qevo.nets.network import QuantizedNetwork
from qevo.nets.packing import field_bits, pack

WIDTH = 100


class CSource(NamedTuple):
    """The text, and what it takes on a device."""

    text: str
    flash: int  # bytes of constants
    ram: int  # bytes of activations


def c_source(network: QuantizedNetwork) -> CSource:
    """The network as a C header: ``void qevo_run(const uint8_t *image, int32_t *output)``.

    Plain loops over int8 with int32 accumulators, the reference that a tuned kernel is to equal.
    Weights take 2 bits where all levels of a layer lie in -2..1, 4 bits in -8..7, else 8; images
    are read ``[H, W, C]``. With ``QEVO_MAIN`` defined the file is a program that reads images from
    standard input and prints a line of outputs for each.
    """
    steps = steps_of(network)
    layout = place(steps)
    constants: list[str] = []
    calls: list[str] = []
    flash = 0

    def array(kind: str, name: str, values: np.ndarray) -> str:
        nonlocal flash
        flash += values.nbytes
        constants.append(f"static const {kind} {name}[{values.size}] = {{\n{_numbers(values)}\n}};")
        return name

    begins = {steps[-1].name: 0}
    if isinstance(steps[-1], Outputs):
        sizes = [x.size for x in steps[-1].inputs]
        starts = itertools.accumulate(sizes, initial=0)
        begins |= {x.name: start for x, start in zip(steps[-1].inputs, starts, strict=False)}

    def at(tensor: str) -> str:
        if tensor in layout.offsets:
            return f"qevo_memory + {layout.offsets[tensor]}"
        return f"output + {begins[tensor]}" if begins[tensor] else "output"

    for number, step in enumerate(steps):
        if isinstance(step, Outputs):
            continue  # its maps are where they belong
        x = [at(t.name) for t in step.inputs if t.name in layout.offsets]
        words = _call(step, f"qevo_{number}", x, at(step.name), array)
        calls.append(f"  /* {_comment(step)} */\n  {words}")
    height, width, channels = network.image_shape
    outputs = steps[-1].output.size
    unit = UNITS[network.head]
    parts = [
        f"""/* A network written by qevo {importlib.metadata.version("qevo")}: integers only, C99.
 *
 * image: uint8 [{height}][{width}][{channels}]; output: int32 [{outputs}], of which
 * 2^{network.fraction_bits} is one {unit}.
 * constants: {flash:,} bytes; activations: {layout.size:,} bytes.
 */
#ifndef QEVO_NETWORK_H
#define QEVO_NETWORK_H

#include <limits.h>
#include <stdint.h>

#if INT_MAX < 2147483647
#error "sums and places need an int of 32 bits"
#endif

#define QEVO_INPUTS {height * width * channels}
#define QEVO_OUTPUTS {outputs}
#define QEVO_FRACTION_BITS {network.fraction_bits}
""",
        _used(FUNCTIONS, calls),
        *constants,
        f"static int8_t qevo_memory[{layout.size}];\n",
        "static void qevo_run(const uint8_t *image, int32_t *output) {",
        *calls,
        "}\n",
        MAIN,
        "#endif",
    ]
    return CSource("\n".join(parts) + "\n", flash, layout.size)


def _call(step: Step, name: str, x: list[str], y: str, array) -> str:
    """One step as a call; what it needs is declared by ``array``."""
    if isinstance(step, Input):
        table = array("int8_t", f"{name}_table", np.ascontiguousarray(step.table.T))
        return f"qevo_input(image, {table}, {_shape(step.output.shape)}, {y});"
    if isinstance(step, Multiply):
        return _product(step, name, x[0], y, array)
    shape = _shape(step.inputs[0].shape)
    if isinstance(step, Add):
        (a, b), count = step.left, step.output.size
        numbers = f"{a}, {b}, {step.right}, {step.low}, {step.high}"
        return f"qevo_add({x[0]}, {x[1]}, {count}, {numbers}, {y});"
    if isinstance(step, Average):
        numbers = f"{step.multiplier}, {step.shift}, {step.low}, {step.high}"
        return f"qevo_average({x[0]}, {shape}, {numbers}, {y});"
    if isinstance(step, MaxPool):
        (top, _), (left, _) = step.pads
        sizes = (*step.window, *step.strides, top, left, *step.output.shape[:2])
        return f"qevo_max_pool({x[0]}, {shape}, {_list(sizes)}, {y});"
    if isinstance(step, PadChannels):
        pixels = step.inputs[0].size // step.inputs[0].shape[-1]
        sizes = (pixels, step.inputs[0].shape[-1], step.before, step.after)
        return f"qevo_pad_channels({x[0]}, {_list(sizes)}, {y});"
    if isinstance(step, Upsample):
        return f"qevo_upsample({x[0]}, {shape}, {step.factor}, {y});"
    if isinstance(step, Concat):
        *sides, total = step.output.shape
        calls, first = [], 0
        for part, tensor in zip(x, step.inputs, strict=True):
            sizes = (math.prod(sides), tensor.shape[-1], first, total)
            calls.append(f"qevo_place({part}, {_list(sizes)}, {y});")
            first += tensor.shape[-1]
        return "\n  ".join(calls)
    assert isinstance(step, Flatten)
    return f"qevo_copy({x[0]}, {step.output.size}, {y});"


def _product(step: Multiply, name: str, x: str, y: str, array) -> str:
    channels = step.kernel.shape[-1]
    by_channel = step.kernel.reshape(-1, channels).T  # [C, K], each channel's weights in a row
    least = field_bits(int(by_channel.min()), int(by_channel.max()))
    bits = min(size for size in (2, 4, 8) if size >= least)  # of which a byte holds whole ones
    weights = array("uint8_t", f"{name}_weights", pack(by_channel, bits))
    multiplier = array("int32_t", f"{name}_multiplier", step.multiplier.astype(np.int32))
    bias = array("int32_t", f"{name}_bias", step.bias.astype(np.int32))
    shape = step.inputs[0].shape if step.layer.kind == "conv" else (1, 1, step.inputs[0].size)
    (top, _), (left, _) = step.pads
    window = step.layer.kernel or (1, 1)
    rows = step.output.shape[:2] if step.layer.kind == "conv" else (1, 1)
    sizes = (*shape, *window, *step.layer.strides, top, left, *rows, channels)
    own = int(step.layer.depthwise)
    data = f"{weights}, {bits}, {multiplier}, {bias}"
    where = f"{x}, {_list(sizes)}, {own}, {data}"
    if step.shift is None:
        return f"qevo_last({where}, {y});"
    shift = array("uint8_t", f"{name}_shift", step.shift.astype(np.uint8))
    leaky = int(step.layer.activation == "leaky")
    limits = f"{step.facts.output_low}, {step.facts.output_high}"
    return f"qevo_product({where}, {shift}, {leaky}, {limits}, {y});"


def _used(functions: Iterable[tuple[str, str]], calls: list[str]) -> str:
    """The functions that are called, and those that these call, in the order of definition."""
    text = "\n".join(calls)
    kept: list[str] = []
    for name, body in reversed(list(functions)):
        if f"{name}(" in text:
            kept.append(body)
            text += body
    return "\n".join(reversed(kept))


def _comment(step: Step) -> str:
    name = step.name.replace("*", "")  # nothing that ends a comment
    return f"{name}: {' x '.join(map(str, step.output.shape))}"


def _shape(shape: tuple[int, ...]) -> str:
    return _list((1,) * (3 - len(shape)) + shape)


def _list(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sizes))


def _numbers(values: np.ndarray) -> str:
    lines, line = [], ""
    for value in values.reshape(-1).tolist():
        word = f"{value},"
        if len(line) + len(word) > WIDTH:
            lines.append(line)
            line = ""
        line += word
    return "\n".join([*lines, line])

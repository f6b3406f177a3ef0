"""A quantized network as a safetensors file whose weights take their bits, for any other reader."""

from __future__ import annotations

import os
import pathlib
import tempfile

import numpy as np
from flax import linen as nn

from qevo.errors import QevoError
from qevo.export.steps import Multiply, steps_of
from qevo.nets.file import PACKED_VERSION, header_of, load_safetensors, serialized, tensors_of
from qevo.nets.network import QuantizedNetwork
from qevo.nets.packing import field_bits, pack


def packed_file(network: QuantizedNetwork) -> bytes:
    """The network as a safetensors file; equal networks give equal bytes.

    Tensors are those of the network file, but ``weights:LAYER`` is uint8, fields as
    `qevo.nets.packing.pack` lays them, and there are two more for each layer, float32 ``[C]``:
    ``scale:LAYER``, so that ``levels * scale`` are real weights, and ``bias:LAYER``, a real bias.
    The metadata says in ``packed.layers``, in the order of computation, each layer's ``name``,
    ``shape`` (``[K, C]`` or HWIO), ``bits`` of a field, and ``scheme``: "ternary" or "integer".

    Raises:
      QevoError: an operation that `steps_of` does not know.
    """
    tensors, layers = tensors_of(network), []
    scales: dict[str, float] = {}  # of each tensor
    for step in steps_of(network):
        inherited = scales.get(step.inputs[0].name, 1.0)
        scales[step.name] = network.scales.get(step.name, inherited)
        if not isinstance(step, Multiply):
            continue
        name = step.name
        if step.shift is None:
            unit = network.output_scale  # of the bias, and of a product with the multiplier
            scale = step.multiplier * unit / inherited
            bias = step.bias * unit
        else:
            scale = step.multiplier / 2.0**step.shift * scales[name] / inherited
            bias = step.bias * scale * inherited
        bits = field_bits(step.facts.weight_low, step.facts.weight_high)
        tensors[f"weights:{name}"] = pack(step.kernel, bits)
        tensors[f"scale:{name}"] = scale.astype(np.float32)
        tensors[f"bias:{name}"] = bias.astype(np.float32)
        scheme = "ternary" if network.bits[name] == "ternary" else "integer"
        shape = list(step.kernel.shape)
        layers.append({"name": name, "bits": bits, "shape": shape, "scheme": scheme})
    packed = {"version": PACKED_VERSION, "layers": layers}
    return serialized(header_of(network) | {"packed": packed}, tensors)


def read_packed(path: str | os.PathLike[str], module: nn.Module | None = None) -> QuantizedNetwork:
    """The network that `packed_file` wrote, with the same bits; `qevo.load` reads it too.

    Raises:
      QevoError: as `qevo.load`.
    """
    return load_safetensors(path, module)


def packed_difference(network: QuantizedNetwork, data: bytes) -> str | None:
    """The first tensor or setting that a packed file does not give back, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.safetensors"
        path.write_bytes(data)
        try:
            found = read_packed(path, network.module)
        except QevoError as error:
            return str(error).removeprefix(f"{path}: ")
    ours, theirs = tensors_of(network), tensors_of(found)
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs or not _same(ours[name], theirs[name]):
            return name
    settings = (serialized(header_of(one), {}) for one in (network, found))
    return None if len(set(settings)) == 1 else "the metadata"


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def field_bytes(network: QuantizedNetwork) -> int:
    """The bytes of all weights in the file, a ternary one in a field of two bits.

    `qevo.quantize.sensitivity.packed_bytes` counts five ternary ones to a byte.
    """
    limits = {name: (facts.weight_low, facts.weight_high) for name, facts in network.layers.items()}
    return sum(
        -(-np.size(w) * field_bits(*limits[name]) // 8) for name, w in network.weights.items()
    )

"""The float initializers of an ONNX model, under the names that torch's state dict has for them.

An initializer's data lies in its message, as raw bytes or in a field of its type, or in a file
beside the model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError

# By TensorProto.DataType: the element, the field that holds elements, and the type of that field's.
_FLOATS: dict[int, tuple[np.dtype[Any], str, Any]] = {
    1: (np.dtype("<f4"), "float_data", np.float32),
    10: (np.dtype("<f2"), "int32_data", np.uint16),  # as the bits of each
    11: (np.dtype("<f8"), "double_data", np.float64),
    16: (np.dtype(jnp.bfloat16), "int32_data", np.uint16),
}
_WIDE = {6, 7, 9, 12, 13}  # int32, int64, bool and their like: shapes and indices, no weights
_EXTERNAL = 1  # TensorProto.EXTERNAL
_PRODUCTS = ("Conv", "Gemm", "MatMul")


def read_onnx(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The float initializers of a model by name, in the order in which its operations use them.

    Torch's export folds a batch norm into the convolution before it, whose weight and bias are then
    called "onnx::Conv_42", and transposes the weight of a linear layer without bias. Both get back
    the name that the operation's scope has for them ("layer1.0.conv1.weight"), and the second its
    layout. Of an operation without a scope, weight and bias are named after the weight.

    Raises:
      QevoError: the package onnx is not there; no float initializers; weights of other types;
        data that is not there, not all there, or in a file outside the model's folder. Of damaged
        files, whatever protobuf raises.
    """
    path = Path(path)
    model = _model(path)
    graph = model.graph
    if graph.sparse_initializer:
        raise QevoError("an ONNX model with sparse initializers; qevo reads dense ones")
    arrays: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if tensor.name in arrays:
            raise QevoError(f"an ONNX model with two initializers called {tensor.name}")
        if tensor.data_type in _FLOATS:
            arrays[tensor.name] = _array(tensor, path.parent)
        elif tensor.data_type not in _WIDE and len(tensor.dims) > 1:
            kind = tensor.DataType.Name(tensor.data_type)
            raise QevoError(
                f"an ONNX model whose weights are no floats: {tensor.name} {list(tensor.dims)} has"
                f" type {kind}; refine the float model that it was made from"
            )
    if not arrays:
        raise QevoError(
            "an ONNX model without float initializers, which hold the weights (cut short, or "
            "exported without its parameters?)"
        )
    return _as_torch_has_them(model, arrays)


def external_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files beside a model that its initializers lie in, each once.

    Raises:
      QevoError: as `read_onnx`.
    """
    path = Path(path)
    tensors = [t for t in _model(path).graph.initializer if t.data_location == _EXTERNAL]
    return list(dict.fromkeys(_beside(path.parent, _entries(tensor), tensor) for tensor in tensors))


def _model(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise QevoError(
            "reading ONNX needs the package onnx: pip install -e '.[export]' in qevo's checkout"
        ) from None
    return onnx.ModelProto.FromString(path.read_bytes())


def _array(tensor: Any, folder: Path) -> np.ndarray:
    """A tensor's elements in its shape; nothing is allocated before their number is known."""
    dtype, field, kind = _FLOATS[tensor.data_type]
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0:
        raise QevoError(f"the initializer {tensor.name} has the shape {list(shape)}")
    count = math.prod(shape)
    if tensor.data_location == _EXTERNAL:
        values = np.frombuffer(_external(tensor, folder, count * dtype.itemsize), dtype)
    elif tensor.raw_data:
        whole = len(tensor.raw_data) // dtype.itemsize
        values = np.frombuffer(tensor.raw_data, dtype, whole)
    else:
        values = np.array(getattr(tensor, field), kind).view(dtype)
    if values.size != count:
        raise QevoError(
            f"the initializer {tensor.name} {list(shape)} should have {count:,} elements, and "
            f"{values.size:,} are there"
        )
    return values.reshape(shape).copy()


def _external(tensor: Any, folder: Path, size: int) -> bytes:
    entries = _entries(tensor)
    file = _beside(folder, entries, tensor)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise QevoError(f"the initializer {tensor.name} has no numbers for its place") from None
    if not file.is_file():
        raise QevoError(f"the initializer {tensor.name} lies in {file}, which does not exist")
    there = file.stat().st_size
    if length != size or offset < 0 or offset + size > there:
        raise QevoError(
            f"the initializer {tensor.name} {list(tensor.dims)} should be {size:,} bytes, and is "
            f"said to be {length:,} at {offset:,} of the {there:,} in {file}"
        )
    with file.open("rb") as data:
        data.seek(offset)
        return data.read(size)


def _entries(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _beside(folder: Path, entries: dict[str, str], tensor: Any) -> Path:
    """The file that a tensor's entries name; a link may not lead out of the folder either."""
    location = entries.get("location", "")
    if not location or "\0" in location:
        raise QevoError(f"the initializer {tensor.name} does not say which file it lies in")
    file = folder / location
    if not file.resolve().is_relative_to(folder.resolve()):
        raise QevoError(
            f"the initializer {tensor.name} lies in {location!r}, outside the model's folder; copy "
            "that file beside the model if you trust it"
        )
    return file


def _as_torch_has_them(model: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By torch's names, in its layout, in the order of use; what no operation uses comes last."""
    by_torch = model.producer_name == "pytorch"
    names: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in _PRODUCTS and len(node.input) > 1 and node.input[1] in arrays:
            weight = node.input[1]
            if weight in names:  # used twice
                continue
            if by_torch and node.op_type == "MatMul" and arrays[weight].ndim == 2:
                arrays[weight] = arrays[weight].T.copy()
            layer = _layer(weight, node.name if by_torch else "")
            names[weight] = f"{layer}.weight"
            bias = node.input[2] if len(node.input) > 2 else ""
            if bias in arrays:
                names.setdefault(bias, f"{layer}.bias")
        else:
            names |= {name: name for name in node.input if name in arrays and name not in names}
    names |= {name: name for name in arrays if name not in names}
    if len(set(names.values())) < len(names):  # scopes that are no layers
        names = {name: name for name in names}
    return {new: arrays[name] for name, new in names.items()}


def _layer(weight: str, node: str) -> str:
    """The layer of a weight: as it is called, or as torch called the scope of its operation."""
    layer, _, part = weight.rpartition(".")
    if part == "weight" and layer:
        return layer
    return ".".join(_scope(node)) or weight


def _scope(node: str) -> Iterator[str]:
    """The modules around an operation "/layer1/layer1.0/conv1/Conv": layer1.0, conv1."""
    before = ""
    for part in [*node.split("/")[1:-1], ""]:
        if before and not part.startswith(f"{before}."):
            yield before
        before = part

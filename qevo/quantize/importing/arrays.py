"""The named arrays of a checkpoint file, whatever its format."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors

from qevo.errors import QevoError
from qevo.quantize.importing.onnx_file import external_files, read_onnx
from qevo.quantize.importing.torch_file import (
    LEGACY_MAGIC,
    is_torch_zip,
    read_torch_legacy,
    read_torch_zip,
)

_FORMATS = "npz, safetensors, torch or ONNX file"
_SAFETENSORS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_ONNX_START = b"\x08"  # the field of a model's version, which comes first
_OTHERS = (
    (b"\x93NUMPY", "one array without a name"),
    (b"\x89HDF", "HDF5, as Keras writes it"),
    (b"\x80", "a pickle, but not torch's"),
    (b"", "another format"),
)
_WRAPPERS = ("module.", "_orig_mod.", "module.")  # DataParallel, torch.compile; either outside


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an npz, safetensors, torch or ONNX file by name, in the order of the file.

    The format is told by the content. A torch file is read without torch and without running
    anything that it asks for (`qevo.quantize.importing.torch_file`). Of an ONNX model these are the
    float initializers, by torch's names and in the order of use
    (`qevo.quantize.importing.onnx_file`). Float16 and bfloat16 become float32, all other types
    stay. A prefix "module." or "_orig_mod." that all names share is left out.

    Raises:
      QevoError: if the file does not exist, has another format, is damaged, is a torch file that
        needs more than tensors or holds no state dict, or an ONNX model that is quantized or whose
        weights are not there.
    """
    path = Path(path)
    if not path.is_file():
        raise QevoError(f"no such file: {path}")
    try:
        arrays = _read(path)
    except QevoError as error:
        raise QevoError(f"{path}: {error}") from None
    except Exception as error:  # zipfile and pickle raise anything when the bytes are damaged
        raise QevoError(f"{path}: not a readable {_FORMATS} (cut short?): {error}") from None
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return {name: _widened(array) for name, array in arrays.items()}


def checkpoint_files(path: str | os.PathLike[str]) -> list[Path]:
    """The file, and those beside it that an ONNX model keeps its weights in.

    Raises:
      QevoError: as `read_arrays`, for an ONNX model.
    """
    path = Path(path)
    return [path, *(external_files(path) if _is_onnx(path, _head(path)) else [])]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _is_safetensors(head: bytes) -> bool:
    return head[4:9] == b"\0\0\0\0{"  # the length of a JSON header, and the header


def _is_onnx(path: Path, head: bytes) -> bool:
    """Whether a file of no other format is an ONNX model, which has no mark of its own."""
    named = path.suffix == ".onnx" and not head.startswith((b"PK", b"\x80")) and head != b""
    return (named or head.startswith(_ONNX_START)) and not _is_safetensors(head)


def _read(path: Path) -> dict[str, np.ndarray]:
    head = _head(path)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            if is_torch_zip(archive):
                return read_torch_zip(archive)
        return _read_npz(path)
    if LEGACY_MAGIC in head:
        return read_torch_legacy(path)
    if _is_safetensors(head):
        return _read_safetensors(path)
    if _is_onnx(path, head):
        return read_onnx(path)
    found = next(what for start, what in _OTHERS if head.startswith(start)) if head else "empty"
    raise QevoError(f"not a readable {_FORMATS}, but {found}; numpy.savez writes an npz")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy gives the bytes of other members
            raise QevoError(f"not a readable {_FORMATS}: a zip archive with {name!r}, no array")
    return arrays


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    entries = dict(safetensors.deserialize(content))  # in no order
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays = {}
    for name in sorted(entries, key=lambda name: (header[name]["data_offsets"], name)):
        entry = entries[name]
        if entry["dtype"] not in _SAFETENSORS:
            raise QevoError(f"{name} is {entry['dtype']}; qevo reads {', '.join(_SAFETENSORS)}")
        values = np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return arrays


def _widened(array: np.ndarray) -> np.ndarray:
    narrow = array.dtype in (np.float16, jnp.bfloat16)
    return array.astype(np.float32) if narrow else array

"""The state dict of a torch checkpoint, read without torch and without running what it says.

A torch file is a pickle in which a tensor is a call of ``torch._utils._rebuild_tensor_v2`` on a
storage. The bytes of the storages are members of the same zip archive (torch 1.6 and later) or
follow the pickle (before).
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from qevo.errors import QevoError

LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # pickled; begins a file older than 1.6
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_CONTAINERS = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": dict,
    "builtins.set": set,
    "__builtin__.set": set,
}
_IGNORED = {  # found beside a state dict in checkpoints of a training
    "_codecs.encode",
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
}
_STATE_DICTS = ("state_dict", "model_state_dict", "model", "net")
_ADVICE = "torch.save(model.state_dict(), path) writes a file that can be read"


def is_torch_zip(archive: zipfile.ZipFile) -> bool:
    """Whether a zip archive is a torch file."""
    return any(name.endswith("/data.pkl") for name in archive.namelist())


def read_torch_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, in the order of the file.

    A state dict is also found under "state_dict", "model_state_dict", "model" or "net"; what is no
    tensor is left out.

    Raises:
      QevoError: if the file needs more than tensors and containers, or holds no state dict. Of
        damaged files, whatever zipfile and pickle raise.
    """
    members = archive.namelist()
    root = next(name for name in members if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise QevoError(f"a torch file of a big-endian machine; {_ADVICE}")
    content = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl"))).load()
    return _arrays(content, functools.cache(lambda key: archive.read(f"{root}data/{key}")))


def read_torch_legacy(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """As `read_torch_zip`, of a file that begins with `LEGACY_MAGIC`."""
    file = io.BytesIO(Path(path).read_bytes())
    for _ in ("magic number", "protocol version", "sizes of types"):
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    content = unpickler.load()
    storages = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(count * unpickler.storages[key].dtype.itemsize)
    return _arrays(content, storages.__getitem__)


class _Storage(NamedTuple):
    """Elements of one type that tensors are views of; not read yet."""

    key: str
    dtype: np.dtype[Any]
    size: int  # elements


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, content: bytes) -> np.ndarray:
        """A copy of the elements in C order, from the bytes of the storage.

        Raises:
          ValueError: if they are cut short or the tensor leaves them.
        """
        _, dtype, size = self.storage
        values = np.frombuffer(content, dtype, size)
        steps = zip(self.shape, self.strides, strict=True)
        end = self.offset + sum((n - 1) * step for n, step in steps) + 1
        if min((self.offset, *self.shape, *self.strides)) < 0 or (
            0 not in self.shape and end > size
        ):
            raise ValueError(f"a tensor of {list(self.shape)} leaves its storage of {size}")
        strides = [step * dtype.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
        return np.array(view, order="C")


class _Ignored:
    """Stands for an object that is not needed; making one and giving it a state do nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Makes tensors and containers only.

    A pickle can call whatever `find_class` returns and set its attributes. So these are builtin
    types, which cannot be changed, bound methods, which make records, and `_Ignored`.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}  # by key

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name in _CONTAINERS:
            return _CONTAINERS[name]
        if name in _IGNORED:
            return _Ignored
        if module_name == "torch" and global_name in _STORAGES:
            return global_name
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self._tensor
        if name == "torch._utils._rebuild_parameter":
            return self._parameter
        raise QevoError(f"refused, since its pickle wants {name}, not only tensors; {_ADVICE}")

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _, count, *views = pid
        if kind != "storage" or any(view is not None for view in views):
            raise QevoError(f"a torch file that holds more than plain storages; {_ADVICE}")
        return self.storages.setdefault(key, _Storage(key, _STORAGES[storage_type], count))

    def _tensor(self, storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))

    def _parameter(self, data: _Tensor, *_: Any) -> _Tensor:
        return data


def _arrays(content: Any, stored: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The tensors of the state dict in an unpickled object, given the bytes of a storage by key."""
    state_dict = content
    while isinstance(state_dict, dict):
        nested = [key for key in _STATE_DICTS if isinstance(state_dict.get(key), dict)]
        if not nested:
            break
        state_dict = state_dict.pop(nested[0])  # popped, since a damaged one may hold itself
    entries = state_dict.items() if isinstance(state_dict, dict) else ()
    tensors = {name: t for name, t in entries if isinstance(name, str) and isinstance(t, _Tensor)}
    if not tensors:
        keys = f" of {list(state_dict)[:6]}" if isinstance(state_dict, dict) else ""
        found = f"{type(state_dict).__name__}{keys}"
        raise QevoError(f"a torch file without a state dict of tensors: a {found}; {_ADVICE}")
    return {name: tensor.array(stored(tensor.storage.key)) for name, tensor in tensors.items()}

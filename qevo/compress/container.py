"""The `.qevo` file: a quantized network in as few bytes as its weights and constants need.

The file, all integers little-endian or as `varint`:

    magic and version   5 bytes
    table of sizes      varints: the number of parts, and the bytes of each
    header              JSON, deflated (`qevo.compress.header`)
    scales              8 bytes each, float64
    constants           one stream (`qevo.compress.integers`)
    layers              one part each (`qevo.compress.coder`)
    digest              8 bytes, BLAKE2b of all before

Every stream ends with a checksum of what was coded. Nothing is decoded before its size is checked
against the architecture, the file and the reader's limit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from qevo.compress.coder import decode_layer, encode_layer
from qevo.compress.errors import CompressedFileError
from qevo.compress.header import Header, LayerHeader, header_of, pack_header, unpack_header
from qevo.compress.integers import decode_integers, encode_integers
from qevo.compress.varint import Reader, varint
from qevo.core.writing import write_whole
from qevo.errors import QevoError
from qevo.nets.file import load_safetensors, restore
from qevo.nets.network import QuantizedNetwork, variables_of
from qevo.nets.proof import prove

MAGIC = b"qevo"
VERSION = 1
SUFFIX = ".qevo"
MAX_WEIGHTS = 1 << 28  # of a file, unless its reader says otherwise
_DIGEST = 8


@dataclasses.dataclass(frozen=True)
class Part:
    """One layer of a file as it lies there."""

    header: LayerHeader
    data: bytes

    def weights(self) -> np.ndarray:
        """The int8 kernel.

        Raises:
          CompressedFileError: a damaged part.
        """
        try:
            return decode_layer(self.data, self.header.shape)
        except CompressedFileError as error:
            raise CompressedFileError(f"{self.header.name}: {error}") from None


@dataclasses.dataclass(frozen=True)
class CompressedNetwork:
    """A file taken apart and checked as a whole; its streams are not decoded yet.

    Attributes:
      header: all but the numbers.
      scales: real numbers, by activation.
      constants: their stream.
      parts: the layers in the order of computation.
      size: bytes of the file.
    """

    header: Header
    scales: Mapping[str, float]
    constants: bytes
    parts: tuple[Part, ...]
    size: int

    @property
    def parameters(self) -> int:
        """Of the float network: its weights, and one bias for each output channel."""
        shapes = [part.header.shape for part in self.parts]
        return sum(math.prod(shape) + shape[-1] for shape in shapes)

    @property
    def ratio(self) -> float:
        """Four bytes for every float parameter, over the bytes of this file."""
        return 4 * self.parameters / self.size

    def network(self, module: nn.Module | None = None) -> QuantizedNetwork:
        """The network that was compressed, bit for bit; layers are decoded one at a time.

        Args:
          module: the architecture, needed if it is not one of qevo's.

        Raises:
          CompressedFileError: damaged parts, parts that do not make a network, or another
            architecture than ``module``.
        """
        header = self.header
        try:
            module = restore(dict(header.architecture), module)
            _check_shapes(header, module)
            constants: dict[str, dict[str, jax.Array]] = {}
            for (name, key), values in decode_integers(self.constants, header.constants()).items():
                constants.setdefault(name, {})[key] = jnp.asarray(values)
            weights = {part.header.name: jnp.asarray(part.weights()) for part in self.parts}
            return QuantizedNetwork(
                module=module,
                image_shape=header.image_shape,
                weights=weights,
                constants=constants,
                layers={layer.name: layer.facts for layer in header.layers},
                ranges={o.name: (o.low, o.high) for o in header.operations},
                fraction_bits=header.fraction_bits,
                bits={layer.name: layer.bits for layer in header.layers},
                activation_bits=header.activation_bits,
                scales=self.scales,
            )
        except CompressedFileError:
            raise
        except QevoError as error:
            raise CompressedFileError(str(error)) from None
        except Exception as error:  # an architecture is free in what it raises for its fields
            raise CompressedFileError(f"the parts do not make a network: {error!r}") from error


def _check_shapes(header: Header, module: nn.Module) -> None:
    """Refuse sizes that the architecture does not have, before anything of that size is decoded.

    Raises:
      QevoError: as `prove`, which sees one number in place of each array.
    """
    weights = {layer.name: np.broadcast_to(np.int8(0), layer.shape) for layer in header.layers}
    constants: dict[str, dict[str, np.ndarray]] = {}
    for (name, key), shape in header.constants().items():
        value = np.int32(key == "multiplier")  # the least that a network can have
        constants.setdefault(name, {})[key] = np.broadcast_to(value, shape)
    layers = {layer.name: layer.facts for layer in header.layers}
    ranges = {operation.name: (operation.low, operation.high) for operation in header.operations}
    prove(module, header.image_shape, variables_of(weights, constants), layers, ranges)


def compress(
    network: QuantizedNetwork,
    about: Mapping[str, str | float] | None = None,
    *,
    max_weights: int = MAX_WEIGHTS,
) -> bytes:
    """The file of a network; equal networks give equal bytes.

    Args:
      network: any; `decompress` gives back an equal one.
      about: what it was measured at, such as ``{"test accuracy": 0.98}``. Its bytes count.
      max_weights: that the reader takes.

    Raises:
      QevoError: more weights, a layer beyond the coder's limits, or as `header_of` and
        `pack_header`.
    """
    if (weights := sum(kernel.size for kernel in network.weights.values())) > max_weights:
        raise QevoError(f"{weights} weights; a reader takes {max_weights}")
    header = header_of(network, about or {})
    constants = {
        (name, key): np.asarray(network.constants[name][key], np.int32)
        for name, key in header.constants()
    }
    parts = [
        pack_header(header),
        np.array([network.scales[name] for name in header.scales], "<f8").tobytes(),
        encode_integers(constants),
        *(encode_layer(np.asarray(network.weights[x.name])).data for x in header.layers),
    ]
    table = b"".join(varint(size) for size in (len(parts), *map(len, parts)))
    body = b"".join([MAGIC, bytes([VERSION]), table, *parts])
    return body + _digest(body)


def open_compressed(data: bytes, *, max_weights: int = MAX_WEIGHTS) -> CompressedNetwork:
    """Take a file apart and check its form, its digest and its limits; decode nothing.

    Raises:
      CompressedFileError: no `.qevo` file, another version, one that is cut short or damaged, or
        one of more than ``max_weights`` weights.
    """
    reader = Reader(data)
    head = reader.take(min(len(data), len(MAGIC) + 1))
    if head[: len(MAGIC)] != MAGIC or len(head) <= len(MAGIC):
        raise CompressedFileError("not a .qevo file")
    if head[len(MAGIC)] != VERSION:
        raise CompressedFileError(
            f"format version {head[len(MAGIC)]}; this qevo reads version {VERSION}"
        )
    if len(data) < _DIGEST or data[-_DIGEST:] != _digest(data[:-_DIGEST]):
        raise CompressedFileError("its digest is another: it is damaged or cut short")
    sizes = [reader.varint(len(data)) for _ in range(reader.varint(len(data)))]
    if len(sizes) < 3:
        raise CompressedFileError(f"a table of {len(sizes)} parts")
    parts = [reader.take(size) for size in sizes]
    reader.take(_DIGEST)
    reader.finish()
    header = unpack_header(parts[0])
    if len(header.layers) != len(parts) - 3:
        raise CompressedFileError(f"{len(header.layers)} layers, and {len(parts) - 3} parts")
    if len(parts[1]) != 8 * len(header.scales):
        raise CompressedFileError(f"{len(parts[1])} bytes for {len(header.scales)} scales")
    weights = sum(math.prod(layer.shape) for layer in header.layers)
    if weights > max_weights:
        raise CompressedFileError(f"{weights} weights; this reader takes {max_weights}")
    scales = np.frombuffer(parts[1], "<f8").tolist()
    if not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise CompressedFileError("a scale that is not a positive number")
    return CompressedNetwork(
        header=header,
        scales=dict(zip(header.scales, scales, strict=True)),
        constants=parts[2],
        parts=tuple(map(Part, header.layers, parts[3:])),
        size=len(data),
    )


def decompress(
    data: bytes, module: nn.Module | None = None, *, max_weights: int = MAX_WEIGHTS
) -> QuantizedNetwork:
    """The network in a file's bytes; see `open_compressed` and `CompressedNetwork.network`."""
    return open_compressed(data, max_weights=max_weights).network(module)


def read_compressed(
    path: str | os.PathLike[str], *, max_weights: int = MAX_WEIGHTS
) -> CompressedNetwork:
    """`open_compressed` of a file, which is named in what is raised.

    Raises:
      QevoError: no such file.
      CompressedFileError: as `open_compressed`.
    """
    if not Path(path).is_file():
        raise QevoError(f"no such file: {path}")
    try:
        return open_compressed(Path(path).read_bytes(), max_weights=max_weights)
    except CompressedFileError as error:
        raise CompressedFileError(f"{path}: {error}") from None


def save(
    network: QuantizedNetwork,
    path: str | os.PathLike[str],
    about: Mapping[str, str | float] | None = None,
) -> None:
    """Write the file of `compress`; an interruption leaves the old one."""
    write_whole(Path(path), compress(network, about))


def load(path: str | os.PathLike[str], module: nn.Module | None = None) -> QuantizedNetwork:
    """Read a network file of either kind, `.qevo` or safetensors, and check all of it.

    Args:
      path: of the file; its first bytes tell the kind.
      module: the architecture, needed if it is not one of qevo's.

    Raises:
      QevoError: no such file, a file that is cut short, damaged or of another kind, another format
        version, another architecture than ``module``, or tensors that do not fit it.
    """
    if not is_compressed(path):
        return load_safetensors(path, module)
    found = read_compressed(path)
    try:
        return found.network(module)
    except CompressedFileError as error:
        raise CompressedFileError(f"{path}: {error}") from None


def is_compressed(path: str | os.PathLike[str]) -> bool:
    """Whether a file is there and starts as a `.qevo` file does, or is called one."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.suffix == SUFFIX


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()

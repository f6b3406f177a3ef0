"""Short vectors of int32, such as multipliers, biases and shifts, in few bits."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from qevo.compress.errors import CompressedFileError
from qevo.compress.model import ValueModel
from qevo.compress.rans import PRECISION, TOTAL, Decoder, encode
from qevo.errors import QevoError

Shapes = Mapping[tuple[str, str], tuple[int, ...]]  # by operation and key, in their order

MAX_INTEGERS = 1 << 20  # of a file
_BITS = 33  # an int32 has at most 32 bits, and five to say so
_CHUNK = 12  # raw bits of one symbol
_HALF = np.array([0, TOTAL // 2, TOTAL])


class _Symbols(Protocol):
    """One direction; each format below is written once for both."""

    def symbol(self, bounds: np.ndarray, symbol: int) -> int:
        """Code a symbol with these bounds; reading ignores ``symbol`` and returns what it finds."""
        ...


class _Writing:
    def __init__(self) -> None:
        self.starts: list[int] = []
        self.frequencies: list[int] = []

    def symbol(self, bounds: np.ndarray, symbol: int) -> int:
        self.starts.append(int(bounds[symbol]))
        self.frequencies.append(int(bounds[symbol + 1] - bounds[symbol]))
        return symbol


class _Reading:
    def __init__(self, data: bytes):
        self.decoder = Decoder(data, 1)

    def symbol(self, bounds: np.ndarray, symbol: int) -> int:
        return int(self.decoder.symbols(bounds, 1)[0])


def encode_integers(vectors: Mapping[tuple[str, str], np.ndarray]) -> bytes:
    """One stream for int32 arrays of any shape, which `decode_integers` has to know.

    Arrays of one key, such as "bias", share their statistics.

    Raises:
      QevoError: more than `MAX_INTEGERS` in all.
    """
    if (total := sum(values.size for values in vectors.values())) > MAX_INTEGERS:
        raise QevoError(f"{total} constants; {MAX_INTEGERS} are the most")
    writing, models = _Writing(), {}
    for (_, key), values in vectors.items():
        model = models.setdefault(key, ValueModel(_BITS, start=1))
        _vector(writing, model, values.ravel().tolist(), values.size)
    starts, frequencies = (np.array(x, np.int32) for x in (writing.starts, writing.frequencies))
    return encode(starts, frequencies, lanes=1, checksum=_checksum(vectors))


def decode_integers(data: bytes, shapes: Shapes) -> dict[tuple[str, str], np.ndarray]:
    """The int32 arrays of these shapes.

    Raises:
      CompressedFileError: a damaged stream, or more than `MAX_INTEGERS` in all.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    if total > MAX_INTEGERS:
        raise CompressedFileError(f"{total} constants; {MAX_INTEGERS} are the most")
    reading, models, found = _Reading(data), {}, {}
    for name, shape in shapes.items():
        model = models.setdefault(name[1], ValueModel(_BITS, start=1))
        count = math.prod(shape)
        values = np.array(_vector(reading, model, [0] * count, count), np.int64)
        if values.size and (values.min() < -(1 << 31) or values.max() >= 1 << 31):
            raise CompressedFileError(f"{name[0]}: {name[1]} beyond int32")
        found[name] = values.astype(np.int32).reshape(shape)
    reading.decoder.finish(_checksum(found))
    return found


def _checksum(vectors: Mapping[tuple[str, str], np.ndarray]) -> int:
    return zlib.crc32(b"".join(v.astype("<i4").tobytes() for v in vectors.values()))


def _vector(io: _Symbols, model: ValueModel, values: list[int], count: int) -> list[int]:
    """Code a vector: what all values share, then for each its length, sign and digits.

    All share a number of low zeros, the most digits between the first one and the last, and whether
    any is negative. A length is coded by how often the key had it so far.
    """
    if not count:
        return []
    zeros = _raw(io, 5, min(_low_zeros(values), 31))
    values = [value >> zeros for value in values]
    digits = _raw(io, 5, max(_digits(values), 1) - 1) + 1
    signed = io.symbol(_HALF, int(min(values) < 0))
    out = []
    for value in values:
        length = io.symbol(model.bounds(), abs(value).bit_length())
        model.update(np.array([length]))
        if not length:
            out.append(0)
            continue
        sign = io.symbol(_HALF, int(value < 0)) if signed else 0
        kept = min(digits, length)
        high = _raw(io, kept - 1, (abs(value) >> (length - kept)) & ((1 << (kept - 1)) - 1))
        magnitude = (1 << (kept - 1) | high) << (length - kept) << zeros
        out.append(-magnitude if sign else magnitude)
    return out


def _low_zeros(values: list[int]) -> int:
    """How many low bits are zero in all of them."""
    together = 0
    for value in values:
        together |= abs(value)
    return (together & -together).bit_length() - 1 if together else 0


def _digits(values: list[int]) -> int:
    """The most bits from the first one to the last one of a value."""
    return max(abs(value).bit_length() - _low_zeros([value]) for value in values)


def _raw(io: _Symbols, bits: int, value: int) -> int:
    """Code an integer below ``2**bits``, every one alike."""
    out = 0
    for place in range(0, bits, _CHUNK):
        width = min(_CHUNK, bits - place)
        part = value >> place & ((1 << width) - 1)
        out |= io.symbol(_EVEN[width], part) << place
    return out


_EVEN = [np.arange((1 << width) + 1) << (PRECISION - width) for width in range(_CHUNK + 1)]

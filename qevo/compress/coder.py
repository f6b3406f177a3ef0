"""From a layer's int8 weights to bytes and back.

A layer's part of a file, for the kernel ``[K, C]`` turned so that the longer side has the rows:

    count       varint, nonzero weights
    exponents   1 byte, for rows and for columns (`ZeroModel`), 4 bits each
    codebook    if count: the lowest level, the width less one, and a bit for each level in between
    streams     for each block of steps (`_blocks`): bytes and lanes as varints, then the stream

A step is a diagonal (`qevo.compress.model`). A stream holds, for each of its steps, one flag for
each row and then the levels of those that are not zero (`qevo.compress.rans`), and ends with the
CRC-32 of the block's weights, int8 ``[steps, rows]``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from qevo.compress.errors import CompressedFileError
from qevo.compress.model import LEAST, OFF, ValueModel, ZeroModel, exponents
from qevo.compress.rans import PRECISION, TOTAL, Decoder, encode
from qevo.compress.varint import Reader, varint
from qevo.errors import QevoError

BLOCK = 1 << 21  # weights coded in one stream: bounds the memory of both sides
MAX_SIDE = 1 << 20  # rows or columns of a kernel
MAX_LANES = 1 << 12
WEIGHTS_PER_BYTE = math.ceil(8 / math.log2(TOTAL / (TOTAL - LEAST)))  # what a stream can hold
_BYTES_PER_LANE = 1024


class EncodedLayer(NamedTuple):
    """A layer's stream.

    Attributes:
      data: the bytes.
      model_bits: what the model's probabilities alone would take.
    """

    data: bytes
    model_bits: float


def encode_layer(kernel: np.ndarray) -> EncodedLayer:
    """Encode int8 weights ``[..., C]``; equal weights give equal bytes.

    Raises:
      QevoError: an empty kernel, or a side beyond `MAX_SIDE`.
    """
    model = _LayerModel(kernel)
    streams, bits = [model.head], 0.0
    for block, start, frequency in model.blocks():
        cost = _bits(frequency)
        lanes = lanes_for(cost / 8)
        stream = encode(start, frequency, lanes=lanes, checksum=zlib.crc32(block.tobytes()))
        streams.append(varint(len(stream)) + varint(lanes) + stream)
        bits += cost
    return EncodedLayer(b"".join(streams), bits)


def model_bits(kernel: np.ndarray) -> float:
    """What int8 weights ``[..., C]`` take by the model: `encode_layer` without the bytes."""
    return sum(_bits(frequency) for _, _, frequency in _LayerModel(kernel).blocks())


def decode_layer(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The int8 weights of that shape.

    Memory is at most three times that of the result, and one block's. A byte holds at most
    `WEIGHTS_PER_BYTE` weights.

    Raises:
      CompressedFileError: data that no `encode_layer` of such a shape makes.
    """
    total, columns = math.prod(shape), shape[-1]
    if not all(shape) or max(columns, total // columns) > MAX_SIDE:
        raise CompressedFileError(f"a kernel of shape {list(shape)} is beyond {MAX_SIDE} a side")
    if total > len(data) * WEIGHTS_PER_BYTE:
        raise CompressedFileError(f"{len(data)} bytes cannot hold {total} weights")
    reader = Reader(data)
    count, strengths = reader.varint(total), reader.take(1)[0]
    levels = _unpack_levels(reader) if count else np.zeros(0, np.int8)
    turned = total // columns < columns
    rows, columns = (columns, total // columns) if turned else (total // columns, columns)
    squares = _squares(rows, columns)
    padded = np.zeros(squares.shape[:2], np.int8)
    zeros = ZeroModel(rows, columns, count, (strengths & OFF, strengths >> 4))
    values = ValueModel(len(levels))
    for steps in _blocks(rows, columns):
        size, lanes = reader.varint(len(data)), reader.varint(MAX_LANES)
        decoder = Decoder(reader.take(size), lanes)
        block = np.zeros((len(steps), rows), np.int8)
        for step, line in zip(steps, block, strict=True):
            flags = decoder.flags(zeros.probabilities())
            zeros.update(flags)
            (places,) = flags.nonzero()
            if len(places):
                if not count:
                    raise CompressedFileError("nonzero weights in a layer without levels")
                found = decoder.symbols(values.bounds(), len(places))
                values.update(found)
                line[places] = levels[found]
            padded.reshape(-1)[:rows] = line
            before, after = _diagonal(squares, step)
            before[:], after[:] = padded[:, : columns - step], padded[:, columns - step :]
        decoder.finish(zlib.crc32(block.tobytes()))
    reader.finish()
    matrix = squares.reshape(-1, columns)[:rows]
    return np.array(matrix.T if turned else matrix, order="C").reshape(shape)


class _LayerModel:
    """The intervals of a layer's symbols, block by block, and the head that tells the model."""

    def __init__(self, kernel: np.ndarray):
        matrix = _matrix(kernel)
        nonzero = matrix != 0
        count, strengths = int(np.count_nonzero(nonzero)), exponents(nonzero)
        levels = np.unique(matrix[nonzero])
        self.head = varint(count) + bytes([strengths[0] | strengths[1] << 4])
        self.head += _pack_levels(levels) if count else b""
        self._rows, self._columns = matrix.shape
        self._squares = _squares(self._rows, self._columns)
        self._squares.reshape(-1, self._columns)[: self._rows] = matrix
        self._zeros = ZeroModel(self._rows, self._columns, count, strengths)
        self._values = ValueModel(len(levels))
        self._places = np.zeros(256, np.int64)
        self._places[levels.view(np.uint8)] = np.arange(len(levels))

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The weights of a block int8 ``[steps, rows]``, and starts and frequencies int32."""
        for steps in _blocks(self._rows, self._columns):
            block = np.empty((len(steps), self._rows), np.int8)
            for step, line in zip(steps, block, strict=True):
                both = np.concatenate(_diagonal(self._squares, step), axis=1)
                line[:] = both.reshape(-1)[: self._rows]
            yield block, *_intervals(block, self._zeros, self._values, self._places)


def _bits(frequency: np.ndarray) -> float:
    return float((PRECISION - np.log2(frequency)).sum())


def lanes_for(size: float) -> int:
    """Lanes for a stream of about ``size`` bytes: they add half a percent to it."""
    return min(max(int(size / _BYTES_PER_LANE), 1), MAX_LANES)


def _matrix(kernel: np.ndarray) -> np.ndarray:
    """The kernel with the longer side along the rows."""
    if kernel.dtype != np.int8 or kernel.ndim < 2 or not kernel.size:
        raise QevoError(f"weights must be int8 [K, C] or HWIO, not {kernel.dtype} {kernel.shape}")
    matrix = kernel.reshape(-1, kernel.shape[-1])
    if max(matrix.shape) > MAX_SIDE:
        raise QevoError(f"a kernel of {matrix.shape} weights is beyond {MAX_SIDE} a side")
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _blocks(rows: int, columns: int) -> Iterator[range]:
    """The steps of each stream."""
    size = max(BLOCK // rows, 1)
    for first in range(0, columns, size):
        yield range(first, min(first + size, columns))


def _squares(rows: int, columns: int) -> np.ndarray:
    """Zeros int8 ``[turns, columns, columns]``: room for the matrix, cut into squares."""
    return np.zeros((-(-rows // columns), columns, columns), np.int8)


def _diagonal(squares: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of a step in all squares: the rows before its diagonal goes round, and those after it.

    ``[turns, columns - step]`` and ``[turns, step]``; side by side and flat, the step's rows.
    """
    columns = squares.shape[1]
    cells = squares.reshape(len(squares), -1)
    left = columns - step
    return cells[:, step :: columns + 1][:, :left], cells[:, left * columns :: columns + 1]


def _intervals(
    block: np.ndarray, zeros: ZeroModel, values: ValueModel, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Starts and frequencies of a block's symbols: for each step the flags, then the values."""
    starts, frequencies = [], []
    for line in block:
        zero = zeros.probabilities().astype(np.int32)
        flags = line != 0
        zeros.update(flags)
        starts.append(np.where(flags, zero, np.int32(0)))
        frequencies.append(np.where(flags, np.int32(TOTAL) - zero, zero))
        if flags.any():
            bounds, found = values.bounds(), places[line[flags].view(np.uint8)]
            values.update(found)
            starts.append(bounds[found].astype(np.int32))
            frequencies.append((bounds[found + 1] - bounds[found]).astype(np.int32))
    return np.concatenate(starts), np.concatenate(frequencies)


def _pack_levels(levels: np.ndarray) -> bytes:
    """A codebook: the lowest level, how many are up to the highest, and a bit for each of those."""
    places = levels.astype(np.int16) - levels[0]
    there = np.zeros(int(places[-1]) + 1, bool)
    there[places] = True
    return bytes([int(levels[0]) & 0xFF, len(there) - 1]) + np.packbits(there).tobytes()


def _unpack_levels(reader: Reader) -> np.ndarray:
    lowest, last = np.frombuffer(reader.take(1), np.int8)[0], reader.take(1)[0]
    bits = np.frombuffer(reader.take(last // 8 + 1), np.uint8)
    levels = int(lowest) + np.unpackbits(bits).nonzero()[0]
    if not len(levels) or levels[-1] != int(lowest) + last or levels[-1] > 127 or not levels.all():
        raise CompressedFileError("a codebook that is none: int8 levels other than zero")
    return levels.astype(np.int8)

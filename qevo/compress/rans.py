"""Interleaved range asymmetric numeral systems: entropy coding, vectorised with numpy.

The format, in full: symbol t of a stream uses lane ``t % lanes``. A lane's state x lies in
``[2**32, 2**48)``. A symbol is an interval ``[start, start + frequency)`` of 2**16. Decoding reads
the slot ``x % 2**16``, finds the interval that holds it, and goes on with
``x = frequency * (x // 2**16) + slot - start``; below 2**32 the next 16-bit word is appended. A
stream is the states before the first symbol, 48 bits each, and then the words, all little-endian.
After the last symbol every state is back at 2**32, the first one at 2**32 plus the caller's
checksum: it costs nothing, and damage shows there.

Duda 2013 (arXiv 1311.2540); interleaving: Giesen 2014 (arXiv 1402.3392). Both directions are numpy
and little of it, so a file stays readable wherever numpy runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from qevo.compress.errors import CompressedFileError

PRECISION = 16  # bits of a probability
TOTAL = 1 << PRECISION
LOW = 1 << 32  # least state; one word is 16 bits, so states stay below 2**48
LANE_BYTES = 6  # of a state as it is stored
_SCALAR_LANES = 16  # below, Python integers are faster than numpy on so few lanes
_CHUNK = 1 << 14  # symbols whose intervals are turned into floats at once: they stay in the cache
_MASK = TOTAL - 1


def encode(start: np.ndarray, frequency: np.ndarray, *, lanes: int, checksum: int = 0) -> bytes:
    """The stream of symbols with intervals ``start``, ``frequency`` (integer ``[n]``).

    Args:
      start, frequency: ``0 <= start``, ``1 <= frequency``, ``start + frequency <= 2**16``.
      lanes: states side by side; each costs about 5 bytes, and many are fast.
      checksum: 32 bits that `Decoder.finish` asks for again.
    """
    if lanes < _SCALAR_LANES:
        return _encode_few(start, frequency, lanes, checksum)
    states = np.full(lanes, float(LOW))
    states[0] += checksum
    groups = [np.zeros(0)]
    whole = len(start) - len(start) % lanes
    if whole < len(start):
        _push(states[: len(start) - whole], start[whole:], frequency[whole:], groups)
    size = lanes * max(_CHUNK // lanes, 1)
    for begin in reversed(range(0, whole, size)):
        part = slice(begin, min(begin + size, whole))
        _push(states, start[part], frequency[part], groups)
    head = states.astype("<u8").view(np.uint8).reshape(lanes, 8)[:, :LANE_BYTES].tobytes()
    words = np.concatenate(groups[::-1]).astype(np.int64).astype("<u2")  # the low 16 bits
    return head + words.tobytes()


def _push(
    x: np.ndarray, start: np.ndarray, frequency: np.ndarray, groups: list[np.ndarray]
) -> None:
    """Encode symbols ``[rows * len(x)]`` into states, float64 in place, the last row first.

    Adds to ``groups`` the states of each row that give off a word, as they were.

    Whole numbers below 2**48 are exact in float64, their quotients too (see `test_rans`), and
    dividing floats is fast. With few lanes the calls are what costs: every operand is an array of
    one dtype, and so is the result.
    """
    sizes = frequency.reshape(-1, len(x))[::-1].astype(np.float64)
    starts = start.reshape(-1, len(x))[::-1].astype(np.float64)
    full, step = np.empty(len(x), bool), np.empty(len(x))
    for f, rest, limit, begin in zip(sizes, TOTAL - sizes, sizes * LOW, starts, strict=True):
        np.greater_equal(x, limit, full)
        (places,) = full.nonzero()
        if len(places):
            long = x[places]
            groups.append(long)
            x[places] = np.floor(long / TOTAL)
        np.divide(x, f, step)
        np.floor(step, step)
        np.multiply(step, rest, step)
        np.add(step, begin, step)
        np.add(x, step, x)


def _encode_few(start: np.ndarray, frequency: np.ndarray, lanes: int, checksum: int) -> bytes:
    states = [LOW] * lanes
    states[0] += checksum
    words: list[int] = []
    lane = len(start) % lanes
    pairs = zip(start[::-1].tolist(), frequency[::-1].tolist(), strict=True)
    for begin, f in pairs:
        lane = (lane or lanes) - 1
        x = states[lane]
        if x >= f << 32:
            words.append(x & _MASK)
            x >>= 16
        states[lane] = (x // f << PRECISION) + x % f + begin
    head = b"".join(x.to_bytes(LANE_BYTES, "little") for x in states)
    return head + np.array(words[::-1], "<u2").tobytes()


class Decoder:
    """Reads the symbols of one stream, some at a time, with whatever intervals the caller knows.

    Args:
      data: the stream.
      lanes: as it was encoded.

    Raises:
      CompressedFileError: from every method, for a stream that is cut short or damaged.
    """

    def __init__(self, data: bytes, lanes: int):
        head = LANE_BYTES * lanes
        if not lanes or len(data) < head or (len(data) - head) % 2:
            raise CompressedFileError(f"a stream of {len(data)} bytes does not hold {lanes} lanes")
        states = np.zeros((lanes, 8), np.uint8)
        states[:, :LANE_BYTES] = np.frombuffer(data, np.uint8, head).reshape(lanes, LANE_BYTES)
        self._states = states.view("<u8").ravel().astype(np.int64)
        if self._states.min() < LOW:
            raise CompressedFileError("a stream starts from a state that no encoder leaves")
        self._words = np.frombuffer(data, "<u2", offset=head).astype(np.int64)
        self._read = 0
        self._lane = 0
        self._few = lanes < _SCALAR_LANES
        if self._few:
            self._list, self._queue = self._states.tolist(), self._words.tolist()
        else:
            self._constants = np.repeat([[_MASK], [PRECISION], [LOW]], lanes, 1)

    def flags(self, zero: np.ndarray) -> np.ndarray:
        """Bits, bool ``[n]``; bit t is 0 with probability ``zero[t] / 2**16`` (int64)."""
        if self._few:
            return self._few_flags(zero)
        out = np.empty(len(zero), bool)
        for x, part in self._rows(len(zero)):
            self._read_flags(x, zero[part].reshape(-1, len(x)), out[part].reshape(-1, len(x)))
        return out

    def _read_flags(self, x: np.ndarray, zero: np.ndarray, out: np.ndarray) -> None:
        """Flags ``[rows, len(x)]``; fast with few lanes for the reasons in `_push`."""
        mask, shift, low = (each[: len(x)] for each in self._constants)
        slot, product, other, short = *np.empty((3, len(x)), np.int64), np.empty(len(x), bool)
        for p, one in zip(zero, out, strict=True):
            np.bitwise_and(x, mask, slot)
            np.greater_equal(slot, p, one)
            np.right_shift(x, shift, product)
            np.multiply(product, p, product)
            # Where the bit is 1: (TOTAL - p) * (x >> PRECISION) + slot - p, which is this.
            np.add(product, p, other)
            np.subtract(x, other, other)
            np.add(product, slot, x)
            np.copyto(x, other, where=one)
            np.less(x, low, short)
            (places,) = short.nonzero()
            if len(places):
                self._refill(x, places)

    def symbols(self, bounds: np.ndarray, count: int) -> np.ndarray:
        """Symbols, int64 ``[count]``; symbol s has the interval ``bounds[s]..bounds[s + 1]``."""
        if self._few:
            return self._few_symbols(bounds, count)
        out = np.empty(count, np.int64)
        sizes, ends = np.diff(bounds), bounds[1:]
        for x, part in self._rows(count):
            mask, shift, low = (each[: len(x)] for each in self._constants)
            for symbols in out[part].reshape(-1, len(x)):
                slot = x & mask
                symbols[:] = ends.searchsorted(slot, "right")
                np.right_shift(x, shift, x)
                np.multiply(x, sizes.take(symbols), x)
                np.add(x, slot, x)
                np.subtract(x, bounds.take(symbols), x)
                self._refill(x, (x < low).nonzero()[0])
        return out

    def finish(self, checksum: int = 0) -> None:
        """Check that everything is read and the states are where encoding began."""
        states = self._list if self._few else np.roll(self._states, self._lane).tolist()
        if self._read != len(self._words) or states != [LOW + checksum] + [LOW] * (len(states) - 1):
            raise CompressedFileError(
                "a stream does not end where its checksum says: it is damaged"
            )

    def _rows(self, count: int) -> Iterator[tuple[np.ndarray, slice]]:
        """The states of a run of symbols, to be changed, and its place: whole rows, then the rest.

        The states are turned so that the first is that of the next symbol.
        """
        rest = count % len(self._states)
        if rest < count:
            yield self._states, slice(0, count - rest)
        if rest:
            yield self._states[:rest], slice(count - rest, count)
            self._states = np.concatenate((self._states[rest:], self._states[:rest]))
            self._lane = (self._lane + rest) % len(self._states)

    def _refill(self, x: np.ndarray, places: np.ndarray) -> None:
        """The states at these places are low: they read one word each, in order."""
        end = self._read + len(places)
        if end > len(self._words):
            raise CompressedFileError("a stream ends before its last symbol: it is cut short")
        x[places] = x[places] << PRECISION | self._words[self._read : end]
        self._read = end

    def _few_flags(self, zero: np.ndarray) -> np.ndarray:
        states, words, read, lane = self._list, self._queue, self._read, self._lane
        out = bytearray(len(zero))
        try:
            for place, p in enumerate(zero.tolist()):
                x = states[lane]
                slot = x & _MASK
                if slot < p:
                    x = p * (x >> PRECISION) + slot
                else:
                    x = (TOTAL - p) * (x >> PRECISION) + slot - p
                    out[place] = 1
                if x < LOW:
                    x = x << 16 | words[read]
                    read += 1
                states[lane] = x
                lane += 1
                if lane == len(states):
                    lane = 0
        except IndexError:
            raise CompressedFileError(
                "a stream ends before its last symbol: it is cut short"
            ) from None
        self._read, self._lane = read, lane
        return np.frombuffer(out, bool)

    def _few_symbols(self, bounds: np.ndarray, count: int) -> np.ndarray:
        states, words = self._list, self._queue
        limits = bounds.tolist()
        out = []
        for _ in range(count):
            x = states[self._lane]
            slot = x & _MASK
            symbol = bisect_right(limits, slot) - 1
            x = (limits[symbol + 1] - limits[symbol]) * (x >> PRECISION) + slot - limits[symbol]
            if x < LOW:
                if self._read == len(words):
                    raise CompressedFileError(
                        "a stream ends before its last symbol: it is cut short"
                    )
                x = x << 16 | words[self._read]
                self._read += 1
            states[self._lane] = x
            self._lane = (self._lane + 1) % len(states)
            out.append(symbol)
        return np.array(out, np.int64)

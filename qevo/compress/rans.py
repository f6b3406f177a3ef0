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

import numpy as np

from qevo.compress.errors import CompressedFileError

PRECISION = 16  # bits of a probability
TOTAL = 1 << PRECISION
LOW = 1 << 32  # least state; one word is 16 bits, so states stay below 2**48
LANE_BYTES = 6  # of a state as it is stored
_SCALAR_LANES = 16  # below, Python integers are faster than numpy on so few lanes
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
    count = len(start)
    states = np.full(lanes, LOW, np.int64)
    states[0] += checksum
    groups: list[np.ndarray] = []
    for begin in range((count - 1) // lanes * lanes, -1, -lanes) if count else ():
        part = slice(begin, min(begin + lanes, count))
        f = frequency[part].astype(np.int64)
        x = states[: len(f)]
        full = x >= f << 32
        groups.append(x[full].astype("<u2"))  # the low 16 bits
        x = np.where(full, x >> 16, x)
        quotient = (x / f).astype(np.int64)  # exact: x < 2**48 and f < 2**17, see `test_rans`
        states[: len(f)] = x + quotient * (TOTAL - f) + start[part]
    head = states.astype("<u8").view(np.uint8).reshape(lanes, 8)[:, :LANE_BYTES].tobytes()
    return head + b"".join(group.tobytes() for group in reversed(groups))


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
        self._words = np.frombuffer(data, "<u2", offset=head)
        self._read = 0
        self._lane = 0
        self._few = lanes < _SCALAR_LANES
        if self._few:
            self._list, self._queue = self._states.tolist(), self._words.tolist()

    def flags(self, zero: np.ndarray) -> np.ndarray:
        """Bits, bool ``[n]``; bit t is 0 with probability ``zero[t] / 2**16`` (int64)."""
        if self._few:
            return self._few_flags(zero)
        out = np.empty(len(zero), bool)
        for part, x in self._lanes(len(zero)):
            p = zero[part]
            slot = x & _MASK
            one = slot >= p
            out[part] = one
            begin = np.where(one, p, 0)
            size = np.where(one, TOTAL - p, p)
            self._advance(x, size * (x >> PRECISION) + slot - begin)
        return out

    def symbols(self, bounds: np.ndarray, count: int) -> np.ndarray:
        """Symbols, int64 ``[count]``; symbol s has the interval ``bounds[s]..bounds[s + 1]``."""
        if self._few:
            return self._few_symbols(bounds, count)
        out = np.empty(count, np.int64)
        size = np.diff(bounds)
        for part, x in self._lanes(count):
            slot = x & _MASK
            symbol = bounds.searchsorted(slot, "right") - 1
            out[part] = symbol
            self._advance(x, size[symbol] * (x >> PRECISION) + slot - bounds[symbol])
        return out

    def finish(self, checksum: int = 0) -> None:
        """Check that everything is read and the states are where encoding began."""
        states = self._list if self._few else self._states.tolist()
        if self._read != len(self._words) or states != [LOW + checksum] + [LOW] * (len(states) - 1):
            raise CompressedFileError(
                "a stream does not end where its checksum says: it is damaged"
            )

    def _lanes(self, count: int):
        """Runs of symbols that use different lanes, with the states of these."""
        done, lanes = 0, len(self._states)
        while done < count:
            size = min(count - done, lanes - self._lane)
            yield slice(done, done + size), self._states[self._lane : self._lane + size]
            self._lane = (self._lane + size) % lanes
            done += size

    def _advance(self, x: np.ndarray, state: np.ndarray) -> None:
        """Take the new states; those that are low read one word each, in order."""
        (low,) = (state < LOW).nonzero()
        end = self._read + len(low)
        if end > len(self._words):
            raise CompressedFileError("a stream ends before its last symbol: it is cut short")
        state[low] = state[low] << 16 | self._words[self._read : end]
        self._read = end
        x[:] = state

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

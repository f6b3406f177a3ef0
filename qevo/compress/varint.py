"""Bytes read with every size checked first, and integers in as few bytes as they need."""

from __future__ import annotations

from qevo.compress.errors import CompressedFileError


def varint(value: int) -> bytes:
    """A natural number, seven bits a byte, lowest first, the eighth bit where more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class Reader:
    """Takes bytes from the front.

    Raises:
      CompressedFileError: from every method, where the bytes are not there.
    """

    def __init__(self, data: bytes | memoryview):
        self._data = memoryview(data)

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > len(self._data):
            raise CompressedFileError(
                f"{count} bytes expected and {len(self._data)} left: it is cut short"
            )
        taken, self._data = self._data[:count], self._data[count:]
        return bytes(taken)

    def varint(self, limit: int) -> int:
        """The next natural number, at most ``limit``."""
        value = 0
        for place in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << place
            if byte < 0x80:
                break
        else:
            raise CompressedFileError("a number that does not end")
        if value > limit or (not byte and place):
            raise CompressedFileError(f"a number {value} where {limit} is the most")
        return value

    def finish(self) -> None:
        """Check that nothing is left."""
        if len(self._data):
            raise CompressedFileError(f"{len(self._data)} bytes too many")

"""Bits per layer by name pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from qevo.errors import QevoError
from qevo.nets.arithmetic import levels

BitsByPattern = Mapping[str, str | int] | str | int


def read_bits(word: str) -> str | int:
    """Bits as a command line says them: "4" is 4; "ternary", and what no bits are, stays a word."""
    return int(word) if word.isdecimal() else word


def bits_per_layer(bits: BitsByPattern, layers: Iterable[str]) -> dict[str, str | int]:
    """Resolve ``{"*": "ternary", "dense_0": 4}`` to one value for each layer.

    Patterns are those of `fnmatch` on whole layer names. Of several that match a layer the last
    one counts, so exceptions are written after the rule. A single value means ``{"*": value}``.

    Raises:
      QevoError: bits other than "ternary" or 2 to 8; a pattern without a layer; a layer
        without a pattern.
    """
    rules = bits if isinstance(bits, Mapping) else {"*": bits}
    layers = tuple(layers)
    for pattern, value in rules.items():
        levels(value, pattern)
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise QevoError(f"bits: {pattern!r} matches no layer; there are {', '.join(layers)}")
    resolved = {}
    for name in layers:
        matches = [value for pattern, value in rules.items() if fnmatchcase(name, pattern)]
        if not matches:
            raise QevoError(f"bits: no pattern matches layer {name}; add '*' for the rest")
        last = matches[-1]
        resolved[name] = last if isinstance(last, str) else int(last)  # numpy's are no JSON
    return resolved

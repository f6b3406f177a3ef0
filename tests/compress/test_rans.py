"""The entropy coder against its format, decoded by the plainest Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qevo.compress import CompressedFileError, rans
from qevo.compress.rans import TOTAL, Decoder, encode

CHECKSUM = 0xDEADBEEF


def decode_plainly(data: bytes, lanes: int, tables: list[list[int]]) -> tuple[list[int], list[int]]:
    """Symbols and last states, word for word as the module's docstring has it.

    Symbol t has the interval ``tables[t][s]..tables[t][s + 1]``.
    """
    states = [int.from_bytes(data[6 * i : 6 * i + 6], "little") for i in range(lanes)]
    words = [int.from_bytes(data[i : i + 2], "little") for i in range(6 * lanes, len(data), 2)]
    symbols = []
    for t, bounds in enumerate(tables):
        x = states[t % lanes]
        slot = x % 2**16
        (symbol,) = (s for s in range(len(bounds) - 1) if bounds[s] <= slot < bounds[s + 1])
        x = (bounds[symbol + 1] - bounds[symbol]) * (x // 2**16) + slot - bounds[symbol]
        if x < 2**32:
            x = x * 2**16 + words.pop(0)
        states[t % lanes] = x
        symbols.append(symbol)
    assert not words
    return symbols, states


@st.composite
def messages(draw: Any) -> tuple[list[list[int]], list[int]]:
    """Tables of bounds, from even to very uneven, and a symbol for each."""
    tables, symbols = [], []
    for _ in range(draw(st.integers(0, 60))):
        inner = draw(st.lists(st.integers(1, TOTAL - 1), unique=True, max_size=4))
        tables.append([0, *sorted(inner), TOTAL])
        symbols.append(draw(st.integers(0, len(inner))))
    return tables, symbols


def intervals(tables: list[list[int]], symbols: list[int]) -> tuple[np.ndarray, np.ndarray]:
    start = [t[s] for t, s in zip(tables, symbols, strict=True)]
    stop = [t[s + 1] for t, s in zip(tables, symbols, strict=True)]
    return np.array(start, np.int32), np.array(stop, np.int32) - np.array(start, np.int32)


@given(messages(), st.integers(1, 40))
def test_the_format_is_what_it_says(message: Any, lanes: int) -> None:
    tables, symbols = message
    data = encode(*intervals(tables, symbols), lanes=lanes, checksum=CHECKSUM)
    found, states = decode_plainly(data, lanes, tables)
    assert found == symbols
    assert states == [2**32 + CHECKSUM, *[2**32] * (lanes - 1)]


@given(messages(), st.integers(1, 40))
def test_both_ways_to_encode_give_the_same_bytes(message: Any, lanes: int) -> None:
    """Lanes of numpy and of Python integers; the division in float64 is exact."""
    pairs = intervals(*message)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rans, "_SCALAR_LANES", 0)
        arrays = encode(*pairs, lanes=lanes)
        patch.setattr(rans, "_SCALAR_LANES", 1000)
        assert encode(*pairs, lanes=lanes) == arrays


@given(st.integers(0, 2**32), st.integers(1, TOTAL), st.data())
def test_the_division_is_exact_at_its_edges(quotient: int, frequency: int, data: Any) -> None:
    rest = data.draw(st.sampled_from(sorted({0, 1 % frequency, frequency - 1})))
    x = min(quotient * frequency + rest, 2**48 - 1)
    assert int(np.floor(np.array([float(x)]) / np.array([float(frequency)]))[0]) == x // frequency


@pytest.mark.parametrize("lanes", [1, 3, 16, 33, 64])
def test_flags_and_symbols_in_turn(lanes: int) -> None:
    """As layers are coded: calls of odd sizes, which end within the lanes."""
    draw = np.random.default_rng(lanes)
    bounds = np.array([0, 5, 40000, 65000, TOTAL])
    calls, starts, frequencies = [], [], []
    for size in draw.integers(0, 90, 20):
        zero = draw.integers(16, TOTAL - 16, size)
        flags = draw.random(size) * TOTAL > zero
        values = draw.choice(4, np.count_nonzero(flags), p=[0.01, 0.6, 0.38, 0.01])
        calls.append((zero, flags, values))
        starts += [np.where(flags, zero, 0), bounds[values]]
        frequencies += [np.where(flags, TOTAL - zero, zero), np.diff(bounds)[values]]
    data = encode(np.concatenate(starts), np.concatenate(frequencies), lanes=lanes, checksum=7)
    decoder = Decoder(data, lanes)
    for zero, flags, values in calls:
        np.testing.assert_array_equal(decoder.flags(zero), flags)
        np.testing.assert_array_equal(decoder.symbols(bounds, len(values)), values)
    decoder.finish(7)
    with pytest.raises(CompressedFileError, match="checksum"):
        decoder.finish(8)


@pytest.mark.parametrize("lanes", [1, 64])
def test_a_stream_takes_what_information_theory_says(lanes: int) -> None:
    draw = np.random.default_rng(0)
    zero = draw.integers(60000, 65000, 200_000)
    flags = draw.random(len(zero)) * TOTAL > zero
    frequency = np.where(flags, TOTAL - zero, zero)
    data = encode(np.where(flags, zero, 0), frequency, lanes=lanes)
    bits = -np.log2(frequency / TOTAL).sum()
    assert bits < 8 * len(data) <= 1.0005 * bits + 48 * lanes


@pytest.mark.parametrize("lanes", [1, 20])
@pytest.mark.parametrize("kept", [0, 5, 119, -2, -40])
def test_cut_short(lanes: int, kept: int) -> None:
    zero = np.full(2000, TOTAL // 3)
    flags = np.random.default_rng(0).random(2000) < 2 / 3
    data = encode(np.where(flags, zero, 0), np.where(flags, TOTAL - zero, zero), lanes=lanes)

    held = f"of {kept} bytes does not hold {lanes} lanes"
    with pytest.raises(CompressedFileError, match=held if kept >= 0 else "it is cut short"):
        Decoder(data[:kept], lanes).flags(zero)


@pytest.mark.parametrize("lanes", [8, 256])
def test_lanes_cost_five_bytes_each(lanes: int) -> None:
    """On average: six of a state, less the bits of its symbols that fill no word yet."""
    for rows in range(16, 32):
        frequency = np.full(rows * lanes, TOTAL // 2)  # one bit each
        size = len(encode(np.zeros(len(frequency), int), frequency, lanes=lanes))
        assert size - rows * lanes / 8 == lanes * (6 - rows % 16 / 8)

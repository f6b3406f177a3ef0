"""The pseudo-Boolean suite PBO of IOHprofiler, F1 to F24, with integer fitness.

Doerr, Ye, Horesh, Wang, Shir and Bäck, *Benchmarking discrete optimization heuristics with
IOHprofiler*, Appl. Soft Comput. 2020; the W-model's layers (F4 to F17) are Weise and Wu's. Values
are those of the ``ioh`` package for instance 1, negated, since the suite maximises. Two are other
integers: F18 is the energy E itself, to be minimised, for ioh's ``n**2 / (2 E)``; F24 is minus
five times ioh's value. F25 (NK landscapes with contributions in 1 / (2**31 - 1)) cannot be had
exactly in int32 and is left out; see `qevo.problems.nk`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from qevo.core.counting import count_ones
from qevo.core.problem import Problem
from qevo.core.space import Space
from qevo.errors import QevoError
from qevo.problems.integers import integer

# Least energies of low-autocorrelation binary sequences of 3 to 21 bits (Mertens 1996).
_LABS = (1, 2, 2, 7, 3, 8, 12, 13, 5, 10, 6, 19, 15, 24, 32, 25, 29, 26, 26)
_BLOCK = 5  # bits of a trap
_NEUTRAL = 3  # bits that vote for one
_EPISTATIC = 4  # bits that are mixed


@struct.dataclass
class PBO(Problem):
    """One of F1 to F24. A solution is int8 ``[N]`` of bits; build one with `PBO.of`."""

    space: Space
    chosen: jax.Array  # int32 [n], the bits that count, in their order; all but for dummies
    table: jax.Array  # int32 [n + 1], what a count of ones is worth; itself without ruggedness
    function: int = struct.field(pytree_node=False)
    optimum: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def of(cls, function: int, size: int) -> PBO:
        """F1 to F24 with ``size`` bits.

        Raises:
          QevoError: there is no such function of so many bits, or its values may leave int32.
        """
        if function not in _SUITE:
            raise QevoError(f"functions are 1 to 24, got {function}")
        part = _SUITE[function]
        size = integer("the number of bits", size)
        needs = None if part.least <= size <= part.most else f"{part.least:,} to {part.most:,} bits"
        needs = needs or part.fits(size)
        if needs is not None:
            raise QevoError(f"F{function} {part.name} needs {needs}, got {size} bits")
        chosen = _dummies(size, part.kept) if part.kept else np.arange(size)
        counted = _layered(part, size)
        table = np.arange(counted + 1) if part.ragged is None else part.ragged(counted)
        return cls(
            Space.integers(size, 0, 1, dtype=np.int8),
            jnp.asarray(chosen, jnp.int32),
            jnp.asarray(table, jnp.int32),
            function,
            part.optimum(size) if part.optimum else -int(table[-1]),
        )

    @property
    def name(self) -> str:
        """The function's name in the suite."""
        return _SUITE[self.function].name

    def fitness(self, solution: jax.Array, batch: Any) -> jax.Array:
        """The value that the suite maximises, negated (F18: the energy)."""
        part = _SUITE[self.function]
        everything = self.chosen.shape == solution.shape
        bits = (solution if everything else solution[self.chosen]).astype(jnp.int32)
        if part.layer is not None:
            bits = part.layer(bits)
        value = part.value(bits)
        return value if part.value in _PLAIN else -self.table[value]


def _one_max(bits: jax.Array) -> jax.Array:
    return count_ones(bits)


def _leading_ones(bits: jax.Array) -> jax.Array:
    return jnp.sum(jnp.cumprod(bits), dtype=jnp.int32)


def _linear(bits: jax.Array) -> jax.Array:
    return -jnp.sum(bits * jnp.arange(1, bits.shape[0] + 1, dtype=jnp.int32))


def _labs(bits: jax.Array) -> jax.Array:
    """Squares of all correlations of the sequence with itself, shifted."""
    size = bits.shape[0]
    spins = 2 * bits - 1
    padded = jnp.concatenate([spins, jnp.zeros(size, jnp.int32)])
    shifted = padded[jnp.arange(1, size)[:, None] + jnp.arange(size)]
    correlations = jnp.sum(shifted * spins, axis=1)
    return jnp.sum(correlations * correlations, dtype=jnp.int32)


def _equal_neighbours(*steps: tuple[int, int]) -> Callable[[jax.Array], jax.Array]:
    """Minus the number of equal neighbours on a square torus, in the given directions."""

    def value(bits: jax.Array) -> jax.Array:
        side = math.isqrt(bits.shape[0])
        grid = bits.reshape(side, side)
        equal = [jnp.sum(grid == jnp.roll(grid, step, (0, 1)), dtype=jnp.int32) for step in steps]
        return -sum(equal, jnp.int32(0))

    return value


def _ring(bits: jax.Array) -> jax.Array:
    return -jnp.sum(bits == jnp.roll(bits, 1), dtype=jnp.int32)


def _independent(bits: jax.Array) -> jax.Array:
    """Chosen vertices of a graph, less n for each edge between two; an odd last bit is left out."""
    half = bits.shape[0] // 2
    size = 2 * half
    upper, lower = bits[:half], bits[half:size]
    # Two paths, and between them each vertex is joined to those before and after its opposite.
    edges = jnp.sum(upper[1:] * upper[:-1]) + jnp.sum(lower[1:] * lower[:-1])
    edges += jnp.sum(upper[:-1] * lower[1:]) + jnp.sum(upper[1:] * lower[:-1])
    return size * edges.astype(jnp.int32) - jnp.sum(bits[:size], dtype=jnp.int32)


def _queens(bits: jax.Array) -> jax.Array:
    """Queens on a board, less its side for each one too many in a row, column or diagonal."""
    side = math.isqrt(bits.shape[0])
    board = bits.reshape(side, side)
    lines = [jnp.sum(board, axis=0), jnp.sum(board, axis=1)]
    row, column = jnp.indices((side, side))
    for diagonal in (row + column, row - column + side - 1):
        lines.append(jnp.zeros(2 * side - 1, jnp.int32).at[diagonal].add(board))
    many = jnp.sum(jnp.maximum(jnp.concatenate(lines) - 1, 0), dtype=jnp.int32)
    return side * many - jnp.sum(bits, dtype=jnp.int32)


def _traps(bits: jax.Array) -> jax.Array:
    ones = jnp.sum(bits.reshape(-1, _BLOCK), axis=1, dtype=jnp.int32)
    worth = jnp.where(ones == _BLOCK, _BLOCK, _BLOCK - 1 - ones)
    return -jnp.sum(worth, dtype=jnp.int32)


_PLAIN = [_linear, _labs, _ring, _independent, _queens, _traps]  # these return fitness itself


def _neutral(bits: jax.Array) -> jax.Array:
    """The majority of each three bits; those left over are dropped."""
    size = bits.shape[0] // _NEUTRAL * _NEUTRAL
    votes = jnp.sum(bits[:size].reshape(-1, _NEUTRAL), axis=1)
    return (2 * votes >= _NEUTRAL).astype(jnp.int32)


def _epistatic(bits: jax.Array) -> jax.Array:
    """Each bit of a block of four becomes the parity of all but one of them, or of all."""
    size = bits.shape[0] // _EPISTATIC * _EPISTATIC
    parts = [bits[:size].reshape(-1, _EPISTATIC), bits[size:].reshape(1, -1)]
    mixed = []
    for part in parts:
        width = part.shape[1]
        if width:
            # Bit i leaves out bit i + 1 of the block, counted so that the last one leaves out none.
            counted = np.ones((width, width), np.int32)
            counted[np.arange(width - 1), np.arange(1, width)] = 0
            mixed.append((jnp.sum(part[:, None, :] * counted, axis=2) % 2).reshape(-1))
    return jnp.concatenate(mixed)


def _ragged_1(size: int) -> np.ndarray:
    """Two neighbouring counts of ones are worth the same."""
    count = np.arange(size + 1)
    worth = (count + size % 2) // 2 + 1
    worth[size] = (size + 1) // 2 + 1
    return worth


def _ragged_2(size: int) -> np.ndarray:
    """Two neighbouring counts change places; the best stays."""
    count = np.arange(size)
    swapped = np.where(count % 2 == size % 2, count + 1, np.maximum(count - 1, 0))
    return np.append(swapped, size)


def _ragged_3(size: int) -> np.ndarray:
    """Five neighbouring counts are reversed, from the best downwards, which stays."""
    worth = np.arange(size + 1)
    for end in range(size, 0, -5):
        worth[max(end - 5, 0) : end] = worth[max(end - 5, 0) : end][::-1].copy()
    return worth


class _Function(NamedTuple):
    """A function of the suite."""

    name: str
    value: Callable[[jax.Array], jax.Array]
    kept: float = 0.0  # share of bits that count, of dummies
    layer: Callable[[jax.Array], jax.Array] | None = None
    ragged: Callable[[int], np.ndarray] | None = None
    optimum: Callable[[int], int | None] | None = None
    least: int = 1  # bits
    most: int = 1 << 28  # bits: the table of counts takes a GiB, or the largest value fits int32
    fits: Callable[[int], str | None] = lambda size: None  # what else the number of bits must be


def _square(size: int) -> str | None:
    return None if math.isqrt(size) ** 2 == size else "a square number"


def _fives(size: int) -> str | None:
    return None if size % _BLOCK == 0 else f"a multiple of {_BLOCK}"


def _most_independent(size: int) -> int:
    half = size // 2
    return -(half if half % 2 == 0 else half + 1)


def _most_queens(size: int) -> int:
    side = math.isqrt(size)
    return -{2: 1, 3: 2}.get(side, side)


_ISING = ((1, 0), (0, 1))
_SUITE = {
    1: _Function("OneMax", _one_max),
    2: _Function("LeadingOnes", _leading_ones),
    3: _Function("Linear", _linear, optimum=lambda n: -n * (n + 1) // 2, most=65_535),
    4: _Function("OneMaxDummy1", _one_max, kept=0.5),
    5: _Function("OneMaxDummy2", _one_max, kept=0.9),
    6: _Function("OneMaxNeutrality", _one_max, layer=_neutral),
    7: _Function("OneMaxEpistasis", _one_max, layer=_epistatic),
    8: _Function("OneMaxRuggedness1", _one_max, ragged=_ragged_1),
    9: _Function("OneMaxRuggedness2", _one_max, ragged=_ragged_2),
    10: _Function("OneMaxRuggedness3", _one_max, ragged=_ragged_3),
    11: _Function("LeadingOnesDummy1", _leading_ones, kept=0.5),
    12: _Function("LeadingOnesDummy2", _leading_ones, kept=0.9),
    13: _Function("LeadingOnesNeutrality", _leading_ones, layer=_neutral),
    14: _Function("LeadingOnesEpistasis", _leading_ones, layer=_epistatic),
    15: _Function("LeadingOnesRuggedness1", _leading_ones, ragged=_ragged_1),
    16: _Function("LeadingOnesRuggedness2", _leading_ones, ragged=_ragged_2),
    17: _Function("LeadingOnesRuggedness3", _leading_ones, ragged=_ragged_3),
    18: _Function(
        "LABS",
        _labs,
        optimum=lambda n: _LABS[n - 3] if 3 <= n < 3 + len(_LABS) else None,
        least=2,
        most=1_861,  # of equal bits: (n - 1) n (2 n - 1) / 6
    ),
    19: _Function("IsingRing", _ring, optimum=lambda n: -n),
    20: _Function("IsingTorus", _equal_neighbours(*_ISING), optimum=lambda n: -2 * n, fits=_square),
    21: _Function(
        "IsingTriangular",
        _equal_neighbours(*_ISING, (1, 1)),
        optimum=lambda n: -3 * n,
        fits=_square,
    ),
    22: _Function(  # of ones: 2 n (n - 2), before what they are worth is taken off
        "MIS", _independent, optimum=_most_independent, least=2, most=32_769
    ),
    23: _Function(  # of ones, side s: 2 s (s - 1) (2 s - 1)
        "NQueens", _queens, optimum=_most_queens, most=813**2, fits=_square
    ),
    24: _Function("ConcatenatedTrap", _traps, optimum=lambda n: -n, least=_BLOCK, fits=_fives),
}
_PLAIN += [_SUITE[20].value, _SUITE[21].value]


def _layered(part: _Function, size: int) -> int:
    """The most that a count of ones can be."""
    if part.kept:
        return int(size * part.kept)
    return size // _NEUTRAL if part.layer is _neutral else size


def _dummies(size: int, kept: float) -> np.ndarray:
    """The bits that count, in order: drawn by swaps with ioh's random numbers, seed 10000."""
    count = int(size * kept)
    places = list(range(size))
    for i, draw in enumerate(_ioh_uniform(count, 10000)):
        j = math.floor(draw * 1e4 / 1e4 * size)
        places[i], places[j] = places[j], places[i]
    return np.sort(places[:count])


def _ioh_uniform(count: int, seed: int) -> list[float]:
    """The numbers in 0..1 that ioh draws: a Lehmer generator shuffled by a table of 32."""
    modulus, table = 2**31 - 1, [0] * 32
    for i in range(39, -1, -1):
        seed = 16807 * seed % modulus
        if i < 32:
            table[i] = seed
    draws = []
    for _ in range(count):
        following = 16807 * seed % modulus
        place = seed // 67108865
        seed, table[place] = table[place], following
        draws.append(seed / modulus)
    return draws

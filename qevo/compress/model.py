"""The adaptive model of a layer's weights: zeros by row and column, then the levels of the others.

A kernel ``[K, C]`` is read along its diagonals, turned so that the longer side has the rows: step t
holds element ``(i, (i + t) % columns)`` of every row i. So each step knows how many of the earlier
weights of each row and of each column were zero, whole steps are computed at once, and encoder and
decoder count the same.
"""

from __future__ import annotations

import math

import numpy as np

from qevo.compress.rans import TOTAL

LEAST = TOTAL >> 12  # of 2**16: no flag is surer than 4095/4096, which bounds what a byte can hold
OFF = 15  # exponent for rows or columns that are alike
_STRENGTH_OFF = 2.0**60
_COUNT_STEP = 24  # what one more value adds to its count


class ZeroModel:
    """Probabilities that the weights of a step are zero.

    The odds of a row times the odds of a column over the overall odds, each drawn towards the
    overall share as if ``2**exponent`` more weights had been seen with that share. Float64 in
    single correctly rounded operations (IEEE 754: no sums, no library functions), so every machine
    finds the same integers.

    Args:
      rows, columns: of the turned matrix.
      count: nonzero weights of the layer.
      exponents: for rows and columns; `OFF` for no adaptation.
    """

    def __init__(self, rows: int, columns: int, count: int, exponents: tuple[int, int]):
        self._rows, self._columns, self._step = rows, columns, 0
        turns = -(-rows // columns)
        share = (count + 0.5) / (rows * columns + 1.0)
        strength_row, strength_column = (
            _STRENGTH_OFF if e == OFF else float(1 << e) for e in exponents
        )
        self._padded = np.zeros((turns, columns), bool)
        self._row_ones = np.full((turns, columns), strength_row * share)
        self._row_zeros = np.full((turns, columns), strength_row * (1.0 - share))
        # Twice: the columns of step t, from that of row 0, are the places from t on.
        self._column_ones = np.full(2 * columns, strength_column * share)
        self._column_zeros = np.full(2 * columns, strength_column * (1.0 - share))
        self._seen = np.full(columns, rows // columns)
        self._seen[: rows % columns] += 1
        self._ones_odds, self._zeros_odds = 1.0 - share, share

    def probabilities(self) -> np.ndarray:
        """Of zero, in 2**16ths, int64 ``[rows]``, for the next step."""
        columns = slice(self._step, self._step + self._columns)
        zeros = self._row_zeros * (self._column_zeros[columns] * self._zeros_odds)
        ones = self._row_ones * (self._column_ones[columns] * self._ones_odds)
        ones += zeros
        zeros /= ones
        zeros *= TOTAL
        found = zeros.ravel()[: self._rows].astype(np.int64)
        return np.clip(found, LEAST, TOTAL - LEAST, out=found)

    def update(self, nonzero: np.ndarray) -> None:
        """Count a step's weights, bool ``[rows]``; at most ``columns`` steps."""
        table = self._padded
        table.ravel()[: self._rows] = nonzero
        self._row_ones += table
        self._row_zeros += ~table
        ones = table.sum(0, dtype=np.int64)
        first, end = self._step, self._step + self._columns
        for counts, more in (self._column_ones, ones), (self._column_zeros, self._seen - ones):
            counts[first:end] += more
            counts[end] = counts[first]
        self._step += 1


class ValueModel:
    """Probabilities of the levels that are not zero: counts of those seen so far.

    Args:
      levels: how many there are.
      start: the count of each before the first, where a value counts 24.
    """

    def __init__(self, levels: int, start: int = 8):
        self._counts = np.full(levels, start, np.int64)

    def bounds(self) -> np.ndarray:
        """Ends of the levels' intervals in 0..2**16, int64 ``[levels + 1]``."""
        sums = np.zeros(len(self._counts) + 1, np.int64)
        np.cumsum(self._counts, out=sums[1:])
        # Every interval holds at least one slot.
        return sums * (TOTAL - len(self._counts)) // sums[-1] + np.arange(len(sums))

    def update(self, values: np.ndarray) -> None:
        """Count levels by their places, int64 ``[n]``."""
        self._counts += _COUNT_STEP * np.bincount(values, minlength=len(self._counts))


def exponents(nonzero: np.ndarray) -> tuple[int, int]:
    """The exponents of a `ZeroModel` for a mask bool ``[rows, columns]``.

    Where the share of nonzeros varies more between rows than chance has it, the strength of a beta
    distribution that would explain it (method of moments); and the same for columns.
    """
    rows, columns = nonzero.shape
    return (
        _exponent(np.count_nonzero(nonzero, 1), columns),
        _exponent(np.count_nonzero(nonzero, 0), rows),
    )


def _exponent(counts: np.ndarray, each: int) -> int:
    total = int(counts.sum())
    zeros = each * len(counts) - total
    if each < 2 or len(counts) < 2 or not total or not zeros:
        return OFF
    # In Python integers: a sum of floats would depend on the machine.
    spread = len(counts) * sum(count * count for count in counts.tolist()) - total**2
    variance = spread / (len(counts) * (len(counts) - 1) * each**2)
    excess = variance * (each * len(counts)) ** 2 / (total * zeros) - 1 / each
    if excess <= 0:  # it is (1 - 1 / each) / (strength + 1)
        return OFF
    strength = max((1 - 1 / each) / excess - 1, 1.0)
    return min(round(math.log2(strength)), OFF) if strength < each else OFF

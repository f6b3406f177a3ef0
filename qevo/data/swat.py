"""Secure Water Treatment (SWaT): sensors of a plant under attack, as images of time by sensor.

The data is given on request only, by iTrust, Singapore University of Technology and Design: Goh,
Adepu, Junejo and Mathur, *A dataset to support research in the design of secure water treatment
systems*, CRITIS 2016. Its spreadsheets are read as CSV: one row a second of a ``Timestamp``, a
number for each sensor and actuator, and ``Normal/Attack``. A line of process names above the
header, spaces around names and values, and the spelling "A ttack" occur in the published files.
"""

import array
import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qevo.data.dataset import Dataset, Split
from qevo.data.one_class import ANOMALY, NORMAL
from qevo.errors import QevoError

_UNITS = 1_000_000  # per unit of a sensor: what is read is exact to six decimals
_LIMIT = 1 << 32  # of a sensor's magnitude, so that 510 times a difference of units fits int64
_LABELS = {"Normal": NORMAL, "Attack": ANOMALY}
_HEADER_LINES = 2  # in which the header may be


@dataclass(frozen=True, eq=False)
class _Recording:
    sensors: tuple[str, ...]
    values: np.ndarray  # int64 [rows, sensors], in 1/_UNITS
    labels: np.ndarray  # int32 [rows]


def read_swat(
    normal: str | os.PathLike[str],
    attacked: str | os.PathLike[str],
    *,
    window: int = 32,
    stride: int = 8,
    multiple: int = 1,
) -> Dataset:
    """Sliding windows over two recordings, one without and one with attacks.

    A pixel is ``clip(round(255 * (value - min) / (max - min)), 0, 255)``, computed in integers,
    with the minimum and maximum of its sensor in the normal recording; a sensor that never moves
    there is 128 at its one value. A window with an attacked row is an anomaly.

    Args:
      normal: CSV file of normal rows only. Its last 15 % of rows are the validation windows' own.
      attacked: CSV file for the test windows.
      window: rows of an image.
      stride: rows from one window to the next.
      multiple: columns of zeros bring the sensors to a multiple of this.

    Returns:
      Images uint8 ``[n, window, sensors, 1]`` in the order of time, with labels `NORMAL` and
      `ANOMALY`.

    Raises:
      QevoError: a file that is missing, empty, or not of this format (naming the line), sensors
        that differ between the files, an attack in the normal file, or too few rows for one window.
    """
    if min(window, stride, multiple) < 1:
        raise QevoError(
            f"window, stride and multiple must be at least 1, got {window}, {stride}, {multiple}"
        )
    train, test = _read(Path(normal)), _read(Path(attacked))
    if train.sensors != test.sensors:
        odd = sorted(set(train.sensors) ^ set(test.sensors)) or ["their order"]
        raise QevoError(f"{attacked} has other sensors than {normal}: {', '.join(odd)}")
    if train.labels.any():
        row = int(np.argmax(train.labels)) + 1
        raise QevoError(f"{normal}: expected normal rows only, found an attack in data row {row}")
    held_out = max(window, round(0.15 * len(train.labels)))
    cut = len(train.labels) - held_out
    for path, rows in ((normal, cut), (attacked, len(test.labels))):
        if rows < window:
            raise QevoError(f"{path}: {max(rows, 0)} rows are left for windows of {window}")
    low, high = train.values.min(0), train.values.max(0)

    def windows(recording: _Recording, rows: slice) -> Split:
        pixels = _pixels(recording.values[rows], low, high)
        pixels = np.pad(pixels, ((0, 0), (0, -pixels.shape[1] % multiple)))
        images = np.lib.stride_tricks.sliding_window_view(pixels, window, axis=0)[::stride]
        images = np.ascontiguousarray(images.transpose(0, 2, 1))[..., None]
        seen = np.lib.stride_tricks.sliding_window_view(recording.labels[rows], window)[::stride]
        return Split(images, seen.max(1).astype(np.int32))

    return Dataset(
        "swat",
        windows(train, slice(None, cut)),
        windows(train, slice(cut, None)),
        windows(test, slice(None)),
        ("normal", "attack"),
        f"windows of {window} rows, every {stride}, of {normal} and {attacked}",
    )


def _pixels(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """int64 ``[rows, sensors]`` to uint8 by each sensor's range, rounded half up."""
    span = high - low
    moves = span > 0
    scaled = (510 * (values - low) + span) // np.where(moves, 2 * span, 1)
    still = 128 + 128 * np.sign(values - low)
    return np.clip(np.where(moves, scaled, still), 0, 255).astype(np.uint8)


def _read(path: Path) -> _Recording:
    if not path.is_file():
        raise QevoError(
            f"{path}: no such file; SWaT is given on request by iTrust, Singapore University of"
            " Technology and Design"
        )
    try:
        values, labels, sensors = _cells(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise QevoError(
            f"{path}: expected comma-separated text in UTF-8, as which a spreadsheet can be saved,"
            f" found {error}"
        ) from None
    if not len(labels):
        raise QevoError(f"{path}: expected rows below the header, found none")
    real = values.reshape(len(labels), len(sensors))
    off = ~(np.abs(real) < _LIMIT)  # NaN is no number below the limit either
    if off.any():
        row, column = np.argwhere(off)[0]
        raise QevoError(
            f"{path}: {sensors[column]} is {real[row, column]} in data row {row + 1}; expected a"
            f" number of magnitude below {_LIMIT}"
        )
    fixed = np.rint(real * _UNITS).astype(np.int64)
    return _Recording(sensors, fixed, labels.astype(np.int32))


def _cells(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Sensors float64 ``[rows * sensors]``, the rows' labels int8 and the sensors' names."""
    values, labels = array.array("d"), array.array("b")
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = enumerate(csv.reader(file), start=1)
        names = _header(path, lines)
        sensors = tuple(names[1:-1])
        for number, cells in lines:
            if not any(cells):
                continue
            if len(cells) != len(names):
                raise QevoError(
                    f"{path}, line {number}: expected {len(names)} cells, found {len(cells)}"
                )
            label = cells[-1].replace(" ", "")
            if label not in _LABELS:
                raise QevoError(
                    f"{path}, line {number}: expected Normal or Attack, found {cells[-1]!r}"
                )
            labels.append(_LABELS[label])
            try:
                values.extend(map(float, cells[1:-1]))
            except ValueError as error:
                raise QevoError(f"{path}, line {number}: {error}") from None
    return np.frombuffer(values, np.float64), np.frombuffer(labels, np.int8), sensors


def _header(path: Path, lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The names of the columns, without spaces around them."""
    for number, cells in lines:
        names = [cell.strip() for cell in cells]
        if names and names[0] == "Timestamp" and names[-1].replace(" ", "") == "Normal/Attack":
            if len(names) < 3:
                raise QevoError(f"{path}: expected sensors between Timestamp and Normal/Attack")
            return names
        if number == _HEADER_LINES:
            break
    raise QevoError(
        f"{path}: expected a header from Timestamp to Normal/Attack, with commas between, in the"
        f" first {_HEADER_LINES} lines"
    )

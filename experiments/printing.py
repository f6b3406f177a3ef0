"""What the scripts beside it print."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from qevo.report.table import METHODS

console = Console(width=170)


def table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table without rows: columns of words, then of numbers."""
    found = Table(title=title, title_justify="left")
    for column in words:
        found.add_column(column)
    for column in numbers:
        found.add_column(column, justify="right")
    return found


def measured_methods(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The methods of which all parts say something, in the order of the tables."""
    parts = list(parts)
    return [method for method in METHODS if all(method in part for part in parts)]


def accuracy_cells(runs: Sequence[Mapping[str, Any]], methods: Iterable[str]) -> list[str]:
    """Test accuracy of each method over the seeds, %."""
    return [
        mean_and_spread([100 * run["accuracy"][method]["test"] for run in runs], 2)
        for method in methods
    ]


def mean(values: Iterable[float | None], digits: int) -> str:
    """Of the values that are known; empty where none is."""
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.{digits}f}" if known else ""


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Over the seeds: mean and standard deviation; of one seed its value."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values, digits)}{spread}"

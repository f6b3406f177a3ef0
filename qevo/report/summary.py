"""Several runs of one setting, gathered with their spread."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from qevo.core.writing import write_whole
from qevo.report.table import METHODS


def summarise(path: pathlib.Path, runs: Sequence[dict[str, Any]], *, command: str) -> None:
    """Print mean and standard deviation of each method's accuracy; write them with all runs.

    Args:
      path: JSON file to write.
      runs: what each run's result.json holds.
      command: what made them, for the file.
    """
    summary = spreads(runs)
    table = Table(title=f"accuracy over {len(runs)} seeds, %", title_justify="left")
    for column in ("network", "validation", "test", "test, least to most"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for method, parts in summary.items():
        test = parts["test"]
        cells = [f"{100 * p['mean']:.2f} ± {100 * p['deviation']:.2f}" for p in parts.values()]
        cells.append(f"{100 * test['least']:.2f} to {100 * test['most']:.2f}")
        table.add_row(METHODS[method], *cells, style="bold" if method == "evolved" else "")
    Console().print(table)
    record = {"command": command, "accuracy": summary, "runs": list(runs)}
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())


def spreads(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, deviation, least and most of each method's accuracy, by method and split.

    Args:
      runs: each with its "accuracy", as result.json has it.
    """
    return {
        method: {
            part: _spread([run["accuracy"][method][part] for run in runs])
            for part in ("validation", "test")
        }
        for method in METHODS
        if all(method in run["accuracy"] for run in runs)
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
        "least": min(values),
        "most": max(values),
    }

"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

METHODS = {
    "float": "float teacher",
    "nearest": "nearest rounding",
    "best_of_n": "best of N stochastic",
    "gptq": "GPTQ-style",
    "adaround": "AdaRound-style",
    "layerwise": "layer-wise fit",
    "evolutionary": "evolutionary rounding",
    "evolved": "evolved",
}


def accuracy_table(accuracy: Mapping[str, Mapping[str, float]]) -> Table:
    """Accuracy of each method on validation and test images, in percent."""
    table = Table(title="accuracy, %", title_justify="left")
    table.add_column("network")
    table.add_column("validation", justify="right")
    table.add_column("test", justify="right")
    for name, label in METHODS.items():
        if name in accuracy:
            row = accuracy[name]
            style = "bold" if name == "evolved" else ""
            cells = (f"{100 * row['validation']:.2f}", f"{100 * row['test']:.2f}")
            table.add_row(label, *cells, style=style)
    return table

"""Per-layer tables and pictures of a refined network: what each layer's rounding costs."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.table import Table

from qevo.report.picture import COLORS, STYLE
from qevo.report.saving import save_figure
from qevo.report.table import METHODS

KINDS = ("nearest", "evolved")
Layers = Mapping[str, Mapping[str, Any]]  # as `qevo.run` writes them to layers.json


def layers_table(layers: Layers) -> Table:
    """Sensitivity and output error of each layer before and after, most sensitive first."""
    table = Table(title="layers, most sensitive first", title_justify="left")
    table.add_column("layer", overflow="fold")
    for column in ("bits", "weights", "changed %", "error %", "sensitivity, mnat"):
        table.add_column(column, justify="right")
    by_cost = sorted(layers.items(), key=lambda item: -item[1]["nearest"]["sensitivity"])
    for name, layer in by_cost:
        before, after = (layer[kind] for kind in KINDS)
        table.add_row(
            name,
            str(layer["bits"]),
            f"{layer['weights']:,}",
            f"{100 * layer['changed']:.1f}",
            f"{100 * before['error']:.3g} → {100 * after['error']:.3g}",
            f"{1000 * before['sensitivity']:.3g} → {1000 * after['sensitivity']:.3g}",
        )
    return table


def draw_layers(path: pathlib.Path, layers: Layers) -> None:
    """Output error and sensitivity of every layer, in the order of computation."""
    with rc_context(STYLE):
        height = max(3.0, 0.8 + 0.28 * len(layers))
        figure = Figure(figsize=(11, height), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        rows = np.arange(len(layers))
        for ax, what, title in (
            (left, "error", "error of the layer's output, share of its variance"),
            (right, "sensitivity", "sensitivity: divergence if only this layer is rounded, nats"),
        ):
            costs = [layer[kind][what] for layer in layers.values() for kind in KINDS]
            floor = min((cost for cost in costs if cost > 0), default=1.0) / 2  # 0 has no logarithm
            for offset, kind in zip((-0.2, 0.2), KINDS, strict=True):
                values = [max(layer[kind][what], floor) for layer in layers.values()]
                ax.barh(rows + offset, values, 0.38, color=COLORS[kind], label=METHODS[kind])
            ax.set_xscale("log")
            ax.set_title(title, loc="left", fontsize=10)
        left.set_yticks(rows, list(layers))
        left.invert_yaxis()
        right.legend(frameon=False)
        save_figure(figure, path)
